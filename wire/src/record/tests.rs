use super::*;
use crate::ClusterId;
use kontiki_consensus::{Admission, Configuration, GroupId, NodeId, Term};
use proptest::prelude::*;
use std::sync::Arc;

const CLUSTER: ClusterId = ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
const GROUP: GroupId = GroupId(1);

fn admission(index: u64, term: u64, position: u64) -> Admission {
    Admission {
        index: Index(index),
        term: Term(term),
        position: Position(position),
    }
}

fn run_of(at: Admission, payloads: &[Payload]) -> Run {
    let mut builder = RunBuilder::new(CLUSTER, GROUP, at);
    for (n, payload) in payloads.iter().enumerate() {
        let stamp = Stamp {
            leader_time: 7 + n as u64,
            clock: 3,
        };
        builder.push(payload, stamp, Session::None).unwrap();
    }
    builder.finish().unwrap()
}

fn bytes_of(runs: &[Run]) -> Bytes {
    let mut out = Vec::new();
    for run in runs {
        let before = out.len();
        encode_run(CLUSTER, GROUP, run, &mut out);
        assert_eq!(
            out[before..].iter().map(Bytes::len).sum::<usize>(),
            run_bytes(run)
        );
    }
    out.concat().into()
}

fn text(words: &[&str]) -> Payload {
    Payload::several(words, Codec::Bytes).unwrap()
}

fn sample() -> Vec<Run> {
    let configuration = Configuration {
        voters: vec![NodeId(1), NodeId(2)],
        outgoing: vec![NodeId(3)],
        learners: vec![],
    };
    let body = Body::Configuration(Arc::new(configuration));
    vec![
        Run::new(Index(5), Term(2), Position(9), body),
        run_of(admission(6, 2, 9), &[text(&["a"]), text(&["bc", "", "d"])]),
        Run::new(Index(8), Term(3), Position(13), Body::Noop),
        run_of(admission(9, 3, 13), &[text(&[""])]),
    ]
}

fn found(run: &Run) -> Vec<(u64, Vec<u8>)> {
    entries(run)
        .map(|entry| (entry.position.0, entry.bytes.to_vec()))
        .collect()
}

#[test]
fn a_record_is_these_bytes() {
    let run = run_of(admission(6, 2, 9), &[text(&["bc", "d"])]);
    let hex: String = bytes_of(&[run]).iter().map(|b| format!("{b:02x}")).collect();
    let fields = concat!(
        "5800",
        "03",
        "01",
        "0b000000",
        "f1fab242",
        "0600000000000000",
        "0200000000000000",
        "0900000000000000",
        "02000000",
        "01000000",
        "0000000000000000",
        "0000000000000000",
        "00000000",
        "03000000",
        "0700000000000000",
        "00000000",
        "0000",
        "0000",
    );
    assert_eq!(hex[8..], [fields, "0200000003000000", "626364"].concat());
}

#[test]
fn a_record_says_which_append_of_which_session_it_is() {
    let mut builder = RunBuilder::new(CLUSTER, GROUP, admission(6, 2, 9));
    let limits = SessionLimits {
        ttl: 1,
        sessions_max: 2,
        answers_bytes_max: 3,
    };
    let of = InSession {
        session: 6,
        sequence: 20,
        settled: 18,
    };
    let stamp = Stamp::default();
    builder.push(&limits.payload(), stamp, Session::Open).unwrap();
    builder.push(&text(&["a", "b"]), stamp, Session::In(of)).unwrap();
    let runs = decode_runs(CLUSTER, GROUP, bytes_of(&[builder.finish().unwrap()])).unwrap();
    assert_eq!(
        (runs[0].last_position(), runs[0].index_of(Position(9))),
        (Position(10), Some(Index(7)))
    );
    assert_eq!(found(&runs[0]).len(), 2);
    let all: Vec<_> = records(&runs[0]).collect();
    assert_eq!((all[0].0.kind, all[0].0.in_session()), (Kind::Session, None));
    assert_eq!(SessionLimits::of(all[0].1), Some(limits));
    assert_eq!((all[1].0.kind, all[1].0.in_session()), (Kind::Entries, Some(of)));
    assert_eq!(all.len(), 2);
}

#[test]
fn what_opens_a_session_holds_its_limits_and_no_entry() {
    let record = |payload: Payload| {
        let mut builder = RunBuilder::new(CLUSTER, GROUP, admission(6, 2, 9));
        builder.push(&payload, Stamp::default(), Session::Open).unwrap();
        decode_runs(CLUSTER, GROUP, bytes_of(&[builder.finish().unwrap()]))
    };
    let form = Err(RecordError::Form { index: Index(6) });
    assert_eq!(record(Payload::one(vec![0; 12].into(), Codec::Bytes)), form);
    assert_eq!(record(Payload::empty(Codec::Bytes)), form);
    assert!(record(SessionLimits::default().payload()).is_ok());
}

#[test]
fn entries_come_back_with_their_positions() {
    let runs = sample();
    let entry = |position, text: &str| (position, text.as_bytes().to_vec());
    assert!(found(&runs[0]).is_empty());
    assert_eq!(
        found(&runs[1]),
        [entry(9, "a"), entry(10, "bc"), entry(11, ""), entry(12, "d")]
    );
    assert_eq!(found(&runs[3]), [entry(13, "")]);
    let cut = runs[1].slice(Index(7), Index(7)).unwrap();
    assert_eq!(found(&cut), [entry(10, "bc"), entry(11, ""), entry(12, "d")]);
}

#[test]
fn runs_come_back_and_share_the_memory() {
    let runs = sample();
    let bytes = bytes_of(&runs);
    let back = decode_runs(CLUSTER, GROUP, bytes.clone()).unwrap();
    assert_eq!(back, runs);
    let Body::Records(records) = back[1].body() else {
        unreachable!()
    };
    let range = bytes.as_ptr_range();
    assert!(range.contains(&records.bytes().as_ptr()));
}

#[test]
fn another_cluster_or_group_is_not_taken() {
    let bytes = bytes_of(&sample());
    assert_eq!(
        decode_runs(ClusterId(1), GROUP, bytes.clone()),
        Err(RecordError::Header)
    );
    let group = RecordError::Group {
        index: Index(5),
        group: 1,
    };
    assert_eq!(decode_runs(CLUSTER, GroupId(0), bytes), Err(group));
}

#[test]
fn a_rotten_payload_does_not_hide_which_record_it_was() {
    let runs = sample();
    let mut bytes = bytes_of(&runs).to_vec();
    let first = run_bytes(&runs[0]);
    bytes[first + RecordHeader::BYTES] ^= 1;
    let (sound, length, error) = decode_prefix(CLUSTER, GROUP, bytes.into());
    assert_eq!((sound, length), (runs[..1].to_vec(), first));
    assert_eq!(error, Some(RecordError::Payload { index: Index(6) }));
}

#[test]
fn a_gap_or_an_earlier_term_is_seen() {
    let runs = sample();
    let place = |index| Err(RecordError::Place { index: Index(index) });
    assert_eq!(
        decode_runs(CLUSTER, GROUP, bytes_of(&[runs[0].clone(), runs[2].clone()])),
        place(8)
    );
    let early = run_of(admission(9, 2, 13), &[text(&["x"])]);
    assert_eq!(
        decode_runs(CLUSTER, GROUP, bytes_of(&[runs[2].clone(), early])),
        place(9)
    );
}

#[test]
fn a_longer_header_is_read_as_far_as_it_is_known_and_a_required_flag_refused() {
    let bytes = bytes_of(&[run_of(admission(6, 2, 9), &[text(&["word"])])]);
    let summed = |mut bytes: Vec<u8>| {
        let end = u16::from_le_bytes([bytes[4], bytes[5]]) as usize;
        let sum = crc32c::crc32c_append(header::seed(CLUSTER), &bytes[4..end]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        Bytes::from(bytes)
    };
    let mut longer = bytes.to_vec();
    longer.splice(88..88, [9; 8]);
    longer[4] = 96;
    let runs = decode_runs(CLUSTER, GROUP, summed(longer)).unwrap();
    assert_eq!(found(&runs[0]), [(9, b"word".to_vec())]);
    let mut flagged = bytes.to_vec();
    flagged[85] = 0x80;
    assert!(decode_runs(CLUSTER, GROUP, summed(flagged.clone())).is_ok());
    flagged[84] = 0x80;
    let unknown = RecordError::Unknown {
        index: Index(6),
        field: "flags",
        value: 0x80,
    };
    assert_eq!(decode_runs(CLUSTER, GROUP, summed(flagged)), Err(unknown));
}

#[test]
fn a_table_of_entries_that_is_none_is_refused() {
    let table = |ends: [u32; 2], data: &[u8]| -> Bytes {
        [&ends[0].to_le_bytes()[..], &ends[1].to_le_bytes(), data]
            .concat()
            .into()
    };
    assert_eq!(entries_in(&table([1, 3], b"abc"), 2).unwrap().count(), 2);
    assert!(entries_in(&table([3, 1], b"abc"), 2).is_none(), "falls");
    assert!(entries_in(&table([1, 4], b"abc"), 2).is_none(), "beyond the end");
    assert!(entries_in(&table([1, 2], b"abc"), 2).is_none(), "before the end");
    assert!(
        entries_in(&Bytes::from_static(b"abc"), u32::MAX).is_none(),
        "no room for a table"
    );
    assert!(entries_in(&Bytes::from_static(b"abc"), 0).is_none());
}

#[test]
fn a_run_is_cut_before_it_grows_too_large() {
    let large = Payload::one(vec![0; 3 << 20].into(), Codec::Bytes);
    let mut builder = RunBuilder::new(CLUSTER, GROUP, admission(1, 1, 1));
    assert_eq!(builder.push(&large, Stamp::default(), Session::None), Ok(()));
    assert_eq!(builder.push(&large, Stamp::default(), Session::None), Err(Full));
    assert_eq!(builder.finish().unwrap().len(), 1);
    let huge = Payload::one(vec![0; 9 << 20].into(), Codec::Bytes);
    let mut builder = RunBuilder::new(CLUSTER, GROUP, admission(1, 1, 1));
    assert_eq!(
        builder.push(&huge, Stamp::default(), Session::None),
        Ok(()),
        "alone, it may be larger"
    );
}

proptest! {
    #[test]
    fn damage_never_goes_unseen_and_never_panics(
        words in proptest::collection::vec(proptest::collection::vec(".{0,9}", 1..4), 1..5),
        (at, bit, cut) in any::<(prop::sample::Index, u8, prop::sample::Index)>(),
    ) {
        let payloads: Vec<Payload> =
            words.iter().map(|w| Payload::several(w, Codec::Bytes).unwrap()).collect();
        let run = run_of(admission(3, 2, 4), &payloads);
        let whole = bytes_of(std::slice::from_ref(&run));
        let mut bytes = whole.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << (bit % 8);
        let (runs, sound, error) = decode_prefix(CLUSTER, GROUP, bytes.into());
        prop_assert!(error.is_some());
        prop_assert!(sound <= at);
        prop_assert_eq!(runs.iter().map(run_bytes).sum::<usize>(), sound);
        let cut = cut.index(whole.len());
        let (runs, sound, _) = decode_prefix(CLUSTER, GROUP, whole.slice(..cut));
        prop_assert!(sound <= cut);
        prop_assert_eq!(runs.iter().map(run_bytes).sum::<usize>(), sound);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count: u32) {
        let bytes = Bytes::from(bytes);
        let _ = decode_prefix(CLUSTER, GROUP, bytes.clone());
        let _ = RecordHeader::peek(&bytes);
        let _ = entries_in(&bytes, count).map(|e| e.last());
    }
}
