//! Numbers and texts at offsets of a block that was read from a disk; none where the block
//! is too short.
//!
//! Not here: what is at which offset.

/// A block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn slice(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }

    /// Whether this is what is there.
    pub(crate) fn has(self, at: usize, what: &[u8]) -> bool {
        self.slice(at, what.len()) == Some(what)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    pub(crate) fn le16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(crate) fn le32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn le64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// A text that ends at a zero, without spaces around it.
    pub(crate) fn text(self, at: usize, length: usize) -> Option<String> {
        let bytes = self.slice(at, length)?;
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(bytes).trim().to_owned())
    }

    /// A UUID in the order of its bytes; empty where all are zero.
    pub(crate) fn uuid(self, at: usize) -> Option<String> {
        self.array(at).map(uuid)
    }

    /// A GUID, whose first three parts are little-endian.
    pub(crate) fn guid(self, at: usize) -> Option<String> {
        let mut bytes: [u8; 16] = self.array(at)?;
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Some(uuid(bytes))
    }
}

pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
