//! Who does not belong is refused, and both sides can read why.

use super::*;
use kontiki_wire::handshake::Versions;

/// Starts node 1 as it should be and node 2 as `adjust` makes it; returns what each says about the other.
async fn refused(words: &str, adjust: impl FnOnce(&mut Setup)) -> (String, String) {
    let ((socket1, address1), (socket2, address2)) = (socket(), socket());
    let one = Setup::new(1, &[(2, address2)]).start(socket1);
    let mut setup = Setup::new(2, &[(1, address1)]);
    adjust(&mut setup);
    let two = setup.start(socket2);
    let said = (two.error_to(1).await, one.warning_with(words).await);
    assert!(!one.transport.status()[0].connected && !two.transport.status()[0].connected);
    said
}

#[test]
fn another_key_is_refused() {
    run(|| async {
        let (two, one) = refused("cluster.key", |setup| setup.seed = [8; 32]).await;
        assert!(two.contains("they do not hold the same cluster.key"), "{two}");
        assert!(one.contains("they do not hold the same cluster.key"), "{one}");
    });
}

#[test]
fn another_cluster_is_refused() {
    run(|| async {
        let (two, one) = refused("cluster", |setup| setup.identity.cluster = ClusterId(0xc2)).await;
        assert!(two.contains("cluster"), "{two}");
        assert!(one.contains("cluster"), "{one}");
    });
}

#[test]
fn a_node_under_another_id_than_its_address_says_is_refused() {
    run(|| async {
        let (two, one) = refused("is not the node", |setup| setup.identity.node = NodeId(3)).await;
        assert!(one.contains("n3."), "it says which node is there instead: {one}");
        assert!(two.contains("node 3, which is not among the peers"), "{two}");
    });
}

#[test]
fn a_hello_that_the_certificate_does_not_bear_out_is_refused() {
    run(|| async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2), (3, address2)]).start(socket1);
        let mut setup = Setup::new(3, &[(1, address1)]);
        setup.hello = Some(Hello::of(identity(2), life(2)));
        let three = setup.start(socket2);
        let why = three.error_to(1).await;
        assert!(
            why.contains("says that it is node 2, but its certificate is another node's"),
            "{why}"
        );
        one.warning_with("its certificate is another node's").await;
    });
}

#[test]
fn versions_that_do_not_overlap_are_refused() {
    run(|| async {
        let (two, one) = refused("versions", |setup| {
            let mut hello = Hello::of(setup.identity, setup.life);
            hello.versions = Versions { min: 8, max: 9 };
            setup.hello = Some(hello);
        })
        .await;
        assert!(one.contains("8 to 9"), "{one}");
        assert!(two.contains("upgrade the older one"), "{two}");
    });
}

#[test]
fn a_start_that_the_owner_refuses_is_refused_on_both_sides() {
    run(|| async {
        let (one, two) = pair(|_| {});
        one.connected(2).await;
        two.connected(1).await;
        one.transport
            .refuse(NodeId(2), two.start, "an old copy was put back");
        let told = two.until(refusal).await;
        assert_eq!(told, (NodeId(1), "an old copy was put back".to_owned()));
        let warning = one.warning_with("an old copy was put back").await;
        assert!(warning.starts_with("connection "), "{warning}");
        poll(|| (!one.transport.status()[0].connected).then_some(())).await;
        let why = two.error_to(1).await;
        assert!(why.contains("an old copy was put back"), "{why}");
    });
}

/// As where a copy of a data directory runs beside the original.
#[test]
fn a_second_process_under_one_id_takes_no_connection_from_the_first() {
    run(|| async {
        let ((socket1, address1), (socket2, address2)) = (socket(), socket());
        let one = Setup::new(1, &[(2, address2)]).start(socket1);
        let two = Setup::new(2, &[(1, address1)]).start(socket2);
        one.connected(2).await;
        two.connected(1).await;
        let mut copy = Setup::new(2, &[(1, address1)]);
        copy.life = life(2).next(StartId(7));
        one.inbox.unbelieved.borrow_mut().insert(StartId(7));
        let copy = copy.start(socket().0);
        for _ in 0..3 {
            copy.until(refusal).await;
        }
        two.send(1, urgent(5));
        let packet = one.packet_in().await;
        assert_eq!((packet.start, number_of(&packet.message)), (two.start, 5));
        let lost = |e: &TransportEvent| matches!(e, TransportEvent::Disconnected(..));
        assert!(!two.inbox.events.borrow().iter().any(lost));
        assert!(!one.inbox.events.borrow().iter().any(lost));
    });
}

/// Who refuses the life of a node, and why, if the event tells that.
fn refusal(event: TransportEvent) -> Option<(NodeId, String)> {
    match event {
        TransportEvent::Refused(by, why) => Some((by, why)),
        _ => None,
    }
}

#[test]
fn nothing_is_told_twice() {
    run(|| async {
        let ((socket1, _), (_, nobody)) = (socket(), socket());
        let mut setup = Setup::new(1, &[(2, nobody)]);
        setup.limits.connect_timeout = Duration::from_millis(20);
        setup.limits.reconnect_max = Duration::from_millis(60);
        let one = setup.start(socket1);
        let words = match carrier() {
            Carrier::Quic => "no answer",
            _ => "nobody listens there",
        };
        one.warning_with(words).await;
        assert_eq!(one.transport.warnings().len(), 1);
    });
}

/// The port of a node that has just gone, once the system gives it back.
pub(super) async fn rebind(address: SocketAddr) -> Socket {
    poll(|| bind(carrier(), address).ok()).await
}
