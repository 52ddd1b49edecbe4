//! The appends of a node's own clients, each of which takes effect once (dissertation §6.3).
//!
//! All of them go through one session of the node, opened when the first comes. One whose answer is lost is sent again under
//! the same number until it is answered or its time is over; when the session has expired, what certainly did not take
//! effect goes into the next one. It has no clock and no network: whoever uses it stands between the clients and the driver,
//! and gives it the time. Invariants: each append is answered once; at most one attempt of it is under way, so that none is
//! answered for another; an append is held up by no other, except where too many are out or there is no session.

use crate::{
    ports::Input,
    request::{Ask, Failure, Reply, Request, Token},
    session::{SessionClient, Verdict},
    window::Window,
};
use kontiki_consensus::{Duration, Time};
use kontiki_wire::{Expect, Payload, Refusal};
use std::collections::{BTreeMap, VecDeque};

/// How long to wait before something is sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// Marks the tokens of attempts; those of clients must not have this bit.
const ATTEMPT: u64 = 1 << 63;
/// Beside [`ATTEMPT`], marks those that open a session.
const OPENING: u64 = 1 << 62;

/// An append of a client.
#[derive(Clone, Debug)]
pub struct Held {
    /// The client's name for it; below 2⁶².
    pub token: Token,
    /// When to give up.
    pub deadline: Time,
    /// The entries. Without any it changes nothing, but keeps its place among the others.
    pub payload: Payload,
    /// The precondition.
    pub expect: Expect,
}

/// All of them.
#[derive(Debug)]
pub struct Once {
    client: SessionClient,
    /// The session has expired: nothing more goes into it.
    over: bool,
    /// A session is being opened.
    opening: bool,
    /// How often one was.
    openings: u64,
    /// When to try again.
    open_at: Time,
    /// What was not yet sent.
    waiting: VecDeque<Held>,
    /// What an expired session has certainly not taken, by its number there.
    returned: BTreeMap<u64, Held>,
    /// Nothing among those two is due before this.
    expires: Time,
    /// What has a number, and whose it is.
    out: Window<(Token, Time)>,
    /// What is to be sent again, and when.
    again: VecDeque<(Time, u64)>,
}

impl Once {
    /// Without a session; it is to have so many appends without an answer at most, as
    /// [`open_max`](crate::session::open_max) of the limits tells with which it will be opened.
    #[must_use]
    pub fn new(open_max: usize) -> Self {
        Self {
            client: SessionClient::new(open_max),
            over: false,
            opening: false,
            openings: 0,
            open_at: Time::ZERO,
            waiting: VecDeque::new(),
            returned: BTreeMap::new(),
            expires: Time::ZERO,
            out: Window::default(),
            again: VecDeque::new(),
        }
    }

    /// Whether a token is one of an attempt, whose answer belongs here.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        token.0 & ATTEMPT != 0
    }

    /// Takes an append in. It is sent by [`pump`](Self::pump).
    pub fn append(&mut self, held: Held) {
        self.expires = match self.waiting.is_empty() && self.returned.is_empty() {
            true => held.deadline,
            false => self.expires.min(held.deadline),
        };
        self.waiting.push_back(held);
    }

    /// Asks the driver what is to be asked now, and answers those whose time is over before they could be sent: `is_led` says
    /// whether for want of a leader.
    pub fn pump(
        &mut self,
        now: Time,
        is_led: bool,
        inbox: &mut Vec<Input>,
        answers: &mut Vec<(Token, Reply)>,
    ) {
        self.expire(now, is_led, answers);
        while let Some((_, sequence)) = self.again.front().copied().filter(|(at, _)| *at <= now) {
            self.again.pop_front();
            if let (Some(ask), Some((_, deadline))) = (self.client.retry(sequence), self.out.get(sequence)) {
                inbox.push(attempt(sequence, *deadline, ask));
            }
        }
        self.begin(now, inbox);
        while !self.over
            && self.client.has_room()
            && let Some(held) = self.waiting.pop_front()
        {
            if let Some((sequence, ask)) = self.client.append(held.payload, held.expect) {
                self.out.push(sequence, (held.token, held.deadline));
                inbox.push(attempt(sequence, held.deadline, ask));
            }
        }
    }

    /// Opens a session if one is needed. Nothing is out then: a number belongs to one session.
    fn begin(&mut self, now: Time, inbox: &mut Vec<Input>) {
        let needed = self.over || self.client.session().is_none();
        if !needed || self.opening || !self.out.is_empty() || now < self.open_at {
            return;
        }
        let returned = std::mem::take(&mut self.returned);
        for held in returned.into_values().rev() {
            self.waiting.push_front(held);
        }
        if let Some(first) = self.waiting.front() {
            self.opening = true;
            self.openings += 1;
            inbox.push(Input::Request(Request {
                token: Token(ATTEMPT | OPENING | self.openings),
                deadline: first.deadline,
                ask: Ask::OpenSession,
            }));
        }
    }

    fn expire(&mut self, now: Time, is_led: bool, answers: &mut Vec<(Token, Reply)>) {
        if now < self.expires || (self.waiting.is_empty() && self.returned.is_empty()) {
            return;
        }
        self.expires = Time::MAX;
        let expires = &mut self.expires;
        let mut is_early = |held: &Held| {
            let early = held.deadline > now;
            if early {
                *expires = held.deadline.min(*expires);
            } else {
                let failure = if is_led {
                    Failure::Timeout
                } else {
                    Failure::NoLeader
                };
                answers.push((held.token, Reply::Failed(failure)));
            }
            early
        };
        self.waiting.retain(&mut is_early);
        self.returned.retain(|_, held| is_early(held));
    }

    /// When to [`pump`](Self::pump) again, at the latest, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let again = self.again.front().map_or(Time::MAX, |(at, _)| *at);
        if self.waiting.is_empty() && self.returned.is_empty() {
            return again;
        }
        let opens = !self.opening && self.out.is_empty() && (self.over || self.client.session().is_none());
        let open_at = if opens { self.open_at } else { Time::MAX };
        again.min(self.expires).min(open_at)
    }

    /// The driver answers an attempt. What that means for clients is added to `answers`.
    pub fn answered(&mut self, now: Time, token: Token, reply: Reply, answers: &mut Vec<(Token, Reply)>) {
        if token.0 & OPENING != 0 {
            if self.opening && token.0 == ATTEMPT | OPENING | self.openings {
                self.opened(now, reply, answers);
            }
            return;
        }
        let sequence = token.0 & !ATTEMPT;
        let Some((client, deadline)) = self.out.get(sequence).copied() else {
            return;
        };
        // In case the session has expired.
        let retry = is_expired(&reply).then(|| self.client.retry(sequence)).flatten();
        let failure = match &reply {
            Reply::Failed(failure) => Some(failure.clone()),
            _ => None,
        };
        match (self.client.answered(sequence, reply), failure, retry) {
            (Some(Verdict::Retry), Some(failure), _) => {
                let late = now.after(PAUSE) >= deadline;
                let certain = !self.client.in_doubt(sequence);
                let told = late || (certain && is_final(&failure));
                if !told {
                    self.again.push_back((now.after(PAUSE), sequence));
                    return;
                }
                let doubt = self.client.give_up(sequence, false) == Some(true);
                answers.push((client, Reply::Failed(outcome(failure, doubt))));
            }
            (Some(Verdict::Final(_)), Some(_), Some(Ask::Append { payload, expect, .. })) => {
                self.over = true;
                self.expires = self.expires_with(deadline);
                let (token, payload) = (client, payload);
                let held = Held {
                    token,
                    deadline,
                    payload,
                    expect,
                };
                self.returned.insert(sequence, held);
            }
            (Some(Verdict::Final(reply)), ..) => answers.push((client, reply)),
            // Except where the session is gone or has forgotten, this is certain after all. Earlier attempts came to nothing
            // in terms that are over, and this answer is of a leader that knows all that is left of those.
            (Some(Verdict::InDoubt(failure)), _, retry) => {
                self.over |= retry.is_some();
                answers.push((client, Reply::Failed(failure)));
            }
            (None | Some(Verdict::Retry), ..) => {}
        }
        self.out.remove(sequence);
    }

    fn expires_with(&self, deadline: Time) -> Time {
        match self.waiting.is_empty() && self.returned.is_empty() {
            true => deadline,
            false => deadline.min(self.expires),
        }
    }

    fn opened(&mut self, now: Time, reply: Reply, answers: &mut Vec<(Token, Reply)>) {
        self.opening = false;
        match reply {
            Reply::SessionOpened { session, .. } => {
                // Nothing was out: nothing is left.
                self.client.opened(session);
                self.over = false;
            }
            Reply::Failed(failure) if is_final(&failure) => {
                let waiting = self.waiting.drain(..).map(|held| held.token);
                answers.extend(waiting.map(|token| (token, Reply::Failed(failure.clone()))));
            }
            _ => self.open_at = now.after(PAUSE),
        }
    }

    /// Gives everything up, because the node stops or stands still for this reason: what is answered to whom.
    pub fn give_up(&mut self, why: &str) -> Vec<(Token, Failure)> {
        let stopped = Failure::Stopped(why.to_owned().into());
        self.opening = false;
        let mut answers = Vec::new();
        let still: BTreeMap<u64, ()> = self.again.drain(..).map(|(_, sequence)| (sequence, ())).collect();
        for (sequence, (token, _)) in self.out.take() {
            let doubt = self.client.give_up(sequence, !still.contains_key(&sequence)) != Some(false);
            answers.push((token, outcome(stopped.clone(), doubt)));
        }
        let returned = std::mem::take(&mut self.returned).into_values();
        let unsent = returned.chain(self.waiting.drain(..));
        answers.extend(unsent.map(|held| (held.token, stopped.clone())));
        answers
    }
}

fn attempt(sequence: u64, deadline: Time, ask: Ask) -> Input {
    let token = Token(ATTEMPT | sequence);
    Input::Request(Request { token, deadline, ask })
}

fn is_expired(reply: &Reply) -> bool {
    matches!(reply, Reply::Failed(Failure::Refused(Refusal::SessionExpired)))
}

/// Whether the client is to hear of it at once, if nothing is in doubt: it is to wait, or the node is no more.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(refusal) => !matches!(refusal, Refusal::NotLeader { .. }),
        Failure::Superseded | Failure::NoLeader | Failure::Timeout | Failure::Unknown(_) => false,
        _ => true,
    }
}

/// What is said of an append that is given up.
fn outcome(failure: Failure, doubt: bool) -> Failure {
    match failure {
        Failure::Unknown(_) => failure,
        Failure::Stopped(why) if doubt => {
            Failure::Unknown(format!("the node stopped before it was answered: {why}").into())
        }
        _ if doubt => {
            Failure::Unknown("an earlier attempt may have taken effect, and no later one was answered".into())
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kontiki_consensus::{NodeId, Position, Term};
    use kontiki_wire::{Codec, InSession, Session};

    /// What it asked: token, and session, number and lowest without an answer; `None` where it opens a session.
    type Asked = (Token, Option<(u64, u64, u64)>);

    /// How many appends may be out.
    const OPEN_MAX: usize = 16;

    struct Bench {
        once: Once,
        now: Time,
        tokens: u64,
        answers: Vec<(Token, Reply)>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                once: Once::new(OPEN_MAX),
                now: Time::ZERO,
                tokens: 0,
                answers: Vec::new(),
            }
        }

        /// One that has a session of this name.
        fn opened(session: u64) -> Self {
            let mut bench = Self::new();
            bench.append(1_000);
            let opening = bench.pump()[0].0;
            bench.answer(opening, Reply::SessionOpened { session, ttl: 9 });
            let first = bench.pump()[0].0;
            bench.answer(first, appended());
            bench.answers.clear();
            bench
        }

        fn append(&mut self, deadline_ms: u64) {
            self.tokens += 1;
            let token = Token(self.tokens);
            self.once.append(Held {
                token,
                deadline: Time(deadline_ms * 1_000_000),
                payload: Payload::one(Bytes::from_static(b"x"), Codec::Bytes),
                expect: Expect::Any,
            });
        }

        fn pump(&mut self) -> Vec<Asked> {
            let mut inbox = Vec::new();
            self.once.pump(self.now, false, &mut inbox, &mut self.answers);
            let asked = inbox.into_iter().map(|input| match input {
                Input::Request(Request { token, ask, .. }) => (token, number(&ask)),
                other => panic!("{other:?}"),
            });
            asked.collect()
        }

        fn answer(&mut self, attempt: Token, reply: Reply) {
            assert!(Once::owns(attempt));
            self.once.answered(self.now, attempt, reply, &mut self.answers);
        }

        fn fail(&mut self, attempt: Token, failure: Failure) {
            self.answer(attempt, Reply::Failed(failure));
        }

        fn wait(&mut self, ms: u64) {
            self.now = self.now.after(Duration::from_millis(ms));
        }

        /// What clients were told, in short.
        fn told(&mut self) -> Vec<String> {
            let told = self.answers.drain(..).map(|(_, reply)| match reply {
                Reply::Appended { .. } => "appended".to_owned(),
                Reply::Failed(Failure::Unknown(_)) => "unknown".to_owned(),
                Reply::Failed(failure) => format!("{failure:?}"),
                other => panic!("{other:?}"),
            });
            told.collect()
        }
    }

    fn number(ask: &Ask) -> Option<(u64, u64, u64)> {
        match ask {
            Ask::OpenSession => None,
            Ask::Append {
                session:
                    Session::In(InSession {
                        session,
                        sequence,
                        settled,
                    }),
                ..
            } => Some((*session, *sequence, *settled)),
            other => panic!("{other:?}"),
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

    const LOST: Failure = Failure::Unknown(std::borrow::Cow::Borrowed("lost"));
    const EXPIRED: Failure = Failure::Refused(Refusal::SessionExpired);

    #[test]
    fn the_first_opens_a_session_and_all_go_into_it_in_their_order() {
        let mut bench = Bench::new();
        assert_eq!((bench.pump(), bench.once.deadline()), (vec![], Time::MAX));
        (0..3).for_each(|_| bench.append(1_000));
        let opening = bench.pump();
        assert_eq!(opening.iter().map(|(_, of)| *of).collect::<Vec<_>>(), [None]);
        assert_eq!(bench.pump(), []);
        bench.answer(opening[0].0, Reply::SessionOpened { session: 7, ttl: 9 });
        let asked = bench.pump();
        assert_eq!(
            asked.iter().filter_map(|(_, of)| *of).collect::<Vec<_>>(),
            [(7, 1, 1), (7, 2, 1), (7, 3, 1)]
        );
        for (attempt, _) in asked.iter().rev() {
            bench.answer(*attempt, appended());
            bench.answer(*attempt, appended());
        }
        assert_eq!(bench.told(), ["appended"; 3], "each is answered once");
        bench.append(1_000);
        assert_eq!(bench.pump()[0].1, Some((7, 4, 4)));
    }

    #[test]
    fn what_has_no_answer_is_sent_again_under_its_number_until_its_time_is_over() {
        let mut bench = Bench::opened(7);
        bench.append(1_000);
        let (attempt, of) = bench.pump()[0];
        bench.fail(attempt, LOST);
        assert_eq!((bench.pump(), bench.told()), (vec![], vec![]));
        assert_eq!(bench.once.deadline(), bench.now.after(PAUSE));
        bench.wait(50);
        assert_eq!(bench.pump(), [(attempt, of)]);
        bench.fail(attempt, Failure::NoLeader);
        bench.wait(960);
        assert_eq!(bench.pump(), [(attempt, of)]);
        bench.fail(attempt, Failure::NoLeader);
        assert_eq!(
            bench.told(),
            ["unknown"],
            "the first attempt may have taken effect"
        );
        assert_eq!((bench.pump(), bench.once.deadline()), (vec![], Time::MAX));
    }

    #[test]
    fn what_certainly_did_not_take_effect_is_said_so() {
        let mut bench = Bench::opened(7);
        let refused = |refusal| Failure::Refused(refusal);
        for failure in [
            Refusal::Overloaded,
            Refusal::DiskFull { node: NodeId(2) },
            Refusal::TooLarge { bytes_max: 1 },
        ] {
            bench.append(1_000);
            let attempt = bench.pump()[0].0;
            bench.fail(attempt, refused(failure));
            assert_eq!(bench.told(), [format!("{:?}", refused(failure))]);
        }
        bench.append(1_000);
        let attempt = bench.pump()[0].0;
        bench.fail(attempt, LOST);
        bench.wait(50);
        bench.pump();
        bench.fail(attempt, refused(Refusal::DiskFull { node: NodeId(2) }));
        assert_eq!(bench.told(), [""; 0], "an earlier attempt may have: it goes on");
        bench.wait(50);
        bench.pump();
        let mismatch = Refusal::Mismatch {
            last: Position(3),
            term: Term(1),
        };
        bench.fail(attempt, refused(mismatch));
        assert_eq!(bench.told(), [format!("{:?}", refused(mismatch))]);
    }

    #[test]
    fn an_expired_session_is_followed_by_another_once_nothing_is_out() {
        let mut bench = Bench::opened(7);
        (0..3).for_each(|_| bench.append(5_000));
        let asked = bench.pump();
        bench.fail(asked[1].0, LOST);
        bench.fail(asked[2].0, EXPIRED);
        bench.append(5_000);
        assert_eq!(bench.pump(), [], "nothing more goes into it, and others are out");
        bench.fail(asked[0].0, EXPIRED);
        bench.wait(50);
        assert_eq!(bench.pump(), [(asked[1].0, Some((7, 3, 3)))]);
        bench.fail(asked[1].0, EXPIRED);
        assert_eq!(
            bench.told(),
            [format!("{EXPIRED:?}")],
            "only what is in doubt is told"
        );
        let opening = bench.pump();
        assert_eq!((opening.len(), opening[0].1), (1, None));
        bench.answer(opening[0].0, Reply::SessionOpened { session: 9, ttl: 9 });
        let asked = bench.pump();
        assert_eq!(
            asked.iter().filter_map(|(_, of)| *of).collect::<Vec<_>>(),
            [(9, 5, 5), (9, 6, 5), (9, 7, 5)]
        );
        asked
            .iter()
            .for_each(|(attempt, _)| bench.answer(*attempt, appended()));
        assert_eq!(bench.told(), ["appended"; 3]);
    }

    #[test]
    fn one_without_an_answer_holds_up_others_only_where_it_could_be_forgotten() {
        let mut bench = Bench::opened(7);
        (0..OPEN_MAX + 5).for_each(|_| bench.append(1_000));
        let asked = bench.pump();
        assert_eq!(asked.len(), OPEN_MAX);
        asked[1..]
            .iter()
            .for_each(|(attempt, _)| bench.answer(*attempt, appended()));
        assert_eq!(bench.pump(), []);
        bench.answer(asked[0].0, appended());
        assert_eq!(bench.pump().len(), 5);
        assert_eq!(bench.told().len(), OPEN_MAX);
    }

    #[test]
    fn a_session_that_cannot_be_opened_keeps_nobody_beyond_their_time() {
        let mut bench = Bench::new();
        bench.append(100);
        bench.append(1_000);
        let opening = bench.pump()[0].0;
        bench.wait(100);
        bench.fail(opening, Failure::NoLeader);
        assert_eq!(
            (bench.pump(), bench.told()),
            (vec![], vec![format!("{:?}", Failure::NoLeader)])
        );
        assert_eq!(bench.once.deadline(), bench.now.after(PAUSE));
        bench.wait(50);
        let next = bench.pump()[0].0;
        assert_ne!(next, opening);
        bench.answer(opening, Reply::SessionOpened { session: 3, ttl: 9 });
        assert_eq!(bench.pump(), [], "that one was given up");
        bench.fail(next, Failure::Refused(Refusal::DiskFull { node: NodeId(2) }));
        assert_eq!(
            bench.told(),
            [format!(
                "{:?}",
                Failure::Refused(Refusal::DiskFull { node: NodeId(2) })
            )]
        );
        assert_eq!(bench.once.deadline(), Time::MAX);
    }

    #[test]
    fn given_up_everyone_is_told_what_is_certain_and_late_answers_find_nobody() {
        let mut bench = Bench::opened(7);
        (0..2).for_each(|_| bench.append(1_000));
        let asked = bench.pump();
        bench.fail(asked[0].0, Failure::Superseded);
        bench.append(1_000);
        let told: Vec<String> = bench
            .once
            .give_up("it was told to")
            .iter()
            .map(|(_, f)| format!("{f:?}"))
            .collect();
        let stopped = Failure::Stopped("it was told to".into());
        let (certain, unknown) = (format!("{stopped:?}"), format!("{:?}", outcome(stopped, true)));
        assert!(unknown.contains("it was told to"), "{unknown}");
        assert_eq!(told, [certain.clone(), unknown, certain]);
        bench.answer(asked[1].0, appended());
        assert_eq!((bench.pump(), bench.told()), (vec![], vec![]));
        bench.append(2_000);
        assert_eq!(bench.pump()[0].1, Some((7, 4, 4)), "what was given up is settled");
    }

    #[test]
    fn a_quarantined_node_refuses_at_once_what_it_has_not_proposed() {
        let mut bench = Bench::opened(7);
        let quarantined = || Failure::Quarantined("differs".to_owned());
        bench.append(10_000);
        let attempt = bench.pump()[0].0;
        bench.fail(attempt, quarantined());
        assert_eq!(bench.told(), [format!("{:?}", quarantined())]);
        bench.append(10_000);
        let attempt = bench.pump()[0].0;
        bench.fail(attempt, Failure::Unknown("lost".into()));
        assert!(bench.told().is_empty());
        bench.wait(50);
        let attempt = bench.pump()[0].0;
        bench.fail(attempt, quarantined());
        assert!(
            bench.told().is_empty(),
            "an earlier attempt is in doubt, and another may tell"
        );
    }
}
