//! A buffer that direct IO accepts: its first byte lies on a page boundary.
//! Not a pool.

use blocks::BLOCK_SIZE;

/// Covers the logical block size of every disk in use.
const ALIGNMENT: usize = 4096;

/// A fixed number of blocks in memory, aligned for direct IO.
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// Room for `blocks` blocks, zeroed.
    pub fn new(blocks: u64) -> Self {
        let len = usize::try_from(blocks).expect("a buffer fits in memory") * BLOCK_SIZE;
        let memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start, len }
    }

    /// How many blocks it holds.
    pub fn blocks(&self) -> u64 {
        (self.len / BLOCK_SIZE) as u64
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// All its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_on_a_page_boundary() {
        for blocks in 1..20 {
            let buf = AlignedBuf::new(blocks);
            assert_eq!(buf.bytes().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buf.bytes().len(), blocks as usize * BLOCK_SIZE);
            assert_eq!(buf.blocks(), blocks);
        }
    }
}
