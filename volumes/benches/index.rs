//! What the fingerprint index costs for each block, in a file that the page
//! cache holds. Not here: a disk that has to be read first.

use std::sync::atomic::{AtomicU64, Ordering};

use blocks::BlockIndex;
use criterion::{Criterion, criterion_group, criterion_main};
use volumes::{FingerprintIndex, VolumeTag};

/// Remembers 64 GiB of blocks.
const BYTES: u64 = 16 << 20;

/// Fingerprints that are all over the range, as hashes are.
fn fingerprint(of: u64) -> u64 {
    of.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn indexing(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("index");
    let index = FingerprintIndex::open(&path, BYTES).expect("an index can be made there");
    let volume = VolumeTag([1; 16]);
    let next = AtomicU64::new(0);
    let insert = |of: u64| {
        index
            .insert(fingerprint(of), volume, BlockIndex(of % (1 << 30)))
            .expect("there is room for the index");
    };
    let mut group = c.benchmark_group("index");
    // So many that every bucket is full, which is the dearest.
    (0..2 * BYTES / 16).for_each(|_| insert(next.fetch_add(1, Ordering::Relaxed)));
    group.bench_function("insert into full buckets", |b| {
        b.iter(|| insert(next.fetch_add(1, Ordering::Relaxed)));
    });
    group.bench_function("insert what is there", |b| {
        b.iter(|| insert(next.load(Ordering::Relaxed) - 1));
    });
    let look_up = |of: u64| {
        index
            .look_up(fingerprint(of))
            .expect("the index can be read")
    };
    group.bench_function("look up and find", |b| {
        let mut of = next.load(Ordering::Relaxed) - 10_000;
        b.iter(|| {
            of += 1;
            look_up(of)
        });
    });
    group.bench_function("look up and miss", |b| {
        let mut of = 1 << 40;
        b.iter(|| {
            of += 1;
            look_up(of)
        });
    });
    group.finish();
}

criterion_group!(benches, indexing);
criterion_main!(benches);
