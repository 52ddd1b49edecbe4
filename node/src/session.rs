//! The client's side of a session (dissertation §6.3): which numbers are out, which have to be sent again.
//!
//! It is a state machine without clock or network: whoever uses it sends what it says and tells what came back, to and from
//! any node. Invariants: a number is used for one append only; `settled` never passes one whose
//! answer may still be wanted; what is given up is settled, so that an attempt that is still on its way
//! somewhere finds itself refused once a later append has taken effect.

use crate::{
    request::{Ask, Failure, Reply},
    sessions::ANSWER_BYTES,
    window::Window,
};
use kontiki_wire::{Expect, InSession, Payload, Refusal, Session, SessionLimits};

/// The most that [`open_max`] gives, however much a session remembers: a client has memory for the whole distance from the
/// lowest to the highest number, and a leader takes no more of one node than four times as many.
const OPEN_MAX: usize = 1 << 14;

/// How many numbers a client of a session with these limits may have without an answer: the distance from the lowest to the
/// highest is below this. As many answers without outputs as the session remembers, so that none which may still be wanted is
/// forgotten; at least one, and 16384 at most.
#[must_use]
pub fn open_max(limits: &SessionLimits) -> usize {
    let answers = u64::from(limits.answers_bytes_max) / ANSWER_BYTES;
    usize::try_from(answers).map_or(OPEN_MAX, |n| n.clamp(1, OPEN_MAX))
}

/// One client's session.
#[derive(Debug)]
pub struct SessionClient {
    open_max: u64,
    session: Option<u64>,
    next: u64,
    open: Window<Open>,
}

/// An append without an answer.
#[derive(Clone, Debug)]
struct Open {
    payload: Payload,
    expect: Expect,
    /// An attempt of it may have taken effect, or may yet.
    in_doubt: bool,
}

/// What to do about an append after an answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// This is what became of it, once for all attempts: its number is settled.
    Final(Reply),
    /// Send it again, under the same number, to any node: [`SessionClient::retry`].
    Retry,
    /// It is given up, and whether it took effect cannot be told: an earlier attempt may have, and this is what the
    /// last was answered.
    InDoubt(Failure),
}

impl SessionClient {
    /// A client without a session, that is to have so many numbers without an answer at most ([`open_max`]).
    #[must_use]
    pub fn new(open_max: usize) -> Self {
        Self {
            open_max: open_max as u64,
            session: None,
            next: 0,
            open: Window::default(),
        }
    }

    /// The session, if one is open.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// How many appends have no answer.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// A session was opened ([`Ask::OpenSession`] and [`Reply::SessionOpened`]); it takes the place of any other. What has
    /// no answer in that one is given up: its numbers are returned, with whether each may have taken effect.
    pub fn opened(&mut self, session: u64) -> Vec<(u64, bool)> {
        self.session = Some(session);
        let left = self.open.take();
        left.map(|(sequence, open)| (sequence, open.in_doubt)).collect()
    }

    /// Whether a new append can be sent: there is a session, and the lowest number without an answer is near.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.session.is_some() && self.next + 1 - self.settled() < self.open_max
    }

    /// Whether an append without an answer may have taken effect, or may yet, by an attempt before the last.
    #[must_use]
    pub fn in_doubt(&self, sequence: u64) -> bool {
        self.open.get(sequence).is_some_and(|open| open.in_doubt)
    }

    /// A new append: its number, and what to ask. `None` if there is no [room](Self::has_room).
    pub fn append(&mut self, payload: Payload, expect: Expect) -> Option<(u64, Ask)> {
        if !self.has_room() {
            return None;
        }
        self.next += 1;
        let open = Open {
            payload,
            expect,
            in_doubt: false,
        };
        self.open.push(self.next, open);
        Some((self.next, self.retry(self.next)?))
    }

    /// What to ask, once more, for an append without an answer.
    #[must_use]
    pub fn retry(&self, sequence: u64) -> Option<Ask> {
        let open = self.open.get(sequence)?;
        let of = InSession {
            session: self.session?,
            sequence,
            settled: self.settled(),
        };
        Some(Ask::Append {
            payload: open.payload.clone(),
            expect: open.expect,
            session: Session::In(of),
        })
    }

    /// The lowest number without an answer.
    fn settled(&self) -> u64 {
        self.open.lowest().unwrap_or(self.next + 1)
    }

    /// An append was answered, or no answer came: then `reply` is what is said of that
    /// ([`Failure::Unknown`]). `None` if it has no open append of this number.
    pub fn answered(&mut self, sequence: u64, reply: Reply) -> Option<Verdict> {
        let open = self.open.get_mut(sequence)?;
        let Reply::Failed(failure) = reply else {
            self.open.remove(sequence);
            return Some(Verdict::Final(reply));
        };
        let verdict = match failure {
            Failure::Refused(Refusal::NotLeader { .. } | Refusal::Overloaded | Refusal::DiskFull { .. })
            | Failure::Superseded
            | Failure::NoLeader
            | Failure::Timeout
            | Failure::Quarantined(_)
            | Failure::Stopped(_) => Verdict::Retry,
            Failure::Refused(Refusal::SessionStale) => Verdict::InDoubt(failure),
            Failure::Refused(_) if open.in_doubt => Verdict::InDoubt(failure),
            Failure::Refused(_) => Verdict::Final(Reply::Failed(failure)),
            _ => {
                open.in_doubt = true;
                Verdict::Retry
            }
        };
        if !matches!(verdict, Verdict::Retry) {
            self.open.remove(sequence);
        }
        Some(verdict)
    }

    /// Gives an append up; true if it may have taken effect, or may yet. `None` if it has no open append of this number.
    pub fn give_up(&mut self, sequence: u64, under_way: bool) -> Option<bool> {
        let open = self.open.remove(sequence)?;
        Some(open.in_doubt || under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kontiki_consensus::{Position, Term};
    use kontiki_wire::Codec;

    fn payload() -> Payload {
        Payload::one(Bytes::from_static(b"x"), Codec::Bytes)
    }

    fn settled(ask: &Ask) -> (u64, u64) {
        match ask {
            Ask::Append {
                session: Session::In(of),
                ..
            } => (of.sequence, of.settled),
            other => panic!("not an append of a session: {other:?}"),
        }
    }

    fn appended() -> Reply {
        Reply::Appended {
            first: Position(1),
            last: Position(1),
            term: Term(1),
            raft_index: 3,
            outputs: None,
        }
    }

    fn mismatch() -> Reply {
        Reply::Failed(Failure::Refused(Refusal::Mismatch {
            last: Position(1),
            term: Term(1),
        }))
    }

    #[test]
    fn numbers_rise_and_the_lowest_without_an_answer_is_told() {
        let mut client = SessionClient::new(8);
        assert!(client.append(payload(), Expect::Any).is_none(), "no session yet");
        assert!(client.opened(7).is_empty());
        let asks: Vec<Ask> = (0..3)
            .map(|_| client.append(payload(), Expect::Any).expect("room").1)
            .collect();
        assert_eq!(
            asks.iter().map(settled).collect::<Vec<_>>(),
            [(1, 1), (2, 1), (3, 1)]
        );
        assert!(matches!(client.answered(1, appended()), Some(Verdict::Final(_))));
        assert!(client.answered(1, appended()).is_none(), "answered once");
        assert_eq!(settled(&client.retry(3).expect("open")), (3, 2));
        client.answered(3, appended());
        client.answered(2, appended());
        assert_eq!(
            settled(&client.append(payload(), Expect::Any).expect("room").1),
            (4, 4)
        );
    }

    #[test]
    fn what_did_not_take_effect_is_sent_again_and_what_may_have_stays_in_doubt() {
        let mut client = SessionClient::new(8);
        client.opened(7);
        for _ in 0..3 {
            client.append(payload(), Expect::Empty).expect("room");
        }
        assert!(matches!(
            client.answered(1, Reply::Failed(Failure::NoLeader)),
            Some(Verdict::Retry)
        ));
        let quarantined = Reply::Failed(Failure::Quarantined("differs".to_owned()));
        assert!(matches!(client.answered(1, quarantined), Some(Verdict::Retry)));
        assert!(!client.in_doubt(1), "that node has not proposed it");
        assert!(matches!(client.answered(1, mismatch()), Some(Verdict::Final(_))));
        let unknown = Reply::Failed(Failure::Unknown("lost".into()));
        assert!(matches!(client.answered(2, unknown), Some(Verdict::Retry)));
        assert!(matches!(
            client.answered(2, mismatch()),
            Some(Verdict::InDoubt(_))
        ));
        let expired = Reply::Failed(Failure::Refused(Refusal::SessionExpired));
        assert!(matches!(client.answered(3, expired), Some(Verdict::Final(_))));
        assert_eq!(client.open_count(), 0);
    }

    #[test]
    fn a_new_session_leaves_nothing_open_and_uses_no_number_again() {
        let mut client = SessionClient::new(8);
        client.opened(7);
        client.append(payload(), Expect::Any).expect("room");
        client.append(payload(), Expect::Any).expect("room");
        client.answered(2, Reply::Failed(Failure::Unknown("lost".into())));
        assert_eq!(client.opened(9), [(1, false), (2, true)]);
        assert_eq!(
            settled(&client.append(payload(), Expect::Any).expect("room").1),
            (3, 3)
        );
        assert_eq!(client.give_up(3, true), Some(true));
        assert_eq!(client.give_up(3, true), None);
    }

    #[test]
    fn as_many_may_be_out_as_a_session_remembers_within_bounds() {
        let with = |answers_bytes_max| {
            open_max(&SessionLimits {
                answers_bytes_max,
                ..SessionLimits::default()
            })
        };
        assert_eq!([with(0), with(63), with(128)], [1, 1, 2]);
        assert_eq!([with(256 << 10), with(u32::MAX)], [4096, OPEN_MAX]);
    }

    #[test]
    fn no_more_are_out_than_may_be() {
        let mut client = SessionClient::new(8);
        client.opened(7);
        (0..8).for_each(|_| {
            client.append(payload(), Expect::Any).expect("room");
        });
        assert!(client.append(payload(), Expect::Any).is_none());
        client.answered(2, appended());
        assert!(!client.has_room(), "the first could be forgotten");
        client.answered(1, appended());
        assert!(client.has_room());
    }
}
