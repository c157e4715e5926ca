//! What of its volumes a migration leaves out: nothing, unless people say so.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaveOut {
    /// The content of swap areas.
    Swap,
}

/// A text that names nothing that could be left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be left out: only `swap` can")]
pub struct BadLeaveOut(String);

impl fmt::Display for LeaveOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Swap => "swap",
        })
    }
}

impl FromStr for LeaveOut {
    type Err = BadLeaveOut;
    fn from_str(text: &str) -> Result<Self, BadLeaveOut> {
        match text {
            "swap" => Ok(Self::Swap),
            _ => Err(BadLeaveOut(text.chars().take(40).collect())),
        }
    }
}
