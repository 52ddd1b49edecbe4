//! A node with a state machine: the handle that applies commands and asks queries, and what they give.
//!
//! Invariants: a command is checked on the caller's thread to come back from its bytes as it is, before it is sent anywhere;
//! a request is on its way once it is made, as with the log.

use crate::{
    Consistency, Error, IntoEntry, SessionKey, StateMachine,
    entry::to_bytes,
    handle::{check_entry, record},
    owner::{Node, common_calls},
    request::State,
    shared::Answer,
};
use bytes::Bytes;
use kontiki_node::{
    Ask, Failure, Reply,
    encoding::{decode, encode},
};
use kontiki_wire::{Codec, Payload, Refusal, Session, record::entries_in};
use serde::de::DeserializeOwned;
use std::{
    borrow::Borrow,
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

/// A node with a state machine, for a program to use: cheap to clone, usable from any thread, on any executor and on none.
///
/// When the last handle is dropped the node stops, without anybody waiting for that; [`shutdown`](Self::shutdown) waits.
pub struct MachineHandle<M: StateMachine> {
    pub(crate) node: Node,
    _of: PhantomData<fn(M) -> M>,
}

common_calls!(MachineHandle<M: StateMachine>, BlockingMachine);

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Applied<O> {
    /// What the machine gave back.
    pub output: O,
    /// Index of the command in the log.
    pub index: u64,
    /// The term it was appended in.
    pub term: u64,
}

impl<M: StateMachine> MachineHandle<M> {
    /// Has a command applied on every node. The future resolves once a majority has it on disk and it is applied on this
    /// node, with what the machine gave back; the command goes on its way if the future is dropped. If its answer is lost the
    /// node asks again, until the time is over, and it is applied once ([`Config::sessions`](crate::Config::sessions)).
    ///
    /// # Errors
    /// [`Error::NotRoundTrip`] or [`Error::TooLarge`] if it cannot be sent. [`Error::outcome`] says whether it may have been
    /// applied.
    pub fn apply(&self, command: impl IntoEntry<M::Command>) -> Apply<M::Output> {
        self.apply_one(command, Session::None)
    }

    /// Has commands applied next to each other on every node, all or none, and gives what the machine gave back to each, in
    /// their order. They are one record of the log, which costs far less than as many single ones.
    ///
    /// # Errors
    /// [`Error::NotRoundTrip`] or [`Error::TooLarge`] if they cannot be sent. [`Error::outcome`] says whether they may have
    /// been applied.
    pub fn apply_all(&self, commands: &[M::Command]) -> ApplyAll<M::Output> {
        self.apply_several(commands, Session::None)
    }

    /// Has a command applied as the one of this key: if it has been applied before, it is not again, and the answer is that of
    /// the first time. The node asks once; to ask again, here or at another node, is for the caller. The key's session comes
    /// from [`open_session`](Self::open_session).
    ///
    /// # Errors
    /// [`Error::SessionExpired`] and [`Error::SessionStale`] if what became of earlier attempts is no longer remembered: this
    /// one was not applied, but one before may have been. Otherwise as [`apply`](Self::apply).
    pub fn apply_in(&self, key: SessionKey, command: impl IntoEntry<M::Command>) -> Apply<M::Output> {
        self.apply_one(command, key.into())
    }

    /// The same for several commands, as [`apply_all`](Self::apply_all) applies them; one key names them all.
    ///
    /// # Errors
    /// As [`apply_in`](Self::apply_in).
    pub fn apply_all_in(&self, key: SessionKey, commands: &[M::Command]) -> ApplyAll<M::Output> {
        self.apply_several(commands, key.into())
    }

    fn apply_one(&self, command: impl IntoEntry<M::Command>, session: Session) -> Apply<M::Output> {
        let submit = |bytes: Bytes| {
            check_entry(&self.node.shared().limits, bytes.len())?;
            self.submit(Payload::one(bytes, Codec::Postcard), session)
        };
        Apply {
            state: State::new(command.with_entry(to_bytes).and_then(submit)),
            _output: PhantomData,
        }
    }

    fn apply_several(&self, commands: &[M::Command], session: Session) -> ApplyAll<M::Output> {
        let limits = &self.node.shared().limits;
        let payload = record(limits, Codec::Postcard, commands.iter().map(to_bytes));
        ApplyAll {
            state: State::new(payload.and_then(|payload| self.submit(payload, session))),
            _output: PhantomData,
        }
    }

    fn submit(&self, payload: Payload, session: Session) -> Result<Answer, Error> {
        self.node.submit(Ask::Append {
            payload,
            expect: kontiki_wire::Expect::Any,
            session,
        })
    }

    /// Asks the machine on this node. [`Consistency::Linearizable`] sees every command whose `apply` was answered before, on
    /// any node.
    ///
    /// # Errors
    /// [`Error::Query`] if the machine panics over it, or query or answer cannot be encoded; the state is as it was.
    /// [`Error::NoLeader`] or [`Error::Timeout`] if it could not be confirmed by a majority in time.
    pub fn query(&self, query: impl Borrow<M::Query>, consistency: Consistency) -> Query<M::Answer> {
        let encoded = encode(query.borrow());
        let submitted = encoded
            .map_err(|why| Error::Query(format!("the query cannot be encoded: {why}")))
            .and_then(|query| {
                let consistency = consistency.ask(self.node.shared().seen());
                self.node.submit(Ask::Query { query, consistency })
            });
        Query {
            state: State::new(submitted),
            _answer: PhantomData,
        }
    }
}

/// A command under way. It goes on whether this is polled or dropped.
#[must_use = "what became of the command is known only to its future"]
pub struct Apply<O> {
    state: State,
    _output: PhantomData<fn() -> O>,
}

/// Commands under way. They go on whether this is polled or dropped.
#[must_use = "what became of the commands is known only to their future"]
pub struct ApplyAll<O> {
    state: State,
    _output: PhantomData<fn() -> O>,
}

/// A query under way. Dropping it cancels it, unless the machine has begun to answer.
#[must_use = "the answer is known only to its future"]
pub struct Query<A> {
    state: State,
    _answer: PhantomData<fn() -> A>,
}

impl<O> fmt::Debug for Apply<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apply").finish_non_exhaustive()
    }
}

impl<O> fmt::Debug for ApplyAll<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyAll").finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for Query<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query").finish_non_exhaustive()
    }
}

impl<O: DeserializeOwned> Future for Apply<O> {
    type Output = Result<Applied<O>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| applied(reply?))
    }
}

impl<O: DeserializeOwned> Future for ApplyAll<O> {
    type Output = Result<Vec<Applied<O>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| all_applied(reply?))
    }
}

impl<A: DeserializeOwned> Future for Query<A> {
    type Output = Result<A, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| answered(reply?))
    }
}

fn applied<O: DeserializeOwned>(reply: Option<Reply>) -> Result<Applied<O>, Error> {
    let mut all = all_applied(reply)?.into_iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::Unknown("the answer is not that of one command".to_owned())),
    }
}

fn all_applied<O: DeserializeOwned>(reply: Option<Reply>) -> Result<Vec<Applied<O>>, Error> {
    let (first, last, term, outputs) = match reply {
        Some(Reply::Appended {
            first,
            last,
            term,
            outputs,
            ..
        }) => (first.0, last.0, term.0, outputs),
        // Nothing was asked for, and the log ends somewhere.
        Some(Reply::Failed(Failure::Refused(Refusal::Holds { .. }))) => return Ok(Vec::new()),
        Some(Reply::Failed(failure)) => return Err(failure.into()),
        Some(_) | None => return Err(Error::Unknown("the node ended without an answer".to_owned())),
    };
    let lost = |index, why: String| Error::OutputLost { index, why };
    let bytes = outputs.ok_or_else(|| lost(first, "it is no longer remembered".to_owned()))?;
    let count = u32::try_from(last.saturating_add(1).saturating_sub(first)).ok();
    let outputs = count.and_then(|count| entries_in(&bytes, count));
    let outputs = outputs.ok_or_else(|| lost(first, "there is not one for each command".to_owned()))?;
    let applied = |(index, output): (u64, Bytes)| {
        Ok(Applied {
            output: decode(&output).map_err(|why| lost(index, why))?,
            index,
            term,
        })
    };
    (first..).zip(outputs).map(applied).collect()
}

fn answered<A: DeserializeOwned>(reply: Option<Reply>) -> Result<A, Error> {
    match reply {
        Some(Reply::Answered { answer, .. }) => decode(&answer)
            .map_err(|why| Error::Query(format!("its answer does not come back from its bytes: {why}"))),
        Some(Reply::Failed(Failure::Unknown(_))) => Err(Error::Timeout),
        Some(Reply::Failed(failure)) => Err(failure.into()),
        Some(_) | None => Err(Error::Stopped("it ended without an answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, Outcome};
    use kontiki_consensus::{Position, Term};

    fn appended(outputs: Option<Bytes>) -> Option<Reply> {
        Some(Reply::Appended {
            first: Position(7),
            last: Position(7),
            term: Term(2),
            raft_index: 9,
            outputs,
        })
    }

    #[test]
    fn a_command_gives_its_output_and_its_place() {
        let done = applied::<u8>(appended(Some(Bytes::from_static(&[3])))).unwrap();
        assert_eq!((done.output, done.index, done.term), (3, 7, 2));
    }

    #[test]
    fn several_commands_give_an_output_each() {
        let reply = |outputs: &[&[u8]]| {
            let mut reply = appended(Some(Payload::several(outputs, Codec::Postcard).unwrap().bytes));
            if let Some(Reply::Appended { last, .. }) = &mut reply {
                last.0 += 2;
            }
            all_applied::<u8>(reply)
        };
        let done = reply(&[&[3], &[4], &[5]]).unwrap();
        let done: Vec<_> = done.iter().map(|done| (done.index, done.output)).collect();
        assert_eq!(done, [(7, 3), (8, 4), (9, 5)]);
        let error = reply(&[&[3], &[4, 4], &[5]]).unwrap_err();
        assert!(error.to_string().contains("entry 8"), "{error}");
        let error = reply(&[&[3], &[4]]).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Applied, "{error}");
    }

    #[test]
    fn an_output_that_is_lost_does_not_hide_that_the_command_was_applied() {
        for outputs in [None, Some(Bytes::from_static(&[3, 3]))] {
            let error = applied::<u8>(appended(outputs)).unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (Code::OutputLost, Outcome::Applied)
            );
            assert!(error.to_string().contains("entry 7") && !error.is_retryable());
        }
    }
}
