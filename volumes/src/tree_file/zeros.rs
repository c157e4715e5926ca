//! Nodes of groups of zeros, computed on all cores: each place has its own, so
//! there is no shortcut but more cores. Nothing is stored here.

use std::num::NonZero;
use std::thread;

use blocks::{Geometry, GroupIndex, Node, zero_group_node};

/// More threads than this gain little beside the copying itself.
const MAX_THREADS: usize = 8;

/// Fewer groups than this are not worth a thread of their own.
const GROUPS_A_THREAD: usize = 4;

/// The node of each of these groups, all bytes being zero.
pub(super) fn nodes(geometry: Geometry, groups: &[u64]) -> Vec<(u64, Node)> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores
        .min(MAX_THREADS)
        .min(groups.len() / GROUPS_A_THREAD)
        .max(1);
    let share = groups.len().div_ceil(threads).max(1);
    let compute = |groups: &[u64]| -> Vec<(u64, Node)> {
        let node = |group: &u64| (*group, zero_group_node(geometry, GroupIndex(*group)));
        groups.iter().map(node).collect()
    };
    if threads == 1 {
        return compute(groups);
    }
    thread::scope(|scope| {
        let running: Vec<_> = groups
            .chunks(share)
            .map(|share| scope.spawn(move || compute(share)))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("hashing zeros does not panic"))
            .collect()
    })
}
