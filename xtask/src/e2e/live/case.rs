//! The cases: what goes wrong while the machine is moved.

use super::image::{self, Base};
use super::moving::{Moved, Moving, Plan};
use anyhow::Result;
use std::fs;
use std::path::Path;

/// What happens in the middle of the first pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// The agent is killed, and started again by systemd.
    AgentKilled,
    /// The machine loses its power, and is switched on again.
    PowerCut,
    /// The network is away for a minute.
    NetworkCut,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) plan: Plan,
}

const PLAIN: Plan = Plan {
    trouble: Trouble::None,
    has_guard: true,
    writes_unseen: false,
};

pub(super) const CASES: [Case; 6] = [
    Case {
        name: "plain",
        plan: PLAIN,
    },
    Case {
        name: "agent-killed",
        plan: Plan {
            trouble: Trouble::AgentKilled,
            ..PLAIN
        },
    },
    Case {
        name: "power-cut",
        plan: Plan {
            trouble: Trouble::PowerCut,
            ..PLAIN
        },
    },
    Case {
        name: "network-cut",
        plan: Plan {
            trouble: Trouble::NetworkCut,
            ..PLAIN
        },
    },
    // All passes compare the whole disk.
    Case {
        name: "no-tracker",
        plan: Plan {
            has_guard: false,
            ..PLAIN
        },
    },
    // The control: something is written that no tracker sees, and the comparison has to
    // find it.
    Case {
        name: "unseen-write",
        plan: Plan {
            writes_unseen: true,
            ..PLAIN
        },
    },
];

impl Case {
    /// Moves a machine so, with its files in `place`.
    pub(super) fn run(&self, root: &Path, base: &Path, place: &Path) -> Result<Moved> {
        fs::create_dir(place)?;
        Base::copy(base, place)?;
        let program = root.join("target/debug/dunlin");
        let mut moving = Moving::begin(self.name, self.plan, place, &program)?;
        let units = root.join("docs/guide.md");
        let moved = moving.run(&image::stripped(base), &units);
        if moved.is_err() {
            moving.explain();
        }
        moved
    }
}
