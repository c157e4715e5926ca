//! What is computed of the bytes of blocks, each beside BLAKE3 over the same bytes, and
//! of the tree above them. Not here: reading blocks, and storing the tree.

use std::hint::black_box;

use blocks::{
    BLOCK_SIZE, BlockIndex, GROUP_BLOCKS, Geometry, GroupIndex, Leaf, Mark, Node, ZERO_ENTRY,
    check_extent, fingerprint, group_mark, group_node, is_zero, leaf, piece_hashes, root,
    tree_mark,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Blocks of one extent.
const RUN: usize = 16;
const TIB: u64 = 1 << 40;

fn geometry() -> Geometry {
    Geometry::new(TIB).expect("a TiB is within the limit")
}

/// Bytes that are no zeros and never repeat within a block.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn leaves_of(run: &[u8]) -> Vec<Leaf> {
    let blocks = (0..).map(BlockIndex).zip(run.chunks(BLOCK_SIZE));
    blocks
        .map(|(block, data)| leaf(geometry(), block, data))
        .collect()
}

fn blocks(c: &mut Criterion) {
    let block = noise(BLOCK_SIZE);
    let zeros = vec![0; BLOCK_SIZE];
    let mut group = c.benchmark_group("block");
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    group.bench_function("blake3 alone", |b| {
        b.iter(|| blake3::Hasher::new().update(black_box(&block)).finalize());
    });
    group.bench_function("leaf", |b| {
        b.iter(|| leaf(geometry(), BlockIndex(77), black_box(&block)));
    });
    group.bench_function("fingerprint", |b| b.iter(|| fingerprint(black_box(&block))));
    group.bench_function("hashes of pieces", |b| {
        b.iter(|| piece_hashes(black_box(&block)))
    });
    group.bench_function("seen to be zeros", |b| {
        b.iter(|| is_zero(black_box(&zeros)))
    });
    group.bench_function("seen not to be zeros", |b| {
        b.iter(|| is_zero(black_box(&block)))
    });
    group.finish();
}

fn extents(c: &mut Criterion) {
    let run = noise(RUN * BLOCK_SIZE);
    let leaves = leaves_of(&run);
    let mut group = c.benchmark_group("extent of 1 MiB");
    group.throughput(Throughput::Bytes(run.len() as u64));
    group.bench_function("blake3 alone", |b| {
        b.iter(|| blake3::Hasher::new().update(black_box(&run)).finalize());
    });
    group.bench_function("check", |b| {
        b.iter(|| {
            let leaves = black_box(&leaves).clone();
            check_extent(geometry(), BlockIndex(0), leaves, black_box(&run))
        });
    });
    group.finish();
}

/// What one changed leaf costs above itself: the node of its group, and the root of all
/// nodes, which is computed once for a statement; and the same of marks.
fn tree(c: &mut Criterion) {
    let geometry = geometry();
    let entries: Vec<Leaf> = (0..GROUP_BLOCKS)
        .map(|at| Leaf([at as u8 | 1; 32]))
        .collect();
    let mut few = vec![ZERO_ENTRY; GROUP_BLOCKS as usize];
    few[100] = Leaf([1; 32]);
    let groups = geometry.groups();
    let nodes: Vec<Node> = (0..groups).map(|at| Node([at as u8; 32])).collect();
    let marks: Vec<Mark> = (0..groups).map(|at| Mark([at as u8; 32])).collect();
    let mut group = c.benchmark_group("tree of 1 TiB");
    group.bench_function("node of a group", |b| {
        b.iter(|| group_node(geometry, GroupIndex(5), black_box(&entries)));
    });
    group.bench_function("root of all nodes", |b| {
        b.iter(|| root(geometry, black_box(&nodes).iter().copied()));
    });
    group.bench_function("mark of a group", |b| {
        b.iter(|| group_mark(black_box(&entries)))
    });
    group.bench_function("mark of a group of nearly no data", |b| {
        b.iter(|| group_mark(black_box(&few)));
    });
    group.bench_function("mark of all groups", |b| {
        b.iter(|| tree_mark(geometry, black_box(&marks).iter().copied()));
    });
    group.finish();
}

criterion_group!(benches, blocks, extents, tree);
criterion_main!(benches);
