//! The order in which a machine does its tasks: that in which they are given, except that queries give way.
//!
//! A query may be answered from any later state as well, while a command that stands behind many queries holds up everybody.
//! Invariants: a task that is no query has at most [`QUERIES_AHEAD_MAX`] queries in a row before it; those that are no queries
//! keep their order; each of them passes a query at most once, and as many queries follow it, so that queries go on as well.

use std::collections::VecDeque;

/// How many queries in a row may stand before another task.
pub const QUERIES_AHEAD_MAX: usize = 4;

/// Puts a task into the queue of a machine.
pub fn enqueue<T>(queue: &mut VecDeque<T>, task: T, is_query: impl Fn(&T) -> bool) {
    let queries = if is_query(&task) {
        0
    } else {
        queue.iter().rev().take_while(|task| is_query(task)).count()
    };
    let passed = queries.saturating_sub(QUERIES_AHEAD_MAX);
    queue.insert(queue.len() - passed, task);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of queries (`?`) and others, each put in and, at a dot, one taken out.
    fn done(script: &str) -> String {
        let (mut queue, mut done) = (VecDeque::new(), String::new());
        for step in script.chars() {
            match step {
                '.' => done.extend(queue.pop_front()),
                task => enqueue(&mut queue, task, |task| *task == '?'),
            }
        }
        done.extend(queue);
        done
    }

    #[test]
    fn a_task_passes_all_but_a_few_queries() {
        assert_eq!(done("???a"), "???a");
        assert_eq!(done("??????a"), "????a??");
        assert_eq!(done("??????ab"), "????a??b");
        assert_eq!(done("a??????b??c"), "a????b????c");
    }

    #[test]
    fn queries_go_on_however_many_tasks_come() {
        let script = "????????".to_owned() + &"a.....".repeat(2);
        assert_eq!(done(&script), "????a????a");
    }
}
