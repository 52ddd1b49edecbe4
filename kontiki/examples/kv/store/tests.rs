use super::*;
use kontiki::{BlockingMachine, Config, RaftNode};
use std::{fs, path::PathBuf};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kontiki-kv-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn store(&self, name: &str, sync_every: u64) -> Store {
        let options = Options {
            sync_every,
            ..Options::default()
        };
        Store::open(&self.0.join(name), options).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody needs it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(key: &str, value: &[u8]) -> Command {
    Command::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn one_node(store: Store) -> BlockingMachine<Store> {
    let config = Config::in_memory(1).unwrap().remove(0);
    let node = RaftNode::with_machine(config, store).unwrap();
    node.start().unwrap().blocking()
}

fn sums(node: &BlockingMachine<Store>, query: Query) -> Sums {
    let answer = node.query(query, kontiki::Consistency::Linearizable).unwrap();
    Result::<Sums, _>::from(answer).unwrap()
}

/// A store with so many pairs.
fn filled(scratch: &Scratch, name: &str, pairs: u64) -> Store {
    let node = one_node(scratch.store(name, 1));
    let commands: Vec<_> = (0..pairs)
        .map(|n| put(&n.to_string(), &vec![n as u8; 300]))
        .collect();
    node.apply_all(&commands).unwrap();
    node.shutdown().unwrap();
    drop(node);
    scratch.store(name, 1)
}

#[test]
fn the_digest_follows_from_the_pairs_alone() {
    let scratch = Scratch::new("digest");
    let (one, other) = (
        one_node(scratch.store("a", 1)),
        one_node(scratch.store("b", 1000)),
    );
    one.apply_all(&[put("x", b"1"), put("y", b"2")]).unwrap();
    let cas = |expect: Option<&[u8]>, value: &[u8]| Command::Cas {
        key: b"x".into(),
        expect: expect.map(<[u8]>::to_vec),
        value: value.into(),
    };
    let way = [
        put("z", b"3"),
        put("y", b"2"),
        cas(None, b"0"),
        cas(None, b"9"),
        cas(Some(b"0"), b"1"),
        Command::Delete { key: b"z".into() },
        Command::Delete { key: b"z".into() },
    ];
    let outputs: Vec<_> = other
        .apply_all(&way)
        .unwrap()
        .into_iter()
        .map(|done| done.output)
        .collect();
    let found = Err(Some(b"0".to_vec()));
    assert_eq!(
        outputs,
        [
            Ok(false),
            Ok(false),
            Ok(false),
            found,
            Ok(true),
            Ok(true),
            Ok(false)
        ]
    );
    let (one, other) = (
        sums(&one, Query::Sums),
        (sums(&other, Query::Sums), sums(&other, Query::Recount)),
    );
    assert_eq!(other.0, other.1, "kept and counted are the same");
    assert_eq!((one.pairs, one.digest), (other.0.pairs, other.0.digest));
    assert_ne!(hash(b"ab", b"c"), hash(b"a", b"bc"), "key and value are apart");
}

#[test]
fn a_snapshot_is_the_state_of_one_moment_and_replaces_all_there_is() {
    let scratch = Scratch::new("snapshot");
    let (mut from, mut to) = (filled(&scratch, "a", 1000), filled(&scratch, "b", 3));
    let before = from.sums;
    let mut source = from.snapshot().unwrap().unwrap();
    let write = from.db.begin_write().unwrap();
    write
        .open_table(PAIRS)
        .unwrap()
        .insert(&b"later"[..], &b"x"[..])
        .unwrap();
    write.commit().unwrap();
    assert!(!to.durable().unwrap().unwrap().0.is_empty(), "rows of its own");
    let rows = MetaRows(vec![(70, Some(b"row".to_vec().into()))]);
    to.restore(&mut source, &rows).unwrap();
    assert_eq!(to.sums, before);
    assert_eq!(to.durable().unwrap(), Some(rows.clone()), "and no others");
    let Answer::Sums(counted) = to.query(Query::Recount) else {
        panic!()
    };
    assert_eq!(counted, before);
    drop(to);
    let to = scratch.store("b", 1);
    assert_eq!(
        (to.sums, to.durable().unwrap()),
        (before, Some(rows)),
        "it is on disk"
    );
    assert!(
        from.counters.reading.load(Ordering::Relaxed),
        "the source is still there"
    );
    drop(source);
    assert!(!from.counters.reading.load(Ordering::Relaxed));
}

#[test]
fn a_snapshot_is_read_in_pieces_and_a_wrong_one_changes_nothing() {
    let scratch = Scratch::new("pieces");
    let (mut from, mut to) = (filled(&scratch, "a", 1000), filled(&scratch, "b", 3));
    let mut source = from.snapshot().unwrap().unwrap();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let read = source.read(&mut piece).unwrap();
        assert!(read < 2 * PIECE_BYTES, "more at once than is to be in memory");
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..read]);
    }
    assert!(bytes.len() > 4 * PIECE_BYTES);
    let mut wrong = bytes.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let short = bytes[..bytes.len() - 1].to_vec();
    let rows = to.durable().unwrap();
    for damaged in [wrong, short, bytes[..10].to_vec()] {
        to.restore(&mut &damaged[..], &MetaRows::default()).unwrap_err();
    }
    assert_eq!((to.sums.pairs, to.durable().unwrap()), (3, rows));
    to.restore(&mut &bytes[..], &MetaRows::default()).unwrap();
    assert_eq!(to.sums, from.sums);
}

#[test]
fn a_store_that_was_cut_short_while_it_took_a_snapshot_over_is_an_empty_one() {
    let scratch = Scratch::new("short");
    let mut from = filled(&scratch, "a", 1000);
    let mut bytes = Vec::new();
    let mut source = from.snapshot().unwrap().unwrap();
    source.read_to_end(&mut bytes).unwrap();
    let in_parts = Options {
        part_bytes: 50_000,
        ..Options::default()
    };
    drop(filled(&scratch, "b", 3));
    let mut to = Store::open(&scratch.0.join("b"), in_parts).unwrap();
    to.restore(&mut &bytes[..bytes.len() - 1], &MetaRows::default())
        .unwrap_err();
    drop(to);
    let mut to = Store::open(&scratch.0.join("b"), in_parts).unwrap();
    assert_eq!(
        (to.sums, to.durable().unwrap()),
        (Sums::default(), Some(MetaRows::default())),
        "none of the old, none of the new"
    );
    assert_eq!(to.query(Query::Recount), Answer::Sums(Sums::default()));
    to.restore(&mut &bytes[..], &MetaRows::default()).unwrap();
    assert_eq!(to.sums, from.sums);
    assert_eq!(to.query(Query::Recount), Answer::Sums(from.sums));
    drop(to);
    assert_eq!(scratch.store("b", 1).sums, from.sums, "it is whole");
}

#[test]
fn what_was_not_yet_on_disk_goes_together() {
    let scratch = Scratch::new("together");
    let node = one_node(scratch.store("a", 1_000_000));
    node.apply_all(&[put("x", b"1"), put("y", b"2")]).unwrap();
    let now = sums(&node, Query::Sums);
    // What a crash leaves is what the file holds now.
    fs::copy(scratch.0.join("a"), scratch.0.join("crashed")).unwrap();
    assert_eq!(now.pairs, 2);
    let crashed = scratch.store("crashed", 1);
    assert_eq!(crashed.sums, Sums::default());
    assert_eq!(
        crashed.durable().unwrap(),
        Some(MetaRows::default()),
        "rows and pairs are equally old"
    );
}
