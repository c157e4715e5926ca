//! The document's snapshot: stored now and then, so that the next start need not apply
//! every change again. What it lacks is in the logs, so that nothing waits for it.

use super::Engine;
use crate::local::write_snapshot;

/// Work of loading after which a snapshot is stored while the node runs, as
/// [`crdt::Document::unsaved`] counts it: about a tenth of a second.
const SAVE_AFTER: u64 = 50_000;
/// The same at the end, when nobody waits.
const SAVE_AT_END_AFTER: u64 = 2_000;

impl Engine {
    pub(super) fn save_document_if_due(&mut self) {
        let busy = self.saving.as_ref().is_some_and(|task| !task.is_finished());
        if busy || self.replica.document().unsaved() < SAVE_AFTER {
            return;
        }
        let (dir, saving) = (self.dir.clone(), self.replica.save_document());
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = write_snapshot(&dir, saving) {
                tracing::warn!("the next start will take longer: {error:#}");
            }
        }));
    }

    pub(super) async fn save_document_at_end(&mut self) {
        if let Some(task) = self.saving.take()
            && let Err(error) = task.await
        {
            tracing::warn!("the document's snapshot was not stored: {error}");
        }
        if self.fatal.is_none()
            && self.replica.document().unsaved() >= SAVE_AT_END_AFTER
            && let Err(error) = write_snapshot(&self.dir, self.replica.save_document())
        {
            tracing::warn!("the next start will take longer: {error:#}");
        }
    }
}
