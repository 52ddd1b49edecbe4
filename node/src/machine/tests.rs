use super::applier::Content;
use super::*;
use crate::Meta;
use kontiki_consensus::{Admission, Body, GroupId, Index, Position, Run, Term};
use kontiki_wire::{
    ClusterId, Codec, InSession, Payload, Session, SessionLimits, Stamp,
    record::{RunBuilder, entries_in},
};
use std::sync::{Arc, Mutex};

/// Adds numbers up; a zero makes it panic.
#[derive(Default)]
struct Sum {
    total: u64,
    seen: Vec<At>,
}

impl StateMachine for Sum {
    type Command = u64;
    type Output = u64;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, at: &At, command: u64) -> u64 {
        assert!(command > 0, "nothing to add");
        self.seen.push(*at);
        self.total += command;
        self.total
    }

    fn query(&self, query: u64) -> u64 {
        assert!(query > 0, "nothing to ask");
        self.total * query
    }

    fn digest(&self) -> Option<u64> {
        Some(self.total)
    }
}

/// The same on a disk of which nothing is half written.
#[derive(Clone, Default)]
struct DurableSum(Arc<Mutex<(u64, MetaRows)>>);

impl StateMachine for DurableSum {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &At, command: u64) -> u64 {
        command
    }

    fn apply_batch(
        &mut self,
        batch: Batch<'_, u64>,
        meta: &mut MetaDelta<'_>,
    ) -> Result<Vec<u64>, MachineError> {
        let mut disk = self.0.lock().expect("whole");
        let mut total = disk.0;
        let outputs: Vec<u64> = batch
            .map(|(_, command)| {
                total += command;
                total
            })
            .collect();
        let rows = meta.rows(&outputs)?;
        disk.0 = total;
        disk.1.merge(rows);
        Ok(outputs)
    }

    fn query(&self, (): ()) -> u64 {
        self.0.lock().expect("whole").0
    }

    fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
        Ok(Some(self.0.lock().expect("whole").1.clone()))
    }
}

fn command(number: u64) -> Bytes {
    encode(&number).expect("a number")
}

/// A run of records, one for each list of commands, from record `index` and entry `position` on.
fn run(index: u64, position: u64, records: &[&[Bytes]]) -> Run {
    let at = Admission {
        index: Index(index),
        term: Term(3),
        position: Position(position),
    };
    let mut builder = RunBuilder::new(ClusterId(1), GroupId(0), at);
    for entries in records {
        let payload = Payload::several(entries, Codec::Postcard).expect("small");
        let stamp = Stamp {
            leader_time: 50,
            clock: 1,
        };
        builder.push(&payload, stamp, Session::None).expect("room");
    }
    builder.finish().expect("records")
}

fn noop(index: u64, position: u64) -> Run {
    Run::new(Index(index), Term(3), Position(position), Body::Noop)
}

fn outputs(done: &Done) -> Vec<Vec<u64>> {
    let Done::Applied { runs, outputs, .. } = done else {
        panic!("not applied: {done:?}")
    };
    let counts = Content::of(runs).expect("sound").counts;
    let of = |(bytes, count): (&Bytes, &u32)| {
        let all = entries_in(bytes, *count).expect("a payload");
        all.map(|o| decode(&o).expect("a number")).collect()
    };
    outputs.iter().zip(&counts).map(of).collect()
}

fn failure(done: Done) -> MachineError {
    match done {
        Done::Failed(error) => error,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn each_record_is_answered_with_what_its_entries_gave() {
    let mut applier = Applier::new(Typed(Sum::default())).expect("a machine");
    assert_eq!(applier.meta(), Meta::default());
    let records = run(3, 1, &[&[command(5)], &[command(1), command(2), command(3)]]);
    let done = applier.run(Task::Apply(vec![noop(2, 1), records, noop(5, 5)]));
    assert_eq!(outputs(&done), [vec![5], vec![6, 8, 11]]);
    let done = applier.run(Task::Query {
        token: 9,
        query: command(2),
    });
    let Done::Answered { token: 9, answer } = done else {
        panic!("{done:?}")
    };
    assert_eq!(decode::<u64>(&answer.expect("an answer")), Ok(22));
    assert_eq!(applier.digest(), Some(11));
}

#[test]
fn an_entry_is_told_where_it_stands() {
    let mut machine = Typed(Sum::default());
    let runs = [run(7, 20, &[&[command(1)], &[command(2), command(3)]])];
    let entries = Content::of(&runs).expect("sound").entries;
    machine
        .apply(entries, &mut |_| Ok(MetaRows::default()))
        .expect("applied");
    let at = |index, raft_index| At {
        index,
        raft_index,
        term: 3,
        clock_seconds: 1,
        date_ns: 50,
        schema: 0,
    };
    assert_eq!(machine.0.seen, [at(20, 7), at(21, 8), at(22, 8)]);
}

#[test]
fn a_panic_names_the_entry_and_nothing_is_done_after_it() {
    let mut applier = Applier::new(Typed(Sum::default())).expect("a machine");
    let records = run(3, 1, &[&[command(5)], &[command(1), command(0), command(3)]]);
    let error = failure(applier.run(Task::Apply(vec![records])));
    assert_eq!(
        error.to_string(),
        "the state machine failed at entry 3: it panicked: nothing to add"
    );
    let query = Task::Query {
        token: 1,
        query: command(1),
    };
    assert_eq!(failure(applier.run(query)), error);
}

#[test]
fn a_command_that_is_none_names_its_entry() {
    let bad = [Bytes::new(), Bytes::from_static(&[1, 2])];
    for bad in bad {
        let mut applier = Applier::new(Typed(Sum::default())).expect("a machine");
        let error = failure(applier.run(Task::Apply(vec![run(3, 8, &[&[command(5)], &[bad]])])));
        assert_eq!(error.index, Some(9), "{error}");
    }
}

#[test]
fn a_query_that_fails_leaves_the_machine_alone() {
    let mut applier = Applier::new(Typed(Sum::default())).expect("a machine");
    for (query, text) in [
        (command(0), "nothing to ask"),
        (Bytes::new(), "cannot be decoded"),
    ] {
        let done = applier.run(Task::Query { token: 1, query });
        let Done::Answered { answer: Err(why), .. } = done else {
            panic!("{done:?}")
        };
        assert!(why.contains(text), "{why}");
    }
    let done = applier.run(Task::Apply(vec![run(3, 1, &[&[command(5)]])]));
    assert_eq!(outputs(&done), [[5]]);
}

#[test]
fn a_durable_machine_keeps_how_far_it_is_with_its_state() {
    let machine = DurableSum::default();
    let mut applier = Applier::new(Typed(machine.clone())).expect("a machine");
    let at = Admission {
        index: Index(2),
        term: Term(3),
        position: Position(1),
    };
    let mut builder = RunBuilder::new(ClusterId(1), GroupId(0), at);
    let stamp = Stamp::default();
    let of = InSession {
        session: 2,
        sequence: 1,
        settled: 1,
    };
    let limits = SessionLimits::default().payload();
    builder.push(&limits, stamp, Session::Open).expect("room");
    let payload = Payload::one(command(4), Codec::Postcard);
    builder.push(&payload, stamp, Session::In(of)).expect("room");
    let opened = builder.finish().expect("records");
    applier.run(Task::Apply(vec![opened]));
    applier.run(Task::Apply(vec![noop(4, 2)]));
    let again = Applier::new(Typed(machine.clone())).expect("a machine");
    assert_eq!(again.meta(), applier.meta());
    let meta = again.meta();
    assert_eq!(
        (meta.at.index, meta.position, meta.sessions()),
        (Index(4), Position(1), 1)
    );
    let stored = meta.sessions.answer(of).expect("remembered");
    assert_eq!((stored.index, decode::<u64>(&stored.outputs)), (3, Ok(4)));
    assert_eq!(machine.query(()), 4);
}

#[test]
fn a_durable_machine_that_stores_nothing_is_found_out() {
    struct Forgetful;
    impl StateMachine for Forgetful {
        type Command = u64;
        type Output = ();
        type Query = ();
        type Answer = ();
        fn apply(&mut self, _: &At, _: u64) {}
        fn query(&self, (): ()) {}
        fn durable(&self) -> Result<Option<MetaRows>, MachineError> {
            Ok(Some(MetaRows::default()))
        }
    }
    let mut applier = Applier::new(Typed(Forgetful)).expect("a machine");
    let error = failure(applier.run(Task::Apply(vec![run(2, 1, &[&[command(1)]])])));
    assert!(error.what.contains("did not ask"), "{error}");
}

#[test]
fn more_or_fewer_outputs_than_commands_are_refused() {
    struct Wrong(usize);
    impl StateMachine for Wrong {
        type Command = u64;
        type Output = u64;
        type Query = ();
        type Answer = ();
        fn apply(&mut self, _: &At, command: u64) -> u64 {
            command
        }
        fn apply_batch(
            &mut self,
            _: Batch<'_, u64>,
            _: &mut MetaDelta<'_>,
        ) -> Result<Vec<u64>, MachineError> {
            Ok(vec![1; self.0])
        }
        fn query(&self, (): ()) {}
    }
    for (count, word) in [(1, "fewer"), (3, "more")] {
        let mut applier = Applier::new(Typed(Wrong(count))).expect("a machine");
        let error = failure(applier.run(Task::Apply(vec![run(2, 1, &[&[command(1), command(2)]])])));
        assert!(error.what.contains(word), "{error}");
    }
}

/// Answers with a map whose order differs from one machine to the next.
struct Maps;

#[expect(clippy::disallowed_types, reason = "its order is what is tried")]
impl StateMachine for Maps {
    type Command = u32;
    type Output = std::collections::HashMap<u32, String>;
    type Query = ();
    type Answer = ();

    fn apply(&mut self, _: &At, command: u32) -> Self::Output {
        (0..command).map(|n| (n, n.to_string())).collect()
    }

    fn query(&self, (): ()) {}
}

#[test]
fn an_output_with_a_hash_map_has_the_same_bytes_on_every_replica() {
    let run = run(1, 1, &[&[encode(&30u32).unwrap()]]);
    let outputs = || match Applier::new(Typed(Maps))
        .unwrap()
        .run(Task::Apply(vec![run.clone()]))
    {
        Done::Applied { outputs, .. } => outputs,
        other => panic!("{other:?}"),
    };
    let first = outputs();
    assert!((0..10).all(|_| outputs() == first));
}
