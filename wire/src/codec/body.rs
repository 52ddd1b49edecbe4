//! The bodies of the messages: which word is what.
//!
//! Invariants: every field is one 64-bit word, yes-or-no is a flag, and words are only ever appended to a
//! body, so that a reader of this format can read a later one; a word that says nothing is zero.

use super::{DecodeError, Header, words::Words};
use crate::{
    ClusterId, Codec, Compared, Expect, InSession, Packet, Payload, PeerMessage, Propose, ProposeAnswer,
    ProposeReply, Refusal, Resync, Session, SnapshotChunk, SnapshotRequest, record,
};
use bytes::Bytes;
use kontiki_consensus::{
    Call, Conflict, Index, LogId, Message, NodeId, Position, ReadId, Round, Run, Standing, SuspectMark, Term,
    Verdict,
};

const REQUEST_VOTE: u16 = 1;
const REQUEST_VOTE_REPLY: u16 = 2;
const APPEND_ENTRIES: u16 = 3;
const APPEND_ENTRIES_REPLY: u16 = 4;
const READ_INDEX: u16 = 5;
const READ_INDEX_REPLY: u16 = 6;
const INSTALL_SNAPSHOT: u16 = 7;
const PROPOSE: u16 = 16;
const PROPOSE_REPLY: u16 = 17;
const SNAPSHOT_REQUEST: u16 = 18;
const SNAPSHOT_CHUNK: u16 = 19;
const COMPARED: u16 = 20;
const RESYNC: u16 = 21;

/// RequestVote and its reply.
const PRE_VOTE: u16 = 1;
const TRANSFER: u16 = 2;
/// RequestVoteReply.
const GRANTED: u16 = 2;
/// AppendEntries.
const LOST: u16 = 1;
const CLEARED: u16 = 2;
/// AppendEntriesReply.
const CONFLICT: u16 = 1;
/// ReadIndexReply.
const HAS_INDEX: u16 = 1;
/// Propose.
const EXPECT_EMPTY: u16 = 1;
const EXPECT_LAST: u16 = 2;
const EXPECT_TERM: u16 = 4;
const OPENS_SESSION: u16 = 8;
/// Compared.
const HAS_DIGEST: u16 = 1;
const IS_ANSWER: u16 = 2;
/// Resync.
const OFFERS: u16 = 1;

/// How the hashes of a comparison are made; those of another making are not compared.
const HASHES: u64 = 1;

/// What became of a proposal, as a number.
const ASSIGNED: u64 = 1;
const NOT_LEADER: u64 = 2;
const OVERLOADED: u64 = 3;
const DISK_FULL: u64 = 4;
const MISMATCH: u64 = 5;
const HOLDS: u64 = 6;
const TOO_LARGE: u64 = 7;
const SESSION_EXPIRED: u64 = 8;
const SESSION_STALE: u64 = 9;

/// The most words a body of format 1 has.
const WORDS_MAX: usize = 13;

/// The flags of a kind of message that this version understands; `None` if it does not know the kind.
pub(super) fn known_flags(kind: u16) -> Option<u16> {
    Some(match kind {
        REQUEST_VOTE => PRE_VOTE | TRANSFER,
        REQUEST_VOTE_REPLY => PRE_VOTE | GRANTED,
        APPEND_ENTRIES_REPLY => CONFLICT,
        READ_INDEX_REPLY => HAS_INDEX,
        PROPOSE => EXPECT_EMPTY | EXPECT_LAST | EXPECT_TERM | OPENS_SESSION,
        APPEND_ENTRIES => LOST | CLEARED,
        READ_INDEX | INSTALL_SNAPSHOT | PROPOSE_REPLY => 0,
        SNAPSHOT_REQUEST | SNAPSHOT_CHUNK => 0,
        COMPARED => HAS_DIGEST | IS_ANSWER,
        RESYNC => OFFERS,
        _ => return None,
    })
}

/// A message without its data, ready to be written.
pub(super) struct Body {
    pub(super) kind: u16,
    pub(super) flags: u16,
    words: [u64; WORDS_MAX],
    len: usize,
}

impl Body {
    pub(super) fn of(message: &PeerMessage) -> Self {
        match message {
            PeerMessage::Raft(message) => Self::of_raft(message),
            PeerMessage::Propose(propose) => Self::of_propose(propose),
            PeerMessage::ProposeReply(reply) => Self::of_propose_reply(reply),
            PeerMessage::SnapshotRequest(request) => Self::of_request(request),
            PeerMessage::SnapshotChunk(chunk) => Self::of_chunk(chunk),
            PeerMessage::Compared(compared) => Self::of_compared(compared),
            PeerMessage::Resync(resync) => Self::of_resync(resync),
        }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words[..self.len]
    }

    fn new<const N: usize>(kind: u16, flags: u16, row: [u64; N]) -> Self {
        let mut words = [0; WORDS_MAX];
        words[..N].copy_from_slice(&row);
        Self {
            kind,
            flags,
            words,
            len: N,
        }
    }

    fn of_request(request: &SnapshotRequest) -> Self {
        let row = [
            request.last.term.0,
            request.last.index.0,
            request.offset,
            request.header.into(),
            request.bytes_max.into(),
        ];
        Self::new(SNAPSHOT_REQUEST, 0, row)
    }

    fn of_chunk(chunk: &SnapshotChunk) -> Self {
        let row = [
            chunk.last.term.0,
            chunk.last.index.0,
            chunk.offset,
            chunk.total,
            crc32c::crc32c(&chunk.bytes).into(),
        ];
        Self::new(SNAPSHOT_CHUNK, 0, row)
    }

    fn of_compared(compared: &Compared) -> Self {
        let row = [
            HASHES,
            compared.index.0,
            compared.log_hash,
            compared.output_hash,
            compared.digest.unwrap_or_default(),
        ];
        let has = flag(compared.digest.is_some(), HAS_DIGEST);
        Self::new(COMPARED, has | flag(compared.is_answer, IS_ANSWER), row)
    }

    fn of_resync(resync: &Resync) -> Self {
        let offer = resync.offer.unwrap_or_default();
        let row = [resync.index.0, offer.term.0, offer.index.0];
        Self::new(RESYNC, flag(resync.offer.is_some(), OFFERS), row)
    }

    fn of_raft(message: &Message) -> Self {
        let term = message.term.0;
        match &message.call {
            Call::RequestVote { pre, transfer, last } => Self::new(
                REQUEST_VOTE,
                flag(*pre, PRE_VOTE) | flag(*transfer, TRANSFER),
                [term, last.term.0, last.index.0],
            ),
            Call::RequestVoteReply {
                pre,
                granted,
                suspect,
            } => Self::new(
                REQUEST_VOTE_REPLY,
                flag(*pre, PRE_VOTE) | flag(*granted, GRANTED),
                [term, suspect.0],
            ),
            Call::AppendEntries {
                prev,
                commit,
                round,
                standing,
                ..
            } => Self::of_append(term, *prev, [commit.0, round.0], standing),
            Call::AppendEntriesReply {
                round,
                persisted,
                received,
                conflict,
                suspect,
            } => Self::of_append_reply(term, [round.0, persisted.0, received.0], *conflict, *suspect),
            Call::InstallSnapshot { last, position } => {
                Self::new(INSTALL_SNAPSHOT, 0, [term, last.term.0, last.index.0, position.0])
            }
            Call::ReadIndex { id } => Self::new(READ_INDEX, 0, [term, id.0]),
            Call::ReadIndexReply { id, index } => Self::new(
                READ_INDEX_REPLY,
                flag(index.is_some(), HAS_INDEX),
                [term, id.0, index.unwrap_or_default().0],
            ),
        }
    }

    fn of_append(term: u64, prev: LogId, [commit, round]: [u64; 2], standing: &Standing) -> Self {
        let (flags, record) = match standing.verdict {
            Verdict::None => (0, Index::ZERO),
            Verdict::Lost => (LOST, Index::ZERO),
            Verdict::Cleared(record) => (CLEARED, record),
        };
        let (matched, mark) = (standing.matched.0, standing.mark.0);
        let row = [
            term,
            prev.term.0,
            prev.index.0,
            commit,
            round,
            matched,
            mark,
            record.0,
        ];
        Self::new(APPEND_ENTRIES, flags, row)
    }

    fn of_append_reply(
        term: u64,
        [round, persisted, received]: [u64; 3],
        conflict: Option<Conflict>,
        suspect: SuspectMark,
    ) -> Self {
        let (prev, hint) = conflict.map_or((Index::ZERO, LogId::ZERO), |c| (c.prev, c.hint));
        let row = [
            term,
            round,
            persisted,
            received,
            prev.0,
            hint.term.0,
            hint.index.0,
            suspect.0,
        ];
        Self::new(APPEND_ENTRIES_REPLY, flag(conflict.is_some(), CONFLICT), row)
    }

    fn of_propose(propose: &Propose) -> Self {
        let (flags, position, term) = match propose.expect {
            Expect::Any => (0, 0, 0),
            Expect::Empty => (EXPECT_EMPTY, 0, 0),
            Expect::Last { position, term } => (
                EXPECT_LAST | flag(term.is_some(), EXPECT_TERM),
                position.0,
                term.unwrap_or_default().0,
            ),
        };
        let (opens, of) = match propose.session {
            Session::None => (false, InSession::default()),
            Session::Open => (true, InSession::default()),
            Session::In(of) => (false, of),
        };
        let payload = &propose.payload;
        let row = [
            propose.origin,
            propose.number,
            propose.settled,
            propose.term.0,
            position,
            term,
            payload.count.into(),
            payload.crc.into(),
            payload.codec as u64,
            payload.schema.into(),
            of.session,
            of.sequence,
            of.settled,
        ];
        Self::new(PROPOSE, flags | flag(opens, OPENS_SESSION), row)
    }

    fn of_propose_reply(reply: &ProposeReply) -> Self {
        let [code, a, b, c] = match reply.answer {
            ProposeAnswer::Assigned { at, first } => [ASSIGNED, at.term.0, at.index.0, first.0],
            ProposeAnswer::Refused(refusal) => match refusal {
                Refusal::NotLeader { leader } => [NOT_LEADER, leader.unwrap_or_default().0, 0, 0],
                Refusal::Overloaded => [OVERLOADED, 0, 0, 0],
                Refusal::DiskFull { node } => [DISK_FULL, node.0, 0, 0],
                Refusal::Mismatch { last, term } => [MISMATCH, last.0, term.0, 0],
                Refusal::Holds { last, term } => [HOLDS, last.0, term.0, 0],
                Refusal::TooLarge { bytes_max } => [TOO_LARGE, bytes_max, 0, 0],
                Refusal::SessionExpired => [SESSION_EXPIRED, 0, 0, 0],
                Refusal::SessionStale => [SESSION_STALE, 0, 0, 0],
            },
        };
        Self::new(PROPOSE_REPLY, 0, [reply.origin, reply.number, code, a, b, c])
    }
}

/// Appends what follows the body: records or entries, as they stand in memory.
pub(super) fn encode_data(cluster: ClusterId, packet: &Packet, out: &mut Vec<Bytes>) {
    match &packet.message {
        PeerMessage::Raft(Message {
            call: Call::AppendEntries { runs, .. },
            ..
        }) => {
            for run in runs {
                record::encode_run(cluster, packet.group, run, out);
            }
        }
        PeerMessage::Propose(propose) if !propose.payload.bytes.is_empty() => {
            out.push(propose.payload.bytes.clone());
        }
        PeerMessage::SnapshotChunk(chunk) if !chunk.bytes.is_empty() => out.push(chunk.bytes.clone()),
        _ => {}
    }
}

/// The message of a packet whose header is sound and whose kind is known.
pub(super) fn decode(
    cluster: ClusterId,
    header: &Header,
    packet: &Bytes,
) -> Result<PeerMessage, DecodeError> {
    let mut words = Words {
        kind: header.kind,
        left: &packet[header.body_from..header.data_from],
    };
    let data = packet.slice(header.data_from..);
    match header.kind {
        PROPOSE => decode_propose(header, &mut words, data).map(PeerMessage::Propose),
        APPEND_ENTRIES => decode_append_entries(cluster, header, &mut words, data),
        SNAPSHOT_CHUNK => decode_chunk(&mut words, data).map(PeerMessage::SnapshotChunk),
        kind if !data.is_empty() => Err(DecodeError::Field { kind, field: "data" }),
        PROPOSE_REPLY => decode_propose_reply(&mut words).map(PeerMessage::ProposeReply),
        SNAPSHOT_REQUEST => Ok(PeerMessage::SnapshotRequest(SnapshotRequest {
            last: words.log_id("last")?,
            offset: words.next("offset")?,
            header: words.small("header")?,
            bytes_max: words.small("bytes_max")?,
        })),
        COMPARED => decode_compared(header.flags, &mut words).map(PeerMessage::Compared),
        RESYNC => Ok(PeerMessage::Resync(Resync {
            index: Index(words.next("index")?),
            offer: Some(words.log_id("offer")?).filter(|_| header.flags & OFFERS != 0),
        })),
        _ => decode_small_call(header, &mut words),
    }
}

fn decode_append_entries(
    cluster: ClusterId,
    header: &Header,
    words: &mut Words<'_>,
    data: Bytes,
) -> Result<PeerMessage, DecodeError> {
    let term = Term(words.next("term")?);
    let prev = words.log_id("prev")?;
    let commit = Index(words.next("commit")?);
    let round = Round(words.next("round")?);
    let standing = decode_standing(header.flags, words)?;
    let runs = record::decode_runs(cluster, header.group, data)?;
    if !follow_each_other(prev.index, &runs) {
        return Err(words.impossible("runs"));
    }
    let call = Call::AppendEntries {
        prev,
        commit,
        round,
        standing,
        runs: runs.into(),
    };
    Ok(header.raft(term, call))
}

fn decode_standing(flags: u16, words: &mut Words<'_>) -> Result<Standing, DecodeError> {
    let matched = Index(words.next("matched")?);
    let mark = SuspectMark(words.next("mark")?);
    let record = Index(words.next("record")?);
    let verdict = match flags & (LOST | CLEARED) {
        0 => Verdict::None,
        LOST => Verdict::Lost,
        CLEARED => Verdict::Cleared(record),
        _ => return Err(words.impossible("verdict")),
    };
    Ok(Standing {
        matched,
        mark,
        verdict,
    })
}

/// A part of a snapshot; the CRC is of this part only, for the snapshot has its own.
fn decode_chunk(words: &mut Words<'_>, bytes: Bytes) -> Result<SnapshotChunk, DecodeError> {
    let last = words.log_id("last")?;
    let (offset, total) = (words.next("offset")?, words.next("total")?);
    if words.small("crc")? != crc32c::crc32c(&bytes) {
        return Err(words.impossible("crc"));
    }
    let end = offset.checked_add(bytes.len() as u64);
    if end.is_none_or(|end| end > total) {
        return Err(words.impossible("total"));
    }
    Ok(SnapshotChunk {
        last,
        offset,
        total,
        bytes,
    })
}

fn decode_compared(flags: u16, words: &mut Words<'_>) -> Result<Compared, DecodeError> {
    if words.next("hashes")? != HASHES {
        return Err(words.impossible("hashes"));
    }
    Ok(Compared {
        index: Index(words.next("index")?),
        log_hash: words.next("log_hash")?,
        output_hash: words.next("output_hash")?,
        digest: Some(words.next("digest")?).filter(|_| flags & HAS_DIGEST != 0),
        is_answer: flags & IS_ANSWER != 0,
    })
}

/// Whether the runs begin just behind `prev` and leave no gap.
fn follow_each_other(prev: Index, runs: &[Run]) -> bool {
    let mut last = prev;
    runs.iter().all(|run| {
        let follows = last.0.checked_add(1) == Some(run.first().0);
        last = run.last();
        follows
    })
}

/// Every call of Raft but AppendEntries.
fn decode_small_call(header: &Header, words: &mut Words<'_>) -> Result<PeerMessage, DecodeError> {
    let set = |flag: u16| header.flags & flag != 0;
    let term = Term(words.next("term")?);
    let call = match header.kind {
        REQUEST_VOTE => Call::RequestVote {
            pre: set(PRE_VOTE),
            transfer: set(TRANSFER),
            last: words.log_id("last")?,
        },
        REQUEST_VOTE_REPLY => Call::RequestVoteReply {
            pre: set(PRE_VOTE),
            granted: set(GRANTED),
            suspect: SuspectMark(words.next("suspect")?),
        },
        APPEND_ENTRIES_REPLY => Call::AppendEntriesReply {
            round: Round(words.next("round")?),
            persisted: Index(words.next("persisted")?),
            received: Index(words.next("received")?),
            conflict: Some(decode_conflict(words)?).filter(|_| set(CONFLICT)),
            suspect: SuspectMark(words.next("suspect")?),
        },
        INSTALL_SNAPSHOT => Call::InstallSnapshot {
            last: words.log_id("last")?,
            position: Position(words.next("position")?),
        },
        READ_INDEX => Call::ReadIndex {
            id: ReadId(words.next("id")?),
        },
        READ_INDEX_REPLY => Call::ReadIndexReply {
            id: ReadId(words.next("id")?),
            index: Some(Index(words.next("index")?)).filter(|_| set(HAS_INDEX)),
        },
        kind => return Err(DecodeError::Kind(kind)),
    };
    Ok(header.raft(term, call))
}

fn decode_conflict(words: &mut Words<'_>) -> Result<Conflict, DecodeError> {
    let prev = Index(words.next("conflict.prev")?);
    let hint = words.log_id("conflict.hint")?;
    Ok(Conflict { prev, hint })
}

fn decode_propose(header: &Header, words: &mut Words<'_>, bytes: Bytes) -> Result<Propose, DecodeError> {
    Ok(Propose {
        origin: words.next("origin")?,
        number: words.next("number")?,
        settled: words.next("settled")?,
        term: Term(words.next("term")?),
        expect: decode_expect(header.flags, words)?,
        payload: decode_payload(words, bytes)?,
        session: decode_session(header.flags, words)?,
    })
}

fn decode_session(flags: u16, words: &mut Words<'_>) -> Result<Session, DecodeError> {
    let of = InSession {
        session: words.next("session")?,
        sequence: words.next("sequence")?,
        settled: words.next("sequence.settled")?,
    };
    match (flags & OPENS_SESSION != 0, of) {
        (true, _) => Ok(Session::Open),
        (false, InSession { session: 0, .. }) => Ok(Session::None),
        (false, of) if of.is_sound() => Ok(Session::In(of)),
        _ => Err(words.impossible("sequence")),
    }
}

fn decode_expect(flags: u16, words: &mut Words<'_>) -> Result<Expect, DecodeError> {
    let position = Position(words.next("expect.position")?);
    let term = Term(words.next("expect.term")?);
    match flags & (EXPECT_EMPTY | EXPECT_LAST | EXPECT_TERM) {
        0 => Ok(Expect::Any),
        EXPECT_EMPTY => Ok(Expect::Empty),
        EXPECT_LAST => Ok(Expect::Last { position, term: None }),
        with_term if with_term == EXPECT_LAST | EXPECT_TERM => Ok(Expect::Last {
            position,
            term: Some(term),
        }),
        _ => Err(words.impossible("expect")),
    }
}

/// The entries of a proposal; what arrives damaged must not be taken into the log.
fn decode_payload(words: &mut Words<'_>, bytes: Bytes) -> Result<Payload, DecodeError> {
    let count = words.small("count")?;
    let crc = words.small("crc")?;
    let number = u8::try_from(words.next("codec")?).ok();
    let codec = number.and_then(Codec::of).ok_or(words.impossible("codec"))?;
    let schema = words.small("schema")?;
    if crc32c::crc32c(&bytes) != crc {
        return Err(words.impossible("crc"));
    }
    if record::entries_in(&bytes, count).is_none() {
        return Err(words.impossible("count"));
    }
    Ok(Payload {
        bytes,
        count,
        crc,
        codec,
        schema,
    })
}

fn decode_propose_reply(words: &mut Words<'_>) -> Result<ProposeReply, DecodeError> {
    let (origin, number) = (words.next("origin")?, words.next("number")?);
    let code = words.next("answer")?;
    let [a, b, c] = [words.next("a")?, words.next("b")?, words.next("c")?];
    let (last, term) = (Position(a), Term(b));
    let refusal = match code {
        ASSIGNED => {
            let at = LogId::new(Term(a), Index(b));
            let first = Position(c);
            let answer = ProposeAnswer::Assigned { at, first };
            return Ok(ProposeReply {
                origin,
                number,
                answer,
            });
        }
        NOT_LEADER => Refusal::NotLeader {
            leader: Some(NodeId(a)).filter(|n| *n != NodeId::ZERO),
        },
        OVERLOADED => Refusal::Overloaded,
        DISK_FULL => Refusal::DiskFull { node: NodeId(a) },
        MISMATCH => Refusal::Mismatch { last, term },
        HOLDS => Refusal::Holds { last, term },
        TOO_LARGE => Refusal::TooLarge { bytes_max: a },
        SESSION_EXPIRED => Refusal::SessionExpired,
        SESSION_STALE => Refusal::SessionStale,
        _ => return Err(words.impossible("answer")),
    };
    let answer = ProposeAnswer::Refused(refusal);
    Ok(ProposeReply {
        origin,
        number,
        answer,
    })
}

fn flag(set: bool, flag: u16) -> u16 {
    if set { flag } else { 0 }
}
