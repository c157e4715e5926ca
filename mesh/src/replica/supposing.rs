//! What would count if a statement were made: for a look before it is.
//!
//! Nothing is kept, stored or sent.

use super::Replica;
use super::local::{StateError, append};
use crdt::Document;
use keys::{Authority, Identity, Statement, UnixSecs};

/// Authority and document as they would be.
#[derive(Debug)]
pub struct Supposed {
    /// The authority.
    pub authority: Authority,
    /// The document, with those edits of this node made again that it would make again.
    pub document: Document,
}

impl Replica {
    /// What would count if this operator made `statement`, with the root key that is lent
    /// where only that may state it. Edits that others would make again count as lost.
    ///
    /// # Errors
    /// When it could not be made.
    pub fn suppose(
        &self,
        lent: Option<&Identity>,
        wall: UnixSecs,
        statement: Statement,
    ) -> Result<Supposed, StateError> {
        let signer = match lent.filter(|_| self.root_alone_states(&statement)) {
            Some(root) if self.authority.is_root(&root.public()) => root.clone(),
            Some(_) => return Err(StateError::AnotherRoot),
            None => self.signer_of(wall, &statement)?,
        };
        let mut ledger = self.ledger.clone();
        append(&mut ledger, &signer, wall, statement)?;
        let mut authority = keys::authority::authority(&ledger);
        let members = self.authority.members().map(|member| member.key);
        authority.note_cloned(members.filter(|key| self.authority.is_cloned(key)));
        let mut document = self.document.clone();
        let mut orphans = document.rebuild(&authority);
        orphans.retain(|orphan| orphan.author == self.my_key());
        // Who may not edit any more makes nothing again.
        let _ = document.edit_again(&self.identity, wall, &authority, &orphans);
        Ok(Supposed {
            authority,
            document,
        })
    }
}
