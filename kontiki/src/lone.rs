//! Whether whoever asks a node is the only one who does: then it is carried through on the caller's thread (`local`).
//!
//! With several callers a raft thread is better: what is asked meanwhile makes one batch, and it works beside them. So a caller
//! is taken to be alone once two requests in a row were made while no other was out, and their answers awaited by the same task
//! or thread, which is told by its waker: only the place in memory is compared. All of this is a guess on which nothing but
//! speed depends. Invariant: a request is out from when it is made until its answer is taken or given up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

/// From how many such requests in a row on a caller is alone.
const STREAK: u32 = 2;
/// After so many, one lets other tasks of the executor have their turn: where no answer ever has to be waited for, they
/// would have none.
const YIELD: u32 = 64;

/// Who asks a node.
#[derive(Debug, Default)]
pub(crate) struct Lone {
    /// Beside this one there is one for each request that is out.
    callers: Arc<Callers>,
}

/// A request that is out.
#[derive(Debug)]
pub(crate) struct Asked {
    callers: Arc<Callers>,
    /// Others were out when it was made.
    others: bool,
    alone: bool,
}

/// Who has asked of late. On a line of its own in the caches: callers write it, and nobody else.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Callers {
    /// Who awaited the last answer.
    last: AtomicUsize,
    /// How many in a row that were asked while no other request was out.
    streak: AtomicU32,
}

impl Lone {
    /// A request is made.
    pub(crate) fn ask(&self) -> Asked {
        let callers = self.callers.clone();
        let others = Arc::strong_count(&callers) > 2;
        let streak = callers.streak.load(Relaxed);
        if others && streak > 0 {
            callers.streak.store(0, Relaxed);
        }
        let alone = !others && streak >= STREAK;
        Asked {
            callers,
            others,
            alone,
        }
    }
}

impl Asked {
    /// Whether whoever made it is alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether others are to have their turn before its answer is looked for. Not twice for one answer.
    pub(crate) fn yields(&self) -> bool {
        let streak = self.callers.streak.load(Relaxed);
        let yields = streak > 0 && streak.is_multiple_of(YIELD);
        if yields {
            self.callers.streak.store(streak.wrapping_add(1), Relaxed);
        }
        yields
    }

    /// Its answer was awaited by this one.
    pub(crate) fn awaited(self, waker: &Waker) {
        let Callers { last, streak } = &*self.callers;
        let caller = waker.data().addr();
        let row = if self.others {
            0
        } else if last.load(Relaxed) == caller {
            streak.load(Relaxed).wrapping_add(1)
        } else {
            1
        };
        last.store(caller, Relaxed);
        streak.store(row, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, task::Wake};

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    fn task() -> Waker {
        Waker::from(Arc::new(Task))
    }

    /// One request after the other; whether each came from somebody who was alone.
    fn in_turn(lone: &Lone, callers: &[&Waker]) -> Vec<bool> {
        let ask = |caller: &&Waker| {
            let asked = lone.ask();
            let alone = asked.is_alone();
            asked.awaited(caller);
            alone
        };
        callers.iter().map(ask).collect()
    }

    #[test]
    fn who_has_asked_twice_and_waited_each_time_is_alone() {
        let (lone, one, other) = (Lone::default(), task(), task());
        assert_eq!(in_turn(&lone, &[&one; 4]), [false, false, true, true]);
        // The first of another's cannot be told from the next of the same.
        assert_eq!(in_turn(&lone, &[&other; 4]), [true, false, true, true]);
        assert_eq!(
            in_turn(&lone, &[&one, &other, &one, &other]),
            [true, false, false, false]
        );
    }

    #[test]
    fn nobody_is_alone_while_something_is_out() {
        let (lone, one) = (Lone::default(), task());
        in_turn(&lone, &[&one; 3]);
        // One task that asks several things at once, and each again as soon as it is answered.
        let mut out = vec![lone.ask(), lone.ask(), lone.ask()];
        let alone: Vec<bool> = out.iter().map(Asked::is_alone).collect();
        assert_eq!(alone, [true, false, false]);
        for _ in 0..9 {
            out.remove(0).awaited(&one);
            out.push(lone.ask());
            assert!(!out[2].is_alone());
        }
        // The first to ask when all of them are answered.
        out.drain(..).for_each(|asked| asked.awaited(&one));
        assert!(!lone.ask().is_alone());
    }

    #[test]
    fn an_answer_that_is_given_up_is_out_no_more() {
        let (lone, one) = (Lone::default(), task());
        in_turn(&lone, &[&one; 3]);
        drop(lone.ask());
        assert!(lone.ask().is_alone());
    }

    #[test]
    fn others_have_their_turn_now_and_then() {
        let (lone, one) = (Lone::default(), task());
        let mut yields = 0;
        for _ in 0..10 * YIELD {
            let asked = lone.ask();
            yields += u32::from(asked.yields());
            assert!(!asked.yields(), "twice for one answer");
            asked.awaited(&one);
        }
        assert_eq!(yields, 10);
    }
}
