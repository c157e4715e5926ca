//! Chance that depends on its seed only: splitmix64 (Steele, Lea, Flood: Fast
//! Splittable Pseudorandom Number Generators, 2014).
//!
//! Nothing in the world may draw from anything else.

/// What a stream of chance is for. Each has numbers of its own, so that what is left
/// out of one does not change another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Nodes, migrations and wishes of a drawn scenario.
    Scenario = 1,
    /// Its faults.
    Faults,
    /// Keys, by participant.
    Keys,
    /// Ids of migrations and volumes, by their places in the scenario.
    Ids,
    /// What volumes hold, by their places.
    Volumes,
    /// Who is a neighbour of whom.
    Edges,
    /// When people look.
    People,
    /// What writes to the sources.
    Writes,
    /// One message or frame, by its ends and its number between them.
    Messages,
    /// What a loss of power leaves, by node and life.
    Deaths,
    /// A node's own pace and nonces.
    Nodes,
    /// One call to the cloud, by its number.
    Calls,
    /// A run of a machine and its clock, by node and life.
    Boots,
    /// What a drawn scenario asks of operators beside the first.
    Operators,
    /// Which folder of a drawn scenario runs twice.
    Twice,
    /// Which of two participants with one key is reached, by who speaks and the time.
    Ways,
}

/// A stream of numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of the streams of a seed; `which` tells it from others for the same purpose.
    pub fn of(seed: u64, stream: Stream, which: &[u64]) -> Self {
        let mut rng = Self::new(seed ^ (stream as u64).rotate_right(8));
        for number in which {
            rng.0 = rng.number() ^ number;
        }
        // Neighbours among seeds must have nothing to do with each other.
        Self(rng.number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// A number from `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// An index of a list of `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }

    /// True `per_mille` times of a thousand.
    pub fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// Bytes for keys, nonces and ids.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        bytes
    }
}
