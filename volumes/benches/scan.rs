//! What finding changes costs, beside hashing the same bytes and nothing else.
//! Not here: reading them, from wherever they are.

use std::hint::black_box;

use blocks::{BLOCK_SIZE, BlockIndex, Geometry, Leaf, ZERO_ENTRY, leaf};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use volumes::{READ_BLOCKS, find_changed};

/// Blocks in one span, as a scan hands them out.
const SPAN: usize = READ_BLOCKS as usize;

/// Blocks gone through in one iteration: 64 MiB, more than caches hold.
const BLOCKS: usize = 1024;

fn finding_changes(c: &mut Criterion) {
    let geometry = Geometry::new((BLOCKS * BLOCK_SIZE) as u64).expect("64 MiB are a volume");
    let data: Vec<u8> = (0..BLOCKS * BLOCK_SIZE)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1)
        .collect();
    let zeros = vec![0; data.len()];
    let known: Vec<Leaf> = (0..)
        .zip(data.chunks(BLOCK_SIZE))
        .map(|(block, data)| leaf(geometry, BlockIndex(block), data))
        .collect();
    let fresh = vec![ZERO_ENTRY; BLOCKS];
    let find = |entries: &[Leaf], bytes: &[u8]| {
        let spans = entries.chunks(SPAN).zip(bytes.chunks(SPAN * BLOCK_SIZE));
        for (first, (entries, bytes)) in (0..).step_by(SPAN).zip(spans) {
            let (entries, bytes) = (black_box(entries), black_box(bytes));
            black_box(find_changed(geometry, BlockIndex(first), entries, bytes));
        }
    };

    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("hash alone, in one", |b| {
        b.iter(|| {
            *blake3::Hasher::new()
                .update(black_box(&data))
                .finalize()
                .as_bytes()
        });
    });
    group.bench_function("hash alone, span by span", |b| {
        b.iter(|| {
            let mut hasher = blake3::Hasher::new();
            for span in data.chunks(SPAN * BLOCK_SIZE) {
                hasher.update(black_box(span));
            }
            *hasher.finalize().as_bytes()
        });
    });
    group.bench_function("nothing changed", |b| b.iter(|| find(&known, &data)));
    group.bench_function("all of it fresh", |b| b.iter(|| find(&fresh, &data)));
    group.bench_function("all of it zero", |b| b.iter(|| find(&fresh, &zeros)));
    group.finish();
}

criterion_group!(benches, finding_changes);
criterion_main!(benches);
