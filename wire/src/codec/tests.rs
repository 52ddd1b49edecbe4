use super::*;
use crate::{
    Codec, Compared, Expect, InSession, Payload, Propose, ProposeAnswer, ProposeReply, Refusal, Resync,
    Session, SnapshotChunk, SnapshotRequest, Stamp, record,
};
use kontiki_consensus::{
    Call, Conflict, Index, LogId, NodeId, Position, ReadId, Round, Run, Runs, Standing, SuspectMark, Term,
    Verdict,
};
use proptest::prelude::*;

const CLUSTER: ClusterId = ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

fn packet(message: PeerMessage) -> Packet {
    Packet {
        group: GroupId(1),
        from: NodeId(2),
        start: StartId(0x1112_1314_1516_1718),
        to: NodeId(3),
        message,
    }
}

fn raft(term: u64, call: Call) -> PeerMessage {
    PeerMessage::Raft(Message {
        from: NodeId(2),
        to: NodeId(3),
        term: Term(term),
        call,
    })
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn bytes_of(packet: &Packet) -> Bytes {
    let mut chunks = Vec::new();
    encode(CLUSTER, packet, &mut chunks);
    chunks.concat().into()
}

/// The bytes again with a checksum that fits them.
fn summed(mut bytes: Vec<u8>) -> Bytes {
    let parts = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize;
    let end = parts(12) + parts(14);
    let sum = checksum(CLUSTER, &bytes[SUMMED_FROM..end]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes.into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn payload(bytes: &'static [u8], count: u32) -> Payload {
    Payload {
        bytes: Bytes::from_static(bytes),
        count,
        crc: crc32c::crc32c(bytes),
        codec: Codec::Postcard,
        schema: 7,
    }
}

fn propose() -> PeerMessage {
    PeerMessage::Propose(Propose {
        origin: 1,
        number: 2,
        settled: 3,
        term: Term(4),
        expect: Expect::Last {
            position: Position(5),
            term: Some(Term(6)),
        },
        payload: payload(b"hello", 1),
        session: Session::In(InSession {
            session: 7,
            sequence: 9,
            settled: 8,
        }),
    })
}

/// Magic, checksum, length, header and body lengths, kind, flags; then group, sender, incarnation, receiver.
fn golden(sum: &str, lengths: &str, kind_and_flags: &str, body: &str) -> String {
    let envelope = "01000000020000000000000018171615141312110300000000000000";
    format!("4b544b50{sum}{lengths}{kind_and_flags}{envelope}{body}")
}

#[test]
fn the_bytes_of_a_vote_are_these() {
    let call = Call::RequestVote {
        pre: true,
        transfer: true,
        last: at(6, 7),
    };
    let body = "050000000000000006000000000000000700000000000000";
    assert_eq!(
        hex(&bytes_of(&packet(raft(5, call)))),
        golden("15f74f84", "4800000030001800", "01000300", body)
    );
}

#[test]
fn the_bytes_of_a_heartbeat_are_these() {
    let call = Call::AppendEntries {
        prev: at(6, 7),
        commit: Index(8),
        round: Round(9),
        standing: Standing {
            matched: Index(10),
            mark: SuspectMark(11),
            verdict: Verdict::Cleared(Index(12)),
        },
        runs: Runs::new(),
    };
    let body = concat!(
        "0500000000000000",
        "0600000000000000",
        "0700000000000000",
        "0800000000000000",
        "0900000000000000",
        "0a00000000000000",
        "0b00000000000000",
        "0c00000000000000",
    );
    assert_eq!(
        hex(&bytes_of(&packet(raft(5, call)))),
        golden("2393d919", "7000000030004000", "03000200", body)
    );
}

#[test]
fn the_bytes_of_an_acknowledgement_are_these() {
    let call = Call::AppendEntriesReply {
        round: Round(9),
        persisted: Index(10),
        received: Index(11),
        conflict: Some(Conflict {
            prev: Index(12),
            hint: at(3, 4),
        }),
        suspect: SuspectMark(5),
    };
    let body = concat!(
        "0500000000000000",
        "0900000000000000",
        "0a00000000000000",
        "0b00000000000000",
        "0c00000000000000",
        "0300000000000000",
        "0400000000000000",
        "0500000000000000",
    );
    assert_eq!(
        hex(&bytes_of(&packet(raft(5, call)))),
        golden("01acec26", "7000000030004000", "04000100", body)
    );
}

#[test]
fn the_bytes_of_a_snapshot_that_is_announced_are_these() {
    let call = Call::InstallSnapshot {
        last: at(6, 7),
        position: Position(8),
    };
    let body = "0500000000000000060000000000000007000000000000000800000000000000";
    assert_eq!(
        hex(&bytes_of(&packet(raft(5, call)))),
        golden("4c723c53", "5000000030002000", "07000000", body)
    );
}

#[test]
fn the_bytes_of_a_proposal_are_these() {
    let body = concat!(
        "0100000000000000",
        "0200000000000000",
        "0300000000000000",
        "0400000000000000",
        "0500000000000000",
        "0600000000000000",
        "0100000000000000",
        "4cbb719a00000000",
        "0200000000000000",
        "0700000000000000",
        "0700000000000000",
        "0900000000000000",
        "0800000000000000",
        "68656c6c6f",
    );
    assert_eq!(
        hex(&bytes_of(&packet(propose()))),
        golden("420c67cc", "9d00000030006800", "10000600", body)
    );
}

#[test]
fn the_bytes_of_an_answer_are_these() {
    let answer = ProposeAnswer::Assigned {
        at: at(3, 4),
        first: Position(5),
    };
    let reply = ProposeReply {
        origin: 1,
        number: 2,
        answer,
    };
    let body = concat!(
        "0100000000000000",
        "0200000000000000",
        "0100000000000000",
        "0300000000000000",
        "0400000000000000",
        "0500000000000000",
    );
    assert_eq!(
        hex(&bytes_of(&packet(PeerMessage::ProposeReply(reply)))),
        golden("834701bc", "6000000030003000", "11000000", body)
    );
}

#[test]
fn entries_and_records_are_not_copied() {
    let PeerMessage::Propose(propose) = propose() else {
        unreachable!()
    };
    let at = propose.payload.bytes.as_ptr();
    let mut chunks = Vec::new();
    encode(CLUSTER, &packet(PeerMessage::Propose(propose)), &mut chunks);
    assert_eq!(chunks[1].as_ptr(), at);
    let whole: Bytes = chunks.concat().into();
    let PeerMessage::Propose(back) = decode(CLUSTER, whole.clone()).unwrap().message else {
        unreachable!()
    };
    assert_eq!(back.payload.bytes.as_ptr(), whole[whole.len() - 5..].as_ptr());
}

#[test]
fn a_packet_of_another_cluster_is_never_taken() {
    let bytes = bytes_of(&packet(propose()));
    assert_eq!(
        decode(ClusterId(CLUSTER.0 ^ 1), bytes),
        Err(DecodeError::Checksum)
    );
}

#[test]
fn longer_headers_and_bodies_of_a_later_version_are_skipped() {
    let mut bytes = bytes_of(&packet(propose())).to_vec();
    let body_end = bytes.len() - 5;
    bytes.splice(body_end..body_end, [9; 16]);
    bytes.splice(HEADER_BYTES..HEADER_BYTES, [7; 8]);
    let total = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&total.to_le_bytes());
    bytes[12..14].copy_from_slice(&56u16.to_le_bytes());
    bytes[14..16].copy_from_slice(&120u16.to_le_bytes());
    assert_eq!(decode(CLUSTER, summed(bytes)), Ok(packet(propose())));
}

#[test]
fn a_flag_that_must_be_understood_is_refused_and_another_is_ignored() {
    let mut bytes = bytes_of(&packet(propose())).to_vec();
    bytes[19] |= 0x80;
    assert_eq!(decode(CLUSTER, summed(bytes.clone())), Ok(packet(propose())));
    bytes[18] |= 0x80;
    let refused = Err(DecodeError::Flags {
        kind: 16,
        flags: 0x8086,
    });
    assert_eq!(decode(CLUSTER, summed(bytes)), refused);
}

#[test]
fn an_unknown_kind_and_an_impossible_field_are_named() {
    let mut bytes = bytes_of(&packet(propose())).to_vec();
    bytes[112] = 77;
    let field = |field| Err(DecodeError::Field { kind: 16, field });
    assert_eq!(decode(CLUSTER, summed(bytes.clone())), field("codec"));
    bytes[112] = 1;
    bytes[152] ^= 1;
    assert_eq!(decode(CLUSTER, summed(bytes.clone())), field("crc"));
    bytes[152] ^= 1;
    bytes[144] = 10;
    assert_eq!(decode(CLUSTER, summed(bytes.clone())), field("sequence"));
    bytes[16] = 99;
    assert_eq!(decode(CLUSTER, summed(bytes)), Err(DecodeError::Kind(99)));
}

#[test]
fn runs_that_leave_a_gap_are_refused() {
    let call = Call::AppendEntries {
        prev: at(1, 7),
        commit: Index(0),
        round: Round(0),
        standing: Standing::default(),
        runs: Run::new(Index(9), Term(1), Position(1), kontiki_consensus::Body::Noop).into(),
    };
    let refused = decode(CLUSTER, bytes_of(&packet(raft(1, call))));
    assert_eq!(
        refused,
        Err(DecodeError::Field {
            kind: 3,
            field: "runs"
        })
    );
}

#[test]
fn a_length_is_known_after_twelve_bytes_and_checked_at_once() {
    let bytes = bytes_of(&packet(propose()));
    let limit = PacketBytesMax(bytes.len() as u32);
    for len in 0..12 {
        assert_eq!(packet_len(&bytes[..len], limit), Ok(None));
    }
    assert_eq!(packet_len(&bytes[..12], limit), Ok(Some(bytes.len())));
    let tight = PacketBytesMax(limit.0 - 1);
    assert!(matches!(
        packet_len(&bytes[..12], tight),
        Err(DecodeError::TooLarge { .. })
    ));
    assert_eq!(packet_len(b"GET", limit), Err(DecodeError::Magic));
}

#[test]
fn no_flipped_bit_and_no_truncation_goes_unseen() {
    let bytes = bytes_of(&packet(propose()));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(CLUSTER, flipped.into()).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(decode(CLUSTER, bytes.slice(..len)).is_err(), "length {len}");
    }
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Any),
        Just(Expect::Empty),
        any::<(u64, Option<u64>)>().prop_map(|(position, term)| Expect::Last {
            position: Position(position),
            term: term.map(Term),
        }),
    ]
}

fn any_log_id() -> impl Strategy<Value = LogId> {
    any::<(u64, u64)>().prop_map(|(term, index)| at(term, index))
}

fn any_small_call() -> impl Strategy<Value = Call> {
    let vote = (any::<(bool, bool)>(), any_log_id()).prop_map(|((pre, transfer), last)| Call::RequestVote {
        pre,
        transfer,
        last,
    });
    let vote_reply = any::<(bool, bool, u64)>().prop_map(|(pre, granted, suspect)| Call::RequestVoteReply {
        pre,
        granted,
        suspect: SuspectMark(suspect),
    });
    let conflict = (any::<u64>(), any_log_id()).prop_map(|(prev, hint)| Conflict {
        prev: Index(prev),
        hint,
    });
    let reply = (any::<[u64; 4]>(), proptest::option::of(conflict)).prop_map(
        |([round, persisted, received, suspect], conflict)| Call::AppendEntriesReply {
            round: Round(round),
            persisted: Index(persisted),
            received: Index(received),
            conflict,
            suspect: SuspectMark(suspect),
        },
    );
    let read = any::<u64>().prop_map(|id| Call::ReadIndex { id: ReadId(id) });
    let read_reply = any::<(u64, Option<u64>)>().prop_map(|(id, index)| Call::ReadIndexReply {
        id: ReadId(id),
        index: index.map(Index),
    });
    let snapshot = (any_log_id(), any::<u64>()).prop_map(|(last, position)| Call::InstallSnapshot {
        last,
        position: Position(position),
    });
    prop_oneof![vote, vote_reply, reply, read, read_reply, snapshot]
}

fn any_payload() -> impl Strategy<Value = Payload> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Payload {
        crc: crc32c::crc32c(&bytes),
        count: u32::from(!bytes.is_empty()),
        bytes: bytes.into(),
        codec: Codec::Bytes,
        schema: 7,
    })
}

fn any_session() -> impl Strategy<Value = Session> {
    let of = (1..u64::MAX, 1..u64::MAX / 2, any::<u32>()).prop_map(|(session, settled, behind)| {
        Session::In(InSession {
            session,
            sequence: settled + u64::from(behind),
            settled,
        })
    });
    prop_oneof![Just(Session::None), Just(Session::Open), of]
}

fn any_propose() -> impl Strategy<Value = Propose> {
    (any::<[u64; 4]>(), any_expect(), any_payload(), any_session()).prop_map(
        |([origin, number, settled, term], expect, payload, session)| Propose {
            origin,
            number,
            settled,
            term: Term(term),
            expect,
            payload,
            session,
        },
    )
}

fn any_answer() -> impl Strategy<Value = ProposeAnswer> {
    let refusal = any::<(u64, u64)>().prop_flat_map(|(a, b)| {
        let (last, term) = (Position(a), Term(b));
        prop_oneof![
            Just(Refusal::NotLeader { leader: None }),
            Just(Refusal::NotLeader {
                leader: Some(NodeId(a.max(1)))
            }),
            Just(Refusal::Overloaded),
            any::<u64>().prop_map(|node| Refusal::DiskFull { node: NodeId(node) }),
            Just(Refusal::Mismatch { last, term }),
            Just(Refusal::Holds { last, term }),
            Just(Refusal::TooLarge { bytes_max: a }),
            Just(Refusal::SessionExpired),
            Just(Refusal::SessionStale),
        ]
    });
    let assigned = (any_log_id(), any::<u64>()).prop_map(|(at, first)| ProposeAnswer::Assigned {
        at,
        first: Position(first),
    });
    prop_oneof![refusal.prop_map(ProposeAnswer::Refused), assigned]
}

/// One run for each part: a no-op, or records.
fn runs_of(mut next: Index, term: Term, parts: Vec<Option<Vec<Payload>>>) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut position = Position(1);
    for part in parts {
        let body = match part {
            None => kontiki_consensus::Body::Noop,
            Some(payloads) => {
                let at = kontiki_consensus::Admission {
                    index: next,
                    term,
                    position,
                };
                let mut builder = record::RunBuilder::new(CLUSTER, GroupId(1), at);
                for payload in payloads {
                    let count = payload.count.max(1);
                    builder
                        .push(&Payload { count, ..payload }, Stamp::default(), Session::None)
                        .unwrap();
                }
                let Some(run) = builder.finish() else { continue };
                run.body().clone()
            }
        };
        let run = Run::new(next, term, position, body);
        next = run.last().next();
        position = run.last_position().next();
        runs.push(run);
    }
    runs
}

/// Neighbouring records of one term come back as one run: a control record keeps them apart.
fn apart(parts: Vec<Option<Vec<Payload>>>) -> Vec<Option<Vec<Payload>>> {
    parts.into_iter().flat_map(|part| [part, None]).collect()
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let verdict = prop_oneof![
        Just(Verdict::None),
        Just(Verdict::Lost),
        any::<u64>().prop_map(|record| Verdict::Cleared(Index(record))),
    ];
    (any::<[u64; 2]>(), verdict).prop_map(|([matched, mark], verdict)| Standing {
        matched: Index(matched),
        mark: SuspectMark(mark),
        verdict,
    })
}

/// Runs as a leader would have them: controls and records in turn, without a gap.
fn any_append() -> impl Strategy<Value = Call> {
    let parts = proptest::collection::vec(
        proptest::option::of(proptest::collection::vec(any_payload(), 1..4)),
        0..4,
    )
    .prop_map(apart);
    (any::<[u32; 4]>(), any_standing(), parts).prop_map(|([term, prev, commit, round], standing, parts)| {
        Call::AppendEntries {
            prev: at(term.into(), prev.into()),
            commit: Index(commit.into()),
            round: Round(round.into()),
            standing,
            runs: runs_of(Index(u64::from(prev) + 1), Term(term.into()), parts).into(),
        }
    })
}

fn any_message() -> impl Strategy<Value = PeerMessage> {
    let call = prop_oneof![any_small_call(), any_append()];
    prop_oneof![
        (any::<u64>(), call).prop_map(|(term, call)| raft(term, call)),
        any_propose().prop_map(PeerMessage::Propose),
        (any::<(u64, u64)>(), any_answer()).prop_map(|((origin, number), answer)| {
            PeerMessage::ProposeReply(ProposeReply {
                origin,
                number,
                answer,
            })
        }),
        (any_log_id(), any::<(u64, u32, u32)>()).prop_map(|(last, (offset, header, bytes_max))| {
            PeerMessage::SnapshotRequest(SnapshotRequest {
                last,
                offset,
                header,
                bytes_max,
            })
        }),
        (any_log_id(), any::<(u32, Vec<u8>)>()).prop_map(|(last, (offset, bytes))| {
            PeerMessage::SnapshotChunk(SnapshotChunk {
                last,
                offset: offset.into(),
                total: u64::from(offset) + bytes.len() as u64,
                bytes: bytes.into(),
            })
        }),
        any::<(u64, u64, u64, Option<u64>, bool)>().prop_map(
            |(index, log_hash, output_hash, digest, is_answer)| {
                PeerMessage::Compared(Compared {
                    index: Index(index),
                    log_hash,
                    output_hash,
                    digest,
                    is_answer,
                })
            }
        ),
        (any::<u64>(), proptest::option::of(any_log_id())).prop_map(|(index, offer)| {
            PeerMessage::Resync(Resync {
                index: Index(index),
                offer,
            })
        }),
    ]
}

fn any_packet() -> impl Strategy<Value = Packet> {
    any_message().prop_map(packet)
}

proptest! {
    #[test]
    fn every_packet_comes_back(packet in any_packet()) {
        prop_assert_eq!(decode(CLUSTER, bytes_of(&packet)), Ok(packet));
    }

    #[test]
    fn a_damaged_packet_never_makes_the_reader_panic(
        packet in any_packet(),
        (at, bit, cut) in any::<(prop::sample::Index, u8, prop::sample::Index)>(),
    ) {
        let mut bytes = bytes_of(&packet).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << (bit % 8);
        let cut = cut.index(bytes.len() + 1);
        let _ = decode(CLUSTER, bytes.clone().into());
        let _ = decode(CLUSTER, bytes[..cut].to_vec().into());
    }

    #[test]
    fn a_damaged_packet_with_a_right_checksum_never_makes_the_reader_panic(
        packet in any_packet(),
        (at, byte) in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut bytes = bytes_of(&packet).to_vec();
        let at = 16 + at.index(bytes.len() - 16);
        bytes[at] = byte;
        let _ = decode(CLUSTER, summed(bytes));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
        if magic && bytes.len() >= 12 {
            bytes[..4].copy_from_slice(&MAGIC);
            let total = bytes.len() as u32;
            bytes[8..12].copy_from_slice(&total.to_le_bytes());
        }
        let _ = packet_len(&bytes, PacketBytesMax::default());
        let _ = decode(CLUSTER, bytes.into());
    }
}
