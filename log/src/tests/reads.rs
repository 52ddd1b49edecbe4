//! What a read costs: it reads about what it gives, and holds on to no more.

use super::disk::TestDisk;
use super::model::{CLUSTER, GROUP, NODE, entries, identity, made, members, options, salts};
use crate::disk::{Completion, Disk, Done, Op, OpId};
use crate::{Fetch, From, Log, LogEvent, LogOptions};
use bytes::Bytes;
use kontiki_consensus::{Index, Run, Write, WriteId};
use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;

/// Keeps what was read.
#[derive(Debug)]
struct Watched(TestDisk, Rc<RefCell<Vec<Bytes>>>);

impl Disk for Watched {
    fn submit(&mut self, op: Op) -> OpId {
        self.0.submit(op)
    }

    fn poll(&mut self) -> Option<Completion> {
        let completion = self.0.poll()?;
        if let Ok(Done::Read(bytes)) = &completion.result {
            self.1.borrow_mut().push(bytes.clone());
        }
        Some(completion)
    }

    fn wait(&mut self) -> Option<Completion> {
        self.0.wait()
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        self.0.reader(name)
    }
}

/// Answers what it is asked for `n`-th with something else.
#[derive(Debug)]
struct Confused(TestDisk, Option<usize>);

impl Disk for Confused {
    fn submit(&mut self, op: Op) -> OpId {
        self.0.submit(op)
    }

    fn poll(&mut self) -> Option<Completion> {
        let mut completion = self.0.poll()?;
        match &mut self.1 {
            Some(0) => {
                self.1 = None;
                completion.result = Ok(Done::Listed(Vec::new()));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Some(completion)
    }

    fn wait(&mut self) -> Option<Completion> {
        self.0.wait()
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn reader(&self, name: &str) -> Box<dyn Read + Send> {
        self.0.reader(name)
    }
}

#[test]
fn an_answer_that_does_not_fit_fails_the_log() {
    // Of making a segment: create, rename, sync; a frame; a read.
    for n in 0..5 {
        let disk = TestDisk::new(1);
        made(&disk);
        let salts = salts(&disk);
        let (mut log, _) =
            Log::open(Confused(disk, Some(n)), CLUSTER, NODE, options(), salts).expect("opened");
        let write = Write {
            install: None,
            purge: None,
            id: WriteId(1),
            hard_state: None,
            truncate: None,
            runs: entries(2, 1, 1, &[100]).into(),
        };
        log.persist(GROUP, write);
        let fetch = Fetch {
            token: 1,
            from: From::Index(Index(1)),
            to: Index(1),
            bytes_max: 1,
        };
        log.fetch(GROUP, fetch);
        let events: Vec<LogEvent> = std::iter::from_fn(|| log.poll()).collect();
        let failed = |event: &&LogEvent| matches!(event, LogEvent::Failed(e) if e.to_string().contains("something else"));
        assert_eq!(events.iter().filter(failed).count(), 1, "{n}: {events:?}");
    }
}

/// A log in large segments, of records of this length, so many a frame.
struct Long {
    log: Log<Watched>,
    read: Rc<RefCell<Vec<Bytes>>>,
}

impl Long {
    fn new(frames: u64, records: u64, length: usize) -> Self {
        let options = LogOptions {
            segment_bytes: 64 << 20,
            tail_bytes_max: 1 << 20,
        };
        let disk = TestDisk::new(1);
        crate::create(
            disk.clone(),
            identity(),
            &members(),
            options.clone(),
            salts(&disk),
        )
        .expect("made");
        let (read, salts) = (Rc::default(), salts(&disk));
        let watched = Watched(disk, Rc::clone(&read));
        let (mut log, _) = Log::open(watched, CLUSTER, NODE, options, salts).expect("opened");
        for n in 0..frames {
            let lengths = vec![length; records as usize];
            let write = Write {
                install: None,
                purge: None,
                id: WriteId(n + 1),
                hard_state: None,
                truncate: None,
                runs: entries(2 + n * records, 1, 1 + n * records, &lengths).into(),
            };
            log.persist(GROUP, write);
            while log.poll().is_some() {}
        }
        Self { log, read }
    }

    /// What is given, and how many reads of how many bytes that took.
    fn fetch(&mut self, from: u64, to: u64, bytes_max: usize) -> (Vec<Run>, usize, usize) {
        self.read.borrow_mut().clear();
        let fetch = Fetch {
            token: 1,
            from: From::Index(Index(from)),
            to: Index(to),
            bytes_max,
        };
        self.log.fetch(GROUP, fetch);
        let runs = loop {
            match self.log.poll() {
                Some(LogEvent::Fetched { runs, .. }) => break runs.expect("read"),
                Some(_) => {}
                None => assert!(self.log.has_more(), "never answered"),
            }
        };
        let read = self.read.borrow();
        let bytes = read.iter().map(Bytes::len).sum();
        (runs, read.len(), bytes)
    }

    /// How many bytes of what was read somebody still holds.
    fn held(&self) -> usize {
        let read = self.read.borrow();
        read.iter().filter(|b| !b.is_unique()).map(Bytes::len).sum()
    }
}

fn weight(runs: &[Run]) -> usize {
    runs.iter().map(Run::weight).sum()
}

#[test]
fn a_long_read_reads_what_it_gives_and_not_many_times_that() {
    for (frames, records, length) in [(256, 16, 1000), (4096, 1, 1000), (40, 1, 100_000), (8000, 1, 10)] {
        let mut long = Long::new(frames, records, length);
        let last = frames * records + 1;
        for bytes_max in [16 << 10, 100_000, 1 << 20, 4 << 20, usize::MAX] {
            let mut next = 2;
            while next <= last {
                let (runs, reads, read) = long.fetch(next, u64::MAX, bytes_max);
                let given = weight(&runs);
                // Each read begins less than a stride early; what stands between the records is read with them.
                let stride = 64 << 10;
                let frame = (96 + records as usize * (88 + length)).next_multiple_of(512);
                let between = frame as f64 / (records as usize * (88 + length)) as f64;
                let least = (given as f64 * between) as usize;
                assert!(
                    read <= least + least / 8 + reads * (stride + 1024 + length + 88),
                    "{given} bytes given by {reads} reads of {read} bytes, {bytes_max} wanted at {next}"
                );
                assert!(
                    reads <= 2 + least / (1 << 20) * 2 + (between as usize - 1) * 2,
                    "{given} bytes by {reads} reads, {bytes_max} wanted at {next}"
                );
                assert!(
                    long.held() <= given + given / 2,
                    "{given} bytes given hold {}",
                    long.held()
                );
                let end = runs.last().expect("something").last().0;
                if length >= 1000 && end < last {
                    let most = bytes_max - (64 << 10).min(bytes_max / 8);
                    assert!(given + length + 88 > most, "{given} of {bytes_max}");
                }
                next = end + 1;
            }
        }
    }
}

#[test]
fn a_read_of_one_record_holds_on_to_one_record() {
    let mut long = Long::new(256, 16, 1000);
    for index in [2, 1000, 4000, 4097] {
        let (runs, reads, read) = long.fetch(index, u64::MAX, 1);
        assert_eq!((weight(&runs), reads), (1088, 1));
        assert!(read <= (64 << 10) + 512 + 1, "{read}");
        assert_eq!(long.held(), 0, "it has memory of its own");
    }
}

#[test]
fn a_read_to_a_record_reads_no_further_than_the_next_entry() {
    let mut long = Long::new(256, 16, 1000);
    let (runs, reads, read) = long.fetch(2, 100, usize::MAX);
    assert_eq!((runs.last().expect("read").last(), reads), (Index(100), 1));
    assert!(read < weight(&runs) + (64 << 10) + 2048, "{read}");
    let (_, _, read) = long.fetch(4097, u64::MAX, usize::MAX);
    assert!(read <= (64 << 10) + 1024, "not beyond the end of the log: {read}");
}

#[test]
fn polling_ends_however_much_is_read_and_tells_of_writes_first() {
    const FETCHES: u64 = 200;
    let mut long = Long::new(40, 1, 100_000);
    for token in 0..FETCHES {
        let fetch = Fetch {
            token,
            from: From::Index(Index(2)),
            to: Index(41),
            bytes_max: 500_000,
        };
        long.log.fetch(GROUP, fetch);
    }
    let write = Write {
        install: None,
        purge: None,
        id: WriteId(1000),
        hard_state: None,
        truncate: None,
        runs: entries(42, 1, 41, &[100]).into(),
    };
    long.log.persist(GROUP, write);
    let (mut answered, mut rounds) = (0, 0);
    // The disk of this test is done with each operation before it is looked at again.
    while answered < FETCHES {
        let mut bytes = 0;
        let mut first = true;
        while let Some(event) = long.log.poll() {
            match event {
                LogEvent::Persisted { .. } => assert!(first && rounds == 0, "behind {answered} reads"),
                LogEvent::Fetched { runs, .. } => {
                    bytes += weight(&runs.expect("read"));
                    answered += 1;
                }
                other => panic!("{other:?}"),
            }
            first = false;
        }
        // Each answer here is of one piece, and the last one may be begun when hardly anything is left.
        assert!(
            bytes <= crate::CHECK_BYTES_MAX + 500_000,
            "{bytes} bytes in one round"
        );
        assert!(answered == FETCHES || long.log.has_more());
        rounds += 1;
    }
    assert!(
        rounds >= FETCHES / 4,
        "{FETCHES} reads of 500 kB in {rounds} rounds"
    );
    assert!(!long.log.has_more());
}
