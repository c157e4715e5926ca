//! Ending a migration: its plan, and those of its grants that this node may revoke.
//!
//! Not here: removing what was made for it (`roles::provisioner`), and which grants are
//! left (`views`).

use super::checkpoints::refuse_if_copied;
use super::{CallError, Engine};
use crate::api::model::{MigrationDelete, MigrationView};
use crate::views::find_migration;
use crdt::Desired;
use keys::{Revocation, Statement};

impl Engine {
    /// Ends a migration: unless it was cut over its target volumes and all state are
    /// removed. Grants of other operators are theirs, or the root key's, to revoke; they
    /// stay, and move nothing for a plan that is deleted. Refused while there is a copy of a
    /// checkpoint that a server may run on. Asked again, it revokes what it
    /// may by then.
    pub fn migration_delete(
        &mut self,
        wanted: &str,
        asked: &MigrationDelete,
    ) -> Result<MigrationView, CallError> {
        self.require_operator()?;
        let root = self.lent_root(asked.root_key.as_ref())?;
        let plan = find_migration(self.replica.document().plan(), wanted)?.clone();
        // First, so that both ends end for this reason and not for a grant that is gone.
        if plan.desired != Desired::Deleted {
            refuse_if_copied("delete", &plan, |_| true)?;
            let id = plan.id;
            self.edit(move |edit| edit.set_desired(id, Desired::Deleted))?;
        }
        for grant in &plan.grants {
            let state = self.replica.authority().grant(grant);
            if state.is_none_or(|state| state.revoked) {
                continue;
            }
            let revocation = Statement::Revocation(Revocation {
                target: *grant,
                honours: None,
                reason: "migration deleted".into(),
            });
            match self.state_lent(revocation, root.as_ref()) {
                Ok(_) | Err(CallError::NotAuthorised(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.view(&plan.id)
    }
}
