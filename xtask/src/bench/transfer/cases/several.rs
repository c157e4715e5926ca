//! Several disks at once, of one server or of as many, beside one that holds the same.

use super::{Bench, memory};
use crate::bench::link::Network;
use crate::bench::transfer::contest::{Entry, Way};
use crate::bench::transfer::disks::Disk;
use crate::bench::transfer::ours::Plan;
use crate::bench::transfer::table::{Limit, Section};
use anyhow::Result;

/// The disks of a server are together so many times as long as the dense disk: in a run of a
/// second and a half who begins sooner is done sooner.
pub(super) const LONG: u64 = 4;

/// The disks of a server, beside one disk that holds the same; and where nothing is
/// compressed, so that bytes say how far a disk is.
pub(super) fn disks(bench: &Bench, section: &mut Section) -> Result<()> {
    let mib = LONG * bench.mib;
    let disk = Disk::Dense { mib };
    let entries = [
        ("together", Plan::Together, true),
        ("one disk", Plan::Copy, true),
        ("together, not compressing", Plan::Together, false),
    ]
    .map(|(who, plan, compresses)| Entry::new(who, disk, Way::Dunlin(plan, compresses)));
    section.rows = bench.contest.run(&Network::Loopback, &entries)?;
    let apart = beside_one(section);
    section.judge(
        "times as long for the last disk as for the first",
        apart,
        Limit::AtMost(1.25),
    );
    if let Some((least, most)) = section.rows[2].run.moved {
        section.notes.push(format!(
            "while all moved, nothing compressed, one moved {:.2} times as many bytes as another",
            most / least
        ));
    }
    memory(section);
    Ok(())
}

/// As many agents as there are disks at one replicator, beside one with one disk that holds
/// the same.
pub(super) fn agents(bench: &Bench, section: &mut Section) -> Result<()> {
    let disk = Disk::Dense { mib: bench.mib };
    let entries = [("agents", Plan::Agents), ("one agent", Plan::Copy)]
        .map(|(who, plan)| Entry::new(who, disk, Way::Dunlin(plan, true)));
    section.rows = bench.contest.run(&Network::Loopback, &entries)?;
    beside_one(section);
    memory(section);
    Ok(())
}

/// Says of several disks at once, which are the first row, how they are to one, and how far
/// apart they are done.
fn beside_one(section: &mut Section) -> f64 {
    let (all, one) = (section.rows[0].run, section.rows[1].run);
    let times = all.seconds / one.seconds;
    let first = all.first.unwrap_or(f64::NAN);
    let apart = all.seconds / first;
    section.notes.push(format!(
        "{times:.2} times as long as one disk; the first was there after {first:.2} s, the \
         last took {apart:.2} times as long"
    ));
    apart
}
