//! What a machine is, read from its root file system: hardware, system, kernels, disks,
//! network and services, for a node's report; and what of it stands in the way of a
//! migration.
//!
//! Each reader takes a [`Tree`], of the running system or of a mounted copy, reads
//! nothing outside of it, writes nothing and runs nothing. Readers are total: what cannot
//! be read is absent. How it is shown is the program's.
#![forbid(unsafe_code)]

mod bytes;
mod content;
mod kernels;
mod machine;
mod network;
pub mod readiness;
mod services;
mod settings;
mod storage;
mod system;
mod table;
mod tree;

pub use tree::Tree;

use crdt::Inventory;
use std::path::PathBuf;

/// Reads a machine, again and again if need be.
#[derive(Debug)]
pub struct Reader {
    tree: Tree,
    state: Option<PathBuf>,
    seen: kernels::Seen,
}

impl Reader {
    /// Of this tree; `state` is the folder of the node that runs on it.
    pub fn new(tree: Tree, state: Option<PathBuf>) -> Self {
        Self {
            tree,
            state,
            seen: kernels::Seen::default(),
        }
    }

    /// Reads all of it, within its limits.
    ///
    /// It opens block devices read-only, and unpacks the initramfs of each kernel where it
    /// is another than last time, which takes a second or a few: not for a task that
    /// others wait for.
    pub fn read(&mut self) -> Inventory {
        let tree = &self.tree;
        let mut inventory = Inventory {
            machine: machine::read(tree),
            system: system::read(tree),
            kernels: kernels::read(tree, &mut self.seen),
            storage: storage::read(tree, self.state.as_deref()),
            network: network::read(tree),
            services: services::read(tree),
            ..Inventory::default()
        };
        inventory.cut();
        inventory
    }
}

/// The machine's host name.
pub fn hostname(tree: &Tree) -> String {
    match tree.line("/proc/sys/kernel/hostname") {
        Some(name) => name,
        None => tree.line("/etc/hostname").unwrap_or_default(),
    }
}
