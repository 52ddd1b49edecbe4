//! A peer goes and comes back.

use super::{refusal::rebind, *};
use std::thread;

#[test]
fn a_peer_that_stopped_is_found_again_on_the_same_port() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        let address1 = one.transport.local_addr().unwrap();
        let address2 = two.transport.local_addr().unwrap();
        two.transport.shutdown().await;
        drop(two);
        one.dropped(2).await;
        one.error_to(2).await;
        let two = Setup::new(2, &[(1, address1)]).start(rebind(address2).await);
        one.connected(2).await;
        two.connected(1).await;
        one.send(2, urgent(5));
        assert_eq!(number_of(&two.packet_in().await.message), 5);
        assert!(one.transport.warnings().is_empty());
        let link = one.transport.status().remove(0);
        assert!(link.connected);
        assert_eq!(link.last_error, None, "it is connected");
    });
}

/// Nodes are started one after the other, and stopped to be started again.
#[test]
fn peer_that_is_not_there_yet_or_was_stopped_is_a_warning_only_once_that_lasts() {
    for (absence_max, warns) in [(2 * PATIENCE, false), (Duration::ZERO, true)] {
        run_by(Carrier::Tcp, async {
            let ((socket1, address1), (socket2, address2)) = (socket(), socket());
            drop(socket2);
            let mut setup = Setup::new(1, &[(2, address2)]);
            setup.limits.absence_max = absence_max;
            let one = setup.start(socket1);
            assert!(one.error_to(2).await.contains("nobody listens there"));
            let warned = |one: &Node| !one.transport.warnings().is_empty();
            assert_eq!(warned(&one), warns);
            let two = Setup::new(2, &[(1, address1)]).start(rebind(address2).await);
            one.connected(2).await;
            assert!(!warned(&one));
            two.transport.shutdown().await;
            drop(two);
            one.dropped(2).await;
            one.error_to_with(2, "nobody listens there").await;
            assert_eq!(warned(&one), warns);
        });
    }
}

#[test]
fn a_peer_that_was_killed_and_stays_away_is_given_up() {
    run(|| async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let mut setup = Setup::new(1, &[(2, address2)]);
        setup.limits.keep_alive_interval = Duration::from_millis(50);
        setup.limits.idle_timeout = Duration::from_millis(300);
        let one = setup.start(socket1);
        let life = run_and_kill(socket2, address1);
        // A machine that stands still for longer than the timeout loses the connection, and finds it again.
        poll(|| {
            one.send(2, urgent(1));
            life.is_finished().then_some(())
        })
        .await;
        let words = match carrier() {
            Carrier::Quic => "no answer",
            _ => "broke the connection off",
        };
        one.until(|e| matches!(e, TransportEvent::Disconnected(_, why) if why.contains(words)).then_some(()))
            .await;
        one.dropped(2).await;
        poll(|| (!one.transport.status()[0].connected).then_some(())).await;
    });
}

/// The node's former life says no goodbye; only its successor can tell that its connections are dead.
#[test]
fn a_peer_that_was_killed_is_given_up_when_its_successor_says_so() {
    run_by(Carrier::Quic, async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let life = run_and_kill(socket2, address1);
        one.connected(2).await;
        one.send(2, urgent(1));
        poll(|| life.is_finished().then_some(())).await;
        let two = Setup::new(2, &[(1, address1)]).start(rebind(address2).await);
        assert_eq!(disconnected(&one).await, "the other side has restarted");
        one.connected(2).await;
        one.send(2, urgent(5));
        assert_eq!(number_of(&two.packet_in().await.message), 5);
    });
}

/// Why the next connection that is lost was lost.
async fn disconnected(node: &Node) -> String {
    node.until(|e| match e {
        TransportEvent::Disconnected(_, why) => Some(why),
        _ => None,
    })
    .await
}

/// Node 2 up to its first packet; then its runtime is gone without a word.
fn run_and_kill(socket: Socket, peer: SocketAddr) -> thread::JoinHandle<()> {
    let life = |by: Carrier| {
        move || {
            run_by(by, async move {
                let two = Setup::new(2, &[(1, peer)]).start(socket);
                two.packet_in().await;
            });
        }
    };
    thread::spawn(life(carrier()))
}
