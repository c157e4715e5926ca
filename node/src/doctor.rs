//! `dunlin doctor`: checks of this machine, its node and its connections, each with what to
//! do. A running node makes them itself; for a stopped one the command makes those that
//! need no network.
//!
//! Nothing is changed and no disk is written. Not here: how fast a connection is (`speed`).

mod folder;
mod hooks;
mod machine;
mod members;
mod roles;
#[cfg(test)]
mod tests;

use crate::api::model::{CheckState, CheckView, DoctorView, FindingView, NodeView};
use crate::hooks::Folder;
use crdt::Hook;
use libp2p::Multiaddr;
use machine::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A device or file that a role needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What people call it.
    pub name: String,
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Its length in bytes, as it was reported or agreed.
    pub length: u64,
}

/// What only a running node knows.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Whether it may change anything yet.
    pub may_write: bool,
    /// Where it listens.
    pub listening: Vec<String>,
    /// Ids of the nodes with which it has work in common that goes on.
    pub partners: BTreeSet<String>,
    /// Those of them without whom it does not go on.
    pub needed: BTreeSet<String>,
    /// Other ends of its connections, by id of the node.
    pub links: BTreeMap<String, Vec<Multiaddr>>,
    /// Where its local cloud keeps volumes, if it has one.
    pub cloud: Option<PathBuf>,
    /// Its folder of hooks, and what is planned to be run there: name of the migration and
    /// hook.
    pub hooks: Option<(Folder, Vec<(String, Hook)>)>,
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its data folder.
    pub folder: PathBuf,
    /// The time, in seconds since the Unix epoch.
    pub now_secs: u64,
    /// The node.
    pub me: NodeView,
    /// Its mesh.
    pub mesh_name: String,
    /// The other nodes that count.
    pub others: Vec<NodeView>,
    /// Disks that it offers.
    pub sources: Vec<Disk>,
    /// What keeps this machine's copy from doing its work, where it is an agent's.
    pub blockers: Vec<FindingView>,
    /// Copies that it holds.
    pub copies: Vec<Disk>,
    /// None where it is stopped.
    pub live: Option<Live>,
}

/// Looks at everything. It reads files and asks the system, so it may block.
pub fn examine(facts: &Facts) -> DoctorView {
    let mut checks = vec![members::node(facts)];
    checks.extend(folder::checks(&facts.folder, &facts.sources));
    checks.extend(machine::checks(&Machine::read(facts.live.is_some())));
    checks.extend(members::checks(facts));
    checks.extend(roles::checks(facts));
    checks.extend(hooks::checks(facts));
    view(&facts.folder, Some(facts), checks)
}

/// Looks at what there is where the node's state cannot be read, which `why` says. The node
/// may run all the same.
pub fn examine_without_state(folder: &Path, why: &str, is_running: bool) -> DoctorView {
    let mut checks = vec![failed("node", why)];
    if folder.exists() {
        checks.extend(folder::checks(folder, &[]));
    }
    checks.extend(machine::checks(&Machine::read(false)));
    DoctorView {
        running: is_running,
        ..view(folder, None, checks)
    }
}

fn view(folder: &Path, facts: Option<&Facts>, checks: Vec<CheckView>) -> DoctorView {
    DoctorView {
        folder: folder.display().to_string(),
        node: facts.map(|facts| facts.me.name.clone()),
        running: facts.is_some_and(|facts| facts.live.is_some()),
        state: checks
            .iter()
            .map(|check| check.state)
            .max()
            .unwrap_or(CheckState::Ok),
        checks,
    }
}

fn ok(check: &str, text: impl Into<String>) -> CheckView {
    CheckView {
        check: check.to_owned(),
        on: None,
        state: CheckState::Ok,
        text: text.into(),
        todo: None,
    }
}

fn warning(check: &str, text: impl Into<String>, todo: impl Into<String>) -> CheckView {
    CheckView {
        state: CheckState::Warning,
        todo: Some(todo.into()),
        ..ok(check, text)
    }
}

fn broken(check: &str, text: impl Into<String>, todo: impl Into<String>) -> CheckView {
    CheckView {
        state: CheckState::Failed,
        ..warning(check, text, todo)
    }
}

/// A failure as an error tells it, whole: its causes and its advice are not to be told
/// apart by their text.
fn failed(check: &str, error: &str) -> CheckView {
    broken(
        check,
        error,
        "do what this says; where it says nothing to do, look at the folder and at the log of the node",
    )
}

fn on(subject: impl Into<String>, check: CheckView) -> CheckView {
    CheckView {
        on: Some(subject.into()),
        ..check
    }
}
