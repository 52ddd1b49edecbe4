//! A node behind two channels of the standard library: requests go in, answers come out in the same order.
//!
//! A thin layer over the handle. One thread takes every request at once and hands appends on without waiting; another waits
//! for each answer in turn, and asks a read only when everything before it is answered, so that it sees earlier appends.
//! Invariants: one answer for each request; a failure does not stop later requests; what is above the in-flight budget is
//! dropped and answered as rejected.

use crate::{Append, Consistency, Error, Expect, Handle, LogEntry, blocking::block_on, shared::Order};
use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
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
    },
    /// It was not done, or it is not known whether it was.
    Rejected {
        /// Why, and what to do.
        reason: String,
    },
}

/// Where requests go, and where their answers come from.
pub type Channels<T> = (Sender<ClientRequest<T>>, Receiver<ClientResponse<T>>);

/// A request in the order it came.
enum Step {
    Append(Append),
    Read(u64, u64),
    Refused(String),
}

/// Puts a node behind channels. Dropping the sender lets what was asked be answered and then stops the node; dropping the
/// receiver stops it at the next answer.
pub(crate) fn channels<T: LogEntry>(handle: Handle<T>) -> Result<Channels<T>, Error> {
    let (requests, to_take) = mpsc::channel();
    let (steps, to_answer) = mpsc::channel();
    let (responses, answers) = mpsc::channel();
    let answering = handle.clone();
    spawn("kontiki-answers", move || {
        answer_all(&answering, &to_answer, &responses)
    })?;
    spawn("kontiki-requests", move || take_all(&handle, &to_take, &steps))?;
    Ok((requests, answers))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| Error::Io(format!("cannot start a thread: {error}")))
}

fn take_all<T: LogEntry>(handle: &Handle<T>, requests: &Receiver<ClientRequest<T>>, steps: &Sender<Step>) {
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
                Ok(expect) => Step::Append(handle.append_if(expect, &entries)),
                Err(reason) => Step::Refused(reason.to_owned()),
            },
        };
        if steps.send(step).is_err() {
            return;
        }
    }
}

fn expectation(index: Option<u64>, term: Option<u64>) -> Result<Expect, &'static str> {
    match (index, term) {
        (None, None) => Ok(Expect::Any),
        (Some(0), None | Some(0)) => Ok(Expect::Empty),
        (Some(0), Some(_)) => Err("`prev_log_index` 0 means an empty log, which has no term"),
        (Some(index), term) => Ok(Expect::Last { index, term }),
        (None, Some(_)) => Err("`prev_log_term` needs `prev_log_index`"),
    }
}

fn answer_all<T: LogEntry>(
    handle: &Handle<T>,
    steps: &Receiver<Step>,
    responses: &Sender<ClientResponse<T>>,
) {
    for step in steps {
        let result = match step {
            Step::Append(append) => block_on(append).map(|appended| (Vec::new(), appended.last)),
            Step::Read(from, to) => block_on(handle.read(from..to, Consistency::Linearizable)).map(|read| {
                let entries = read.entries.into_iter().map(|entry| entry.value).collect();
                (entries, read.last_index)
            }),
            Step::Refused(reason) => {
                if responses.send(ClientResponse::Rejected { reason }).is_err() {
                    break;
                }
                continue;
            }
        };
        let response = match result {
            Ok((entries, last_index)) => ClientResponse::Accepted { entries, last_index },
            Err(error) => ClientResponse::Rejected {
                reason: reason(&error),
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
