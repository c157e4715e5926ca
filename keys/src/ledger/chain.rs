//! What a statement rests on, in an order in which another ledger takes it: what
//! joiners, tickets and introductions carry.
//!
//! Not here: whether any of it counts (`authority`).

use super::Ledger;
use crate::id::{PublicKey, StatementId};
use crate::signed::Signed;
use crate::statement::{Admission, Statement};
use std::collections::BTreeSet;

impl Ledger {
    /// Genesis first, then `wanted` and all that they rest on, each after what it
    /// needs. None if that is more than `limit` statements.
    pub fn chain(
        &self,
        wanted: impl IntoIterator<Item = StatementId>,
        limit: usize,
    ) -> Option<Vec<Signed>> {
        let mut order = vec![];
        let mut seen = BTreeSet::new();
        let genesis = StatementId(self.mesh.0);
        // Depth first; a statement is written down when all below it are.
        let mut stack: Vec<(StatementId, bool)> = vec![];
        for id in [genesis].into_iter().chain(wanted) {
            stack.push((id, false));
            while let Some((id, below_done)) = stack.pop() {
                if below_done {
                    order.push(id);
                    continue;
                }
                if !self.entries.contains_key(&id) || !seen.insert(id) {
                    continue;
                }
                if seen.len() > limit {
                    return None;
                }
                stack.push((id, true));
                stack.extend(self.rests_on(&id).into_iter().map(|id| (id, false)));
            }
        }
        let found = order.iter().filter_map(|id| self.entries.get(id));
        Some(found.map(|recorded| recorded.signed.clone()).collect())
    }

    /// The statements that made this key a node's: what introduces it to a stranger.
    pub fn origins(&self, key: &PublicKey) -> impl Iterator<Item = StatementId> + '_ {
        self.origins.get(key).into_iter().flatten().copied()
    }

    /// What must be here before this one is taken, but for the genesis.
    fn rests_on(&self, id: &StatementId) -> Vec<StatementId> {
        let Some(recorded) = self.entries.get(id) else {
            return vec![];
        };
        let mut needs: Vec<StatementId> = self.origins(&recorded.signed.signer).collect();
        if let Statement::Enrolment(stated) = &recorded.entry.statement
            && let Admission::Invited { invite, .. } = &stated.admission
        {
            needs.push(*invite);
        }
        needs
    }
}
