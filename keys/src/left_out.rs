//! Bytes of a volume that are left out of its copy: at the source they are not read, in the
//! copy and under its root they are zeros.
//!
//! Not here: which ones and why, which is the agent's matter.

use serde::{Deserialize, Serialize};

/// Most extents that a statement lists.
pub const MAX_LEFT_OUT: usize = 16;

/// Offsets and lengths in bytes: sorted, none empty, none touching another, at most
/// [`MAX_LEFT_OUT`]. Only such can be made or decoded, so that one thing is said in one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct LeftOut(Vec<(u64, u64)>);

/// Extents that cannot be left out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "extents that are left out are at most {MAX_LEFT_OUT}, sorted, and do not touch each other"
)]
pub struct BadLeftOut;

impl LeftOut {
    /// Takes extents (offset, length) that are as the type says.
    ///
    /// # Errors
    /// Where they are not.
    pub fn new(extents: Vec<(u64, u64)>) -> Result<Self, BadLeftOut> {
        let mut end = None;
        for &(offset, length) in &extents {
            let is_apart = end.is_none_or(|end| offset > end);
            let next = offset.checked_add(length);
            end = next.filter(|_| length > 0 && is_apart);
            if end.is_none() {
                return Err(BadLeftOut);
            }
        }
        match extents.len() <= MAX_LEFT_OUT {
            true => Ok(Self(extents)),
            false => Err(BadLeftOut),
        }
    }

    /// Offsets and lengths, in bytes.
    pub fn extents(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, length)| length).sum()
    }

    /// Whether all of it lies within a volume of so many bytes.
    pub fn is_within(&self, length: u64) -> bool {
        let last = self.0.last();
        last.is_none_or(|(offset, of)| offset + of <= length)
    }
}

impl TryFrom<Vec<(u64, u64)>> for LeftOut {
    type Error = BadLeftOut;
    fn try_from(extents: Vec<(u64, u64)>) -> Result<Self, BadLeftOut> {
        Self::new(extents)
    }
}

impl From<LeftOut> for Vec<(u64, u64)> {
    fn from(left_out: LeftOut) -> Self {
        left_out.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_left_out_is_said_in_one_way_only() {
        let good = LeftOut::new(vec![(0, 10), (11, 5)]).unwrap();
        assert_eq!(good.bytes(), 15);
        assert!(good.is_within(16) && !good.is_within(15));
        for bad in [
            vec![(0, 0)],
            vec![(0, 10), (10, 5)],
            vec![(11, 5), (0, 10)],
            vec![(0, 10), (5, 20)],
            vec![(1, u64::MAX)],
            (0..17).map(|at| (at * 10, 5)).collect(),
        ] {
            assert_eq!(LeftOut::new(bad.clone()), Err(BadLeftOut), "{bad:?}");
        }
    }
}
