//! What an agent shows to open a stream: the grant itself, so that a stream may
//! start before the ledger has reached the replicator.
//!
//! Not a permission: the replicator takes the statements into its ledger, where
//! each is verified, and then checks its own authority.

use crate::JobId;
use codec::Wire;
use keys::{Epoch, Signed};
use serde::{Deserialize, Serialize};

/// Most statements in a ticket: the grant and the enrolments it names.
pub const MAX_STATEMENTS: usize = 64;

/// The opaque ticket in the first frame of a block stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What is to be sent.
    pub job: JobId,
    /// Fencing epoch, raised by the agent alone.
    pub epoch: Epoch,
    /// The grant that is claimed.
    pub grant: Signed,
    /// What the grant rests on, each after what it needs.
    pub support: Vec<Signed>,
}

impl Wire for Ticket {
    const NAME: &'static str = "ticket";
    const VERSION: u8 = 1;
    const LIMIT: usize = 32 * 1024;
}
