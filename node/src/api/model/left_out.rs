//! What is left out of a copy, as it is shown.

use keys::LeftOut;
use serde::{Deserialize, Serialize};

/// Bytes of a disk that its copy has zeros for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutView {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl LeftOutView {
    /// Each extent.
    pub fn all(left_out: &LeftOut) -> Vec<Self> {
        let extents = left_out.extents().iter();
        extents
            .map(|&(offset, length)| Self { offset, length })
            .collect()
    }
}
