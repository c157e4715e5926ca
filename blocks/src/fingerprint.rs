//! What a block holds, by a number that does not depend on its place: XXH3 with
//! 64 bits of its bytes, as <https://xxhash.com> defines it, so that both ends
//! and all versions have the same.
//!
//! It is a hint and nothing more. It is not cryptographic: whoever writes blocks
//! can make two with one fingerprint. Whatever it leads to is checked against the
//! leaf expected at the new place before it is written.
//!
//! Not here: where a target keeps them.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// Stands for the content of a block, wherever it lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:016x})", self.0)
    }
}

/// The fingerprint of a block's bytes: about 2 µs for 64 KiB that come from
/// memory, a fifth of what its leaf costs.
pub fn fingerprint(block: &[u8]) -> Fingerprint {
    Fingerprint(XxHash3_64::oneshot(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_those_of_every_other_xxh3() {
        // By another implementation (the crate xxhash-rust 0.8.15).
        assert_eq!(fingerprint(b""), Fingerprint(0x2d06_8005_38d3_94c2));
        let block: Vec<u8> = (0..65536u32).map(|at| ((at * 7) >> 3) as u8).collect();
        assert_eq!(fingerprint(&block), Fingerprint(0x7b23_faf4_9ebe_e652));
        let short = &block[..10];
        assert_eq!(fingerprint(short), Fingerprint(0x577d_5500_4a70_e733));
    }
}
