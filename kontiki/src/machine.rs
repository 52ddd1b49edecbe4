//! A node with a state machine: the handle that applies commands and asks queries, and what they give.
//!
//! Invariants: a command is checked on the caller's thread to come back from its bytes as it is, before it is sent anywhere;
//! a request is on its way once it is made, as with the log.

use crate::{
    Consistency, Error, StateMachine,
    entry::{from_bytes, to_bytes},
    handle::check_entry,
    owner::{Node, common_calls},
    request::State,
};
use bytes::Bytes;
use kontiki_node::{Ask, Failure, Reply};
use kontiki_wire::{Codec, Payload, Session};
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
    pub fn apply(&self, command: impl Borrow<M::Command>) -> Apply<M::Output> {
        let submit = |bytes: Bytes| {
            check_entry(&self.node.shared().limits, bytes.len())?;
            self.node.submit(Ask::Append {
                payload: Payload::one(bytes, Codec::Postcard),
                expect: kontiki_wire::Expect::Any,
                session: Session::None,
            })
        };
        Apply {
            state: State::new(to_bytes(command.borrow()).and_then(submit)),
            _output: PhantomData,
        }
    }

    /// Asks the machine on this node. [`Consistency::Linearizable`] sees every command whose `apply` was answered before, on
    /// any node.
    ///
    /// # Errors
    /// [`Error::Query`] if the machine panics over it, or query or answer cannot be encoded; the state is as it was.
    /// [`Error::NoLeader`] or [`Error::Timeout`] if it could not be confirmed by a majority in time.
    pub fn query(&self, query: impl Borrow<M::Query>, consistency: Consistency) -> Query<M::Answer> {
        let encoded = kontiki_node::machine::encode(query.borrow());
        let submitted = encoded
            .map_err(|error| Error::Query(error.what))
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

/// A query under way.
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

impl<A: DeserializeOwned> Future for Query<A> {
    type Output = Result<A, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context).map(|reply| answered(reply?))
    }
}

fn applied<O: DeserializeOwned>(reply: Option<Reply>) -> Result<Applied<O>, Error> {
    match reply {
        Some(Reply::Appended {
            first, term, outputs, ..
        }) => {
            let lost = |why: String| Error::OutputLost { index: first.0, why };
            let bytes = outputs.ok_or_else(|| lost("it is no longer remembered".to_owned()))?;
            Ok(Applied {
                output: from_bytes(&bytes).map_err(lost)?,
                index: first.0,
                term: term.0,
            })
        }
        Some(Reply::Failed(failure)) => Err(failure.into()),
        Some(_) | None => Err(Error::Unknown("the node ended without an answer".to_owned())),
    }
}

fn answered<A: DeserializeOwned>(reply: Option<Reply>) -> Result<A, Error> {
    match reply {
        Some(Reply::Answered { answer, .. }) => from_bytes(&answer)
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
