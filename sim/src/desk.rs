//! What stands between a node's clients and its driver, as in a real process: in some runs the shipped [`Once`].
//!
//! Then each append of a client goes through the node's own session, and is sent again as long as nobody knows what became
//! of it. Invariant: without it nothing is changed on either way.

use crate::world::World;
use kontiki_consensus::Time;
use kontiki_node::once::{Held, Once};
use kontiki_node::session::open_max;
use kontiki_node::{Ask, Input, Reply, Request, Token};
use kontiki_wire::{Session, SessionLimits};

/// Between the clients of a node and its driver.
#[derive(Debug, Default)]
pub struct Desk {
    once: Option<Once>,
    answers: Vec<(Token, Reply)>,
}

impl Desk {
    /// One that has each append of its clients take effect once, in a session with these limits, or one that changes nothing.
    #[must_use]
    pub fn new(once: Option<&SessionLimits>) -> Self {
        Self {
            once: once.map(|limits| Once::new(open_max(limits))),
            answers: Vec::new(),
        }
    }

    /// Takes the appends of clients out of the inbox, and puts in what is to be asked instead. By the node's clock.
    pub fn gather(&mut self, now: Time, is_led: bool, inbox: &mut Vec<Input>) {
        let Some(once) = &mut self.once else { return };
        for input in inbox.extract_if(.., |input| is_plain(input)) {
            if let Input::Request(Request {
                token,
                deadline,
                ask: Ask::Append { payload, expect, .. },
            }) = input
            {
                once.append(Held {
                    token,
                    deadline,
                    payload,
                    expect,
                });
            }
        }
        once.pump(now, is_led, inbox, &mut self.answers);
    }

    /// What clients are answered, after the driver has said this. If it has stopped, nothing is asked again. True if there
    /// may be more to ask at once.
    pub fn settle(&mut self, now: Time, replies: &mut Vec<(Token, Reply)>, stopped: bool) -> bool {
        let Some(once) = &mut self.once else {
            return false;
        };
        let mut owned = false;
        for (token, reply) in std::mem::take(replies) {
            if Once::owns(token) {
                owned = true;
                once.answered(now, token, reply, &mut self.answers);
            } else {
                self.answers.push((token, reply));
            }
        }
        if stopped {
            let given_up = once.give_up("it went down").into_iter();
            let given_up = given_up.map(|(token, failure)| (token, Reply::Failed(failure)));
            self.answers.extend(given_up);
        }
        replies.append(&mut self.answers);
        owned
    }

    /// When it wants to be asked again, at the latest; by the node's clock.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.once.as_ref().map_or(Time::MAX, Once::deadline)
    }
}

impl World {
    /// What the driver has answered goes to the clients, or is asked again.
    pub(crate) fn settle_replies(&mut self, node: usize, replies: &mut Vec<(Token, Reply)>) {
        let now = self.now();
        let settled = self.with(node, |process| {
            let stopped = process.driver.stopped().is_some();
            let more = process.desk.settle(process.clock.shows(now), replies, stopped);
            (more, process.desk.deadline())
        });
        let Some((more, deadline)) = settled else { return };
        self.wake_at(node, deadline);
        if more {
            let at = now.after(self.random.around(self.swarm.turn));
            self.schedule_turn(node, at);
        }
    }
}

fn is_plain(input: &Input) -> bool {
    matches!(
        input,
        Input::Request(Request {
            ask: Ask::Append {
                session: Session::None,
                ..
            },
            ..
        })
    )
}
