//! What of a machine stands in the way of moving it, or wants a look before: a pure
//! function of its inventory and of the disks that it offers, worked out by whoever shows
//! it.
//!
//! Not here: how it is shown, and what the target's cloud needs.

use crdt::Inventory;

mod boot;
mod disks;
mod place;
mod stack;
#[cfg(test)]
mod tests;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The copy will not do its work before this is put right.
    Blocker,
    /// It will do with less than the source, or needs something at the cutover.
    Warning,
    /// Good to know.
    Note,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is about, e.g. `sda2`.
    pub subject: String,
    /// What is so, and what follows.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

impl Finding {
    fn new(
        level: Level,
        subject: impl Into<String>,
        what: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            level,
            subject: subject.into(),
            what: what.into(),
            todo: todo.into(),
        }
    }
}

/// All findings, blockers first. `offered` are the paths of the devices that are offered
/// as sources, without images. Of a machine that was not read nothing is said.
pub fn findings(inventory: &Inventory, offered: &[&str]) -> Vec<Finding> {
    if *inventory == Inventory::default() {
        return vec![];
    }
    let mut findings = vec![];
    boot::findings(inventory, &mut findings);
    disks::findings(inventory, offered, &mut findings);
    place::findings(inventory, &mut findings);
    if inventory.truncated {
        findings.push(Finding::new(
            Level::Note,
            "inventory",
            "the machine has more of something than a report holds, and the rest is not looked at",
            "look at what is missing on the machine itself",
        ));
    }
    findings.sort_by_key(|finding| finding.level);
    findings
}
