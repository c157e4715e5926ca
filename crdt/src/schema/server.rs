//! How a planned server is read from the document.

use super::{Fields, NAME, SITE};
use crate::plan::{Problem, ServerPlan};
use keys::{PublicKey, ServerId};

pub(crate) const ADDRESS: &str = "address";
pub(crate) const WAVE: &str = "wave";
pub(crate) const NOTE: &str = "note";

impl Fields<'_> {
    pub(super) fn server(
        &mut self,
        id: ServerId,
        planned_by: PublicKey,
    ) -> Result<ServerPlan, Problem> {
        let server = ServerPlan {
            id,
            name: self.text(NAME)?,
            site: self.text(SITE)?,
            address: self.optional_text(ADDRESS)?,
            wave: self.optional_text(WAVE)?,
            note: self.optional_text(NOTE)?,
            planned_by,
            conflicts: std::mem::take(&mut self.conflicts),
        };
        match server.unsound() {
            None => Ok(server),
            Some(field) => Err(self.unreadable(field)),
        }
    }
}
