//! A node behind two channels of the standard library: requests go in, answers come out in the same order.
//!
//! A thin layer over the handle. One thread takes the requests and hands appends on without waiting for their answers; another
//! waits for each answer in turn, and asks a read only when everything before it is answered, so that it sees earlier appends.
//! Invariants: one answer for each request, in order; a failure does not stop later requests; nothing is refused for load:
//! requests above the in-flight budget stay in the channel, in order, until earlier ones are answered.

use crate::{
    Append, Consistency, Error, Expect, Handle, LogEntry,
    blocking::block_on,
    shared::{Order, lock},
};
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

/// What is asked of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientRequest<T> {
    /// Read entries.
    IndexRange {
        /// Index of the first; 0 is wherever the log begins.
        start_index: u64,
        /// The index after the last.
        end_index: u64,
    },
    /// Append entries next to each other, all or none, if the log ends with the entry named. Nothing is asked of the end
    /// where both are `None`; `Some(0)` means that the log must be empty. Without entries only that is found out.
    AppendEntries {
        /// Index of the last entry.
        prev_log_index: Option<u64>,
        /// The term it was appended in.
        prev_log_term: Option<u64>,
        /// What to append.
        entries: Vec<T>,
    },
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientResponse<T> {
    /// It was done.
    Accepted {
        /// The entries that were read. Fewer than asked for, and not yet at `last_index`: ask again for the rest.
        entries: Vec<T>,
        /// After an append, the index of the last of its entries; after a read, of the last committed entry.
        last_index: u64,
        /// After an append, the term it was appended in; after a read, the term of the last of `entries`, if there is one. With
        /// `prev_log_index` it names an entry for certain.
        last_term: Option<u64>,
    },
    /// It was not done, or it is not known whether it was.
    Rejected {
        /// Why, and what to do, in words.
        reason: String,
        /// The same to be matched on: its code, whether the append may have taken place, and whether to try again.
        error: Error,
    },
}

/// Where requests go, and where their answers come from.
pub type Channels<T> = (Sender<ClientRequest<T>>, Receiver<ClientResponse<T>>);

/// A request in the order it came.
enum Step {
    Append(Append),
    Read(u64, u64),
    Refused(Error),
}

/// How many appends were answered, for the thread that waits until there is room for the next.
#[derive(Default)]
struct Answered {
    count: Mutex<u64>,
    more: Condvar,
}

impl Answered {
    fn one_more(&self) {
        *lock(&self.count) += 1;
        self.more.notify_one();
    }

    /// Waits until more than `seen` were answered, or for a while: other handles of the node take room too, and give it back
    /// without a word.
    fn wait_for_more_than(&self, seen: u64) {
        let count = lock(&self.count);
        let waited = self
            .more
            .wait_timeout_while(count, ROOM_INTERVAL, |count| *count <= seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) -> u64 {
        *lock(&self.count)
    }
}

/// How often the thread that takes requests looks for room that other handles of the node have given back.
const ROOM_INTERVAL: Duration = Duration::from_millis(10);

/// Puts a node behind channels. Dropping the sender lets what was asked be answered and then stops the node; dropping the
/// receiver stops it at the next answer.
pub(crate) fn channels<T: LogEntry>(handle: Handle<T>) -> Result<Channels<T>, Error> {
    let (requests, to_take) = mpsc::channel();
    let (steps, to_answer) = mpsc::channel();
    let (responses, answers) = mpsc::channel();
    let (answering, answered) = (handle.clone(), Arc::new(Answered::default()));
    let taking = answered.clone();
    spawn("kontiki-answers", move || {
        answer_all(&answering, &to_answer, &responses, &answered)
    })?;
    spawn("kontiki-requests", move || {
        take_all(&handle, &to_take, &steps, &taking)
    })?;
    Ok((requests, answers))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| Error::Io(format!("cannot start a thread: {error}")))
}

fn take_all<T: LogEntry>(
    handle: &Handle<T>,
    requests: &Receiver<ClientRequest<T>>,
    steps: &Sender<Step>,
    answered: &Answered,
) {
    for request in requests {
        let step = match request {
            ClientRequest::IndexRange {
                start_index,
                end_index,
            } => Step::Read(start_index, end_index),
            ClientRequest::AppendEntries {
                prev_log_index,
                prev_log_term,
                entries,
            } => match expectation(prev_log_index, prev_log_term) {
                Ok(expect) => Step::Append(append(handle, expect, &entries, answered)),
                Err(error) => Step::Refused(error),
            },
        };
        if steps.send(step).is_err() {
            return;
        }
    }
}

/// Hands an append on as soon as there is room for it.
fn append<T: LogEntry>(handle: &Handle<T>, expect: Expect, entries: &[T], answered: &Answered) -> Append {
    loop {
        let seen = answered.count();
        let append = handle.append_if(expect, entries);
        if !append.is_overloaded() {
            return append;
        }
        answered.wait_for_more_than(seen);
    }
}

fn expectation(index: Option<u64>, term: Option<u64>) -> Result<Expect, Error> {
    let wrong = |value: Option<u64>, allowed: &str| {
        let value = value.map_or("None".to_owned(), |value| format!("Some({value})"));
        Err(Error::config("prev_log_index", value, allowed))
    };
    match (index, term) {
        (None, None) => Ok(Expect::Any),
        (Some(0), None | Some(0)) => Ok(Expect::Empty),
        (Some(0), Some(_)) => wrong(
            index,
            "above 0 where `prev_log_term` is set: an empty log has no term",
        ),
        (Some(index), term) => Ok(Expect::Last { index, term }),
        (None, Some(_)) => wrong(index, "set where `prev_log_term` is"),
    }
}

fn answer_all<T: LogEntry>(
    handle: &Handle<T>,
    steps: &Receiver<Step>,
    responses: &Sender<ClientResponse<T>>,
    answered: &Answered,
) {
    for step in steps {
        let result = match step {
            Step::Append(append) => {
                let appended = block_on(append);
                answered.one_more();
                appended.map(|appended| (Vec::new(), appended.last, Some(appended.term)))
            }
            Step::Read(from, to) => block_on(handle.read(from..to, Consistency::Linearizable)).map(|read| {
                let last_term = read.entries.last().map(|entry| entry.term);
                let entries = read.entries.into_iter().map(|entry| entry.value).collect();
                (entries, read.last_index, last_term)
            }),
            Step::Refused(error) => Err(error),
        };
        let response = match result {
            Ok((entries, last_index, last_term)) => ClientResponse::Accepted {
                entries,
                last_index,
                last_term,
            },
            Err(error) => ClientResponse::Rejected {
                reason: reason(&error),
                error,
            },
        };
        if responses.send(response).is_err() {
            break;
        }
    }
    if let Err(error) = handle.node.end_blocking(Order::Stop) {
        tracing::error!(node = %handle.node.shared().node, %error, "the node did not stop in time");
    }
}

fn reason(error: &Error) -> String {
    let (name, advice) = (error.code().name(), error.advice());
    let separator = if advice.is_empty() { "" } else { "; " };
    format!("{name}: {error}{separator}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_is_read_as_documented() {
        assert_eq!(expectation(None, None), Ok(Expect::Any));
        assert_eq!(expectation(Some(0), None), Ok(Expect::Empty));
        assert_eq!(
            expectation(Some(4), Some(2)),
            Ok(Expect::Last {
                index: 4,
                term: Some(2)
            })
        );
        assert!(expectation(None, Some(2)).is_err());
        assert!(expectation(Some(0), Some(2)).is_err());
    }
}
