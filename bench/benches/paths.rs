//! Times of the paths whose instructions `kontiki-bench counts` counts, and of a message's way into bytes and out of them.
//!
//! `cargo bench --manifest-path bench/Cargo.toml`; criterion compares with the run before.

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kontiki_consensus::{Call, Index, LogId, Message, NodeId, Round, Term};
use kontiki_wire::{Packet, PeerMessage, StartId, codec};
use paths::{CLUSTER, GROUP, encoded, scanned, sealed};
use std::hint::black_box;

#[path = "../src/paths.rs"]
mod paths;

/// Bytes of an entry, entries at once.
const CASES: [(usize, usize); 4] = [(16, 1), (256, 1), (256, 64), (256, 1024)];

fn packet(len: usize, records: usize) -> Packet {
    let call = Call::AppendEntries {
        prev: LogId::ZERO,
        commit: Index::ZERO,
        round: Round::ZERO,
        standing: kontiki_consensus::Standing::default(),
        runs: [encoded(len, records).expect("it fits")].into_iter().collect(),
    };
    let (from, to) = (NodeId(1), NodeId(2));
    Packet {
        group: GROUP,
        from,
        start: StartId(1),
        to,
        message: PeerMessage::Raft(Message {
            from,
            to,
            term: Term(1),
            call,
        }),
    }
}

fn sent(packet: &Packet) -> Bytes {
    let mut chunks = Vec::new();
    codec::encode(CLUSTER, packet, &mut chunks);
    let mut bytes = BytesMut::new();
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes.freeze()
}

fn all(criterion: &mut Criterion) {
    for (len, records) in CASES {
        let name = |path: &str| BenchmarkId::new(path, format!("{len}B-{records}"));
        let mut group = criterion.benchmark_group("paths");
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(name("encode"), |b| b.iter(|| encoded(black_box(len), records)));
        let bytes = sealed(len, records).expect("it fits");
        group.bench_function(name("scan"), |b| b.iter(|| scanned(black_box(&bytes))));
        let packet = packet(len, records);
        group.bench_function(name("send"), |b| b.iter(|| sent(black_box(&packet))));
        let bytes = sent(&packet);
        group.bench_function(name("receive"), |b| {
            b.iter(|| codec::decode(CLUSTER, black_box(&bytes).clone()))
        });
        group.finish();
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
