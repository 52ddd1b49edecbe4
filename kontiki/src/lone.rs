//! Whether whoever asks a node is the only one who does: then it is carried through on the caller's thread (`local`).
//!
//! With several callers the raft threads are better: what is asked meanwhile makes one batch, and the nodes work side by
//! side. So a caller is taken to be alone once two requests in a row were made while no other was out, and their answers awaited
//! by the same task or thread, which is told by its waker: only the place in memory is compared. All of this is a guess on which
//! nothing but speed depends. Invariant: a request is out from when it is made until its answer is taken or given up.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    task::Waker,
};

/// From how many such requests in a row on a caller is alone.
const STREAK: u32 = 2;
/// After so many, one lets other tasks of the executor have their turn: where no answer ever has to be waited for, they
/// would have none.
const YIELD: u32 = 64;

/// Who has asked of late.
#[derive(Debug, Default)]
pub(crate) struct Lone {
    /// Requests that are out.
    out: AtomicUsize,
    /// Who awaited the last one.
    caller: AtomicUsize,
    /// How many in a row.
    streak: AtomicU32,
}

impl Lone {
    /// A request is made; true if whoever makes it is alone.
    pub(crate) fn asked(&self) -> bool {
        if self.out.fetch_add(1, Relaxed) > 0 {
            self.streak.store(0, Relaxed);
            return false;
        }
        self.is_alone()
    }

    /// Its answer was awaited by this one.
    pub(crate) fn awaited(&self, waker: &Waker) {
        let caller = waker.data().addr();
        let streak = if self.caller.load(Relaxed) == caller {
            self.streak.load(Relaxed).wrapping_add(1)
        } else {
            self.caller.store(caller, Relaxed);
            1
        };
        self.streak.store(streak, Relaxed);
    }

    /// It is out no more.
    pub(crate) fn settled(&self) {
        self.out.fetch_sub(1, Relaxed);
    }

    /// Whether others are to have their turn before the next answer is looked for. They are now.
    pub(crate) fn yields(&self) -> bool {
        let streak = self.streak.load(Relaxed);
        let yields = streak > 0 && streak.is_multiple_of(YIELD);
        if yields {
            self.streak.store(streak.wrapping_add(1), Relaxed);
        }
        yields
    }

    fn is_alone(&self) -> bool {
        self.streak.load(Relaxed) >= STREAK
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
            let alone = lone.asked();
            lone.awaited(caller);
            lone.settled();
            alone
        };
        callers.iter().map(ask).collect()
    }

    #[test]
    fn who_has_asked_twice_and_waited_each_time_is_alone() {
        let (lone, one, other) = (Lone::default(), task(), task());
        assert_eq!(in_turn(&lone, &[&one; 4]), [false, false, true, true]);
        // The first of another's cannot be told from the next of the same.
        assert_eq!(in_turn(&lone, &[&other; 3]), [true, false, true]);
        assert_eq!(
            in_turn(&lone, &[&one, &other, &one, &other]),
            [true, false, false, false]
        );
    }

    #[test]
    fn nobody_is_alone_while_something_is_out() {
        let (lone, one) = (Lone::default(), task());
        in_turn(&lone, &[&one; 3]);
        assert!(lone.asked());
        // One task that asks several things at once.
        assert!(!lone.asked() && !lone.asked());
        for _ in 0..3 {
            lone.awaited(&one);
            lone.settled();
            assert!(!lone.asked());
        }
    }

    #[test]
    fn an_answer_that_is_given_up_is_out_no_more() {
        let (lone, one) = (Lone::default(), task());
        in_turn(&lone, &[&one; 3]);
        assert!(lone.asked());
        lone.settled();
        assert!(lone.asked());
    }

    #[test]
    fn others_have_their_turn_now_and_then() {
        let (lone, one) = (Lone::default(), task());
        let mut yields = 0;
        for _ in 0..10 * YIELD {
            in_turn(&lone, &[&one]);
            yields += u32::from(lone.yields());
            assert!(!lone.yields(), "twice for one answer");
        }
        assert_eq!(yields, 10);
    }
}
