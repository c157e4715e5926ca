//! A limit that is kept, exact to 5 % over ten seconds, while it changes.

use super::Bench;
use crate::bench::transfer::contest::{Contest, Entry, Way, require};
use crate::bench::transfer::disks::Disk;
use crate::bench::transfer::ours::Plan;
use crate::bench::transfer::table::{Limit, Row, Section};
use anyhow::Result;
use std::fs;

/// How long each of two limits holds: the first alone for all of ten seconds that begin in
/// the first six, and so on.
pub(super) const SECS: u64 = 16;

/// A pass under a limit, which changes while it runs: what is sent in every ten seconds in
/// which there is something to send.
pub(super) fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let Contest {
        folder,
        place,
        program,
        ..
    } = bench.contest;
    for limit_mib in [1, 20, 100] {
        let case = folder.join("case");
        fs::create_dir_all(case.join("disk"))?;
        // More than goes in that time.
        let mib = limit_mib * SECS * 3 / 2 + 64;
        let who = format!("{limit_mib} MiB/s, then half");
        let disk = Disk::Dense { mib };
        require(
            place,
            &Entry::new(&who, disk, Way::Dunlin(Plan::Copy, false)),
        )?;
        disk.write(&case.join("disk/source"))?;
        let limits = [limit_mib << 20, limit_mib << 19];
        let (run, [least, most]) = program.throttled(&case, (limits, SECS))?;
        fs::remove_dir_all(&case)?;
        let of = |which: &str| format!("% of {who}, sent in the ten seconds with the {which}");
        section.judge(of("least"), 100.0 * least, Limit::AtLeast(95.0));
        section.judge(of("most"), 100.0 * most, Limit::AtMost(105.0));
        section.rows.push(Row { who, run });
    }
    section.notes.push(
        "ten seconds begin with every write; the bytes are those given to the stream, \
             before encryption, and the MiB sent are those of the whole disk"
            .into(),
    );
    Ok(())
}
