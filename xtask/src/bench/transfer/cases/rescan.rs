//! A whole comparison of a device with the stored tree, as after a reboot of the source,
//! beside a plain read of it. Only root has the loop device that stands for it.

use super::Bench;
use crate::bench::transfer::contest::Contest;
use crate::bench::transfer::disks::Disk;
use crate::bench::transfer::table::{Limit, Row, Section, median_by};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the speed of the device that comparing it reaches at least.
const LEAST_PERCENT: f64 = 80.0;

/// A device over a file, for as long as somebody has it open: so it goes with this process,
/// however that ends.
struct Device {
    path: PathBuf,
    _open: File,
}

impl Device {
    /// Reads and writes go past the page cache where the file is on a disk.
    fn over(file: &Path, is_on_disk: bool) -> Result<Self> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", "--read-only"]);
        if is_on_disk {
            command.arg("--direct-io=on");
        }
        let output = command.arg(file).output().context("running losetup")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "a device over a file takes root and losetup: {}",
            said.trim()
        );
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let open = File::open(&path);
        // While it is open it is only told to go when it is not any more.
        let status = Command::new("losetup").arg("-d").arg(&path).status();
        ensure!(
            status?.success(),
            "losetup does not let go of {}",
            path.display()
        );
        let open = open.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { path, _open: open })
    }
}

/// Looks at all of a device on which nothing has changed.
pub(super) fn measure(bench: &Bench, section: &mut Section) -> Result<()> {
    let Contest {
        folder,
        place,
        program,
        rounds,
        ..
    } = bench.contest;
    let case = folder.join("case");
    let (image, source) = (case.join("disk/image"), case.join("disk/source"));
    fs::create_dir_all(case.join("disk"))?;
    let mib = 2 * bench.mib;
    Disk::Dense { mib }.write(&image)?;
    let device = Device::over(&image, !place.is_in_memory())?;
    symlink(&device.path, &source)?;
    let [compared, read] = program.rescan(&case, rounds)?;
    let sent: Option<u64> = compared.iter().map(|run| run.sent).sum();
    let Some(sent) = sent else {
        bail!("it was not said what was sent");
    };
    let [compared, read] = [compared, read].map(|runs| median_by(runs, |run| run.seconds));
    fs::remove_dir_all(&case)?;
    let rates = [&compared, &read].map(|run| mib as f64 / run.seconds);
    let share = 100.0 * read.seconds / compared.seconds;
    let row = |who: &str, run| Row {
        who: who.to_owned(),
        run,
    };
    section.rows = vec![
        row("dunlin compares all", compared),
        row("reads of 4 MiB, O_DIRECT", read),
    ];
    section.notes.push(format!(
        "{:.0} and {:.0} MiB/s; core-seconds of the sending process",
        rates[0], rates[1]
    ));
    section.judge(
        "% of the speed of plain reads",
        share,
        Limit::AtLeast(LEAST_PERCENT),
    );
    section.judge("bytes sent in all", sent as f64, Limit::AtMost(0.0));
    Ok(())
}
