//! When an agent looks at its machine anew, for its report.
//!
//! Not here: how it is read (`inventory`).

use super::{Engine, Message};
use crdt::Inventory;
use inventory::{Reader, Tree};
use keys::Role;
use std::path::Path;

/// Between two looks: what is read changes seldom, and by people.
const PERIOD_MILLIS: u64 = 10 * 60 * 1000;

/// What was read last, and what is to read next.
pub(super) struct Stocktaking {
    /// For the report.
    pub(super) known: Inventory,
    /// None while it is reading.
    reader: Option<Reader>,
    due_millis: u64,
}

impl Stocktaking {
    /// Nothing read yet, by the node with this folder.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            known: Inventory::default(),
            reader: Some(Reader::new(Tree::new("/"), Some(folder.to_owned()))),
            due_millis: 0,
        }
    }
}

impl Engine {
    /// What was reported last counts until it is read anew, so that a start alone makes no
    /// other report.
    pub(super) fn take_up_inventory(&mut self) {
        let me = self.replica.me();
        let reported = me.and_then(|me| self.replica.reports().get(&me));
        if let Some(reported) = reported {
            self.stocktaking.known = reported.inventory.clone();
        }
    }

    /// Reads the machine on a thread of its own, where a look is due. Those that are no
    /// agents are not asked what they are.
    pub(super) fn take_stock_if_due(&mut self) {
        let now = self.now().mono_millis;
        if now < self.stocktaking.due_millis || !self.is_agent() {
            return;
        }
        let Some(mut reader) = self.stocktaking.reader.take() else {
            return;
        };
        self.stocktaking.due_millis = now + PERIOD_MILLIS;
        let inbox = self.inbox.clone();
        // A thread of its own: a disk that does not answer holds up nothing else, not even
        // the node's end.
        let reading = std::thread::Builder::new().name("inventory".into());
        let started = reading.spawn(move || {
            let inventory = reader.read();
            let taken = Message::StockTaken(Box::new((reader, inventory)));
            // The node may have stopped meanwhile.
            let _ = inbox.blocking_send(taken);
        });
        if let Err(error) = started {
            tracing::warn!("the machine is not read for the report, now and later: {error}");
        }
    }

    pub(super) fn stock_taken(&mut self, reader: Reader, inventory: Inventory) {
        self.stocktaking.reader = Some(reader);
        if inventory != self.stocktaking.known {
            self.stocktaking.known = inventory;
            self.report.soon();
        }
    }

    fn is_agent(&self) -> bool {
        let member = self.replica.authority().by_key(&self.replica.my_key());
        member.is_some_and(|member| member.roles.has(Role::Agent))
    }
}
