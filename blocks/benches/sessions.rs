//! What a session does for each extent beside hashing it: frames, patches, and sets of
//! dirty blocks. Not here: bytes on a stream.

use std::hint::black_box;

use blocks::frame::PREFIX_LEN;
use blocks::{
    BLOCK_SIZE, BlockIndex, DirtySet, Encoding, Fingerprint, Geometry, GroupIndex, Leaf, Mark,
    Patch, PieceSet, ToSource, ToTarget, leaf,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Blocks of one extent.
const RUN: usize = 16;
const TIB: u64 = 1 << 40;

fn geometry() -> Geometry {
    Geometry::new(TIB).expect("a TiB is within the limit")
}

fn frames(c: &mut Criterion) {
    let extent = ToTarget::Extent {
        first: BlockIndex(77),
        encoding: Encoding::Raw,
        leaves: vec![Leaf([7; 32]); RUN],
        fingerprints: vec![Fingerprint(7); RUN],
    };
    let groups = ToSource::Groups {
        first: GroupIndex(0),
        marks: vec![Mark([7; 32]); 1024],
    };
    let payload = RUN * BLOCK_SIZE;
    let extent_bytes = extent.encode(payload).expect("it is within the limits");
    let groups_bytes = groups.encode().expect("it is within the limits");
    let mut group = c.benchmark_group("frame");
    group.bench_function("encode an extent of 16 blocks", |b| {
        b.iter(|| black_box(&extent).encode(payload));
    });
    group.bench_function("decode an extent of 16 blocks", |b| {
        b.iter(|| ToTarget::decode(black_box(&extent_bytes[PREFIX_LEN..]), payload));
    });
    group.bench_function("encode 1024 marks", |b| {
        b.iter(|| black_box(&groups).encode())
    });
    group.bench_function("decode 1024 marks", |b| {
        b.iter(|| ToSource::decode(black_box(&groups_bytes[PREFIX_LEN..]), 0));
    });
    group.finish();
}

/// One piece of each block of an extent: what is checked is all of it.
fn patches(c: &mut Criterion) {
    let old = vec![7; RUN * BLOCK_SIZE];
    let mut new = old.clone();
    let blocks = new.chunks_mut(BLOCK_SIZE);
    blocks.for_each(|block| block[5 * 4096] = 8);
    let blocks = (0..).map(BlockIndex).zip(new.chunks(BLOCK_SIZE));
    let leaves = blocks.map(|(block, data)| leaf(geometry(), block, data));
    let pieces = vec![PieceSet(1 << 5); RUN];
    let patch = Patch::new(geometry(), BlockIndex(0), leaves.collect(), pieces);
    let patch = patch.expect("it lies in the volume");
    let payload = patch.gather(&new);
    let mut group = c.benchmark_group("patch of a piece in each of 16 blocks");
    group.throughput(Throughput::Bytes(old.len() as u64));
    group.bench_function("gather", |b| b.iter(|| patch.gather(black_box(&new))));
    group.bench_function("apply and check", |b| {
        b.iter_batched_ref(
            || old.clone(),
            |old| patch.apply(black_box(&payload), old),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

/// A set in which each hundredth block of a TiB is dirty.
fn dirty() -> DirtySet {
    let mut dirty = DirtySet::new(geometry());
    for block in (0..geometry().blocks()).step_by(100) {
        dirty.mark(BlockIndex(block));
    }
    dirty
}

fn dirty_sets(c: &mut Criterion) {
    let few = dirty();
    let mut group = c.benchmark_group("dirty set of 1 TiB");
    group.bench_function("mark a write of 4 KiB", |b| {
        let mut dirty = DirtySet::new(geometry());
        let mut offset = 0_u64;
        b.iter(|| {
            // All over the disk.
            offset = offset.wrapping_add(TIB / 7 * 4096) % TIB;
            dirty.mark_range(black_box(offset), 4096);
        });
    });
    group.bench_function("take all runs of 1 %", |b| {
        b.iter_batched_ref(
            || few.clone(),
            |dirty| while black_box(dirty.take_next_run(16)).is_some() {},
            BatchSize::LargeInput,
        );
    });
    group.bench_function("merge 1 %", |b| {
        let mut all = DirtySet::new(geometry());
        b.iter(|| all.merge(black_box(&few)));
    });
    group.bench_function("mark all", |b| {
        let mut all = DirtySet::new(geometry());
        b.iter(|| all.mark_all());
    });
    group.finish();
}

criterion_group!(benches, frames, patches, dirty_sets);
criterion_main!(benches);
