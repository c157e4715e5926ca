//! One machine that is moved, from its first start to the start of its copy.
//!
//! Not here: how the copy is judged (`checks`).

use super::case::Trouble;
use super::checks;
use super::guest::{Disks, FREE_AT, Guest};
use super::image::DISKS;
use super::mesh::{Mesh, SERVER};
use super::workload::{self, Acknowledged};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What of the first pass is sent when trouble comes.
const MIDDLE_BYTES: u64 = 64 << 20;
/// How long the network is away.
const CUT: Duration = Duration::from_secs(60);
/// What is written unseen: two blocks.
const UNSEEN_BYTES: u64 = 128 << 10;
/// Units of the guest, as the guide has them.
const UNITS: [&str; 2] = ["dunlin.service", "dunlin-guard.service"];

/// How a machine is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) trouble: Trouble,
    pub(super) has_guard: bool,
    pub(super) writes_unseen: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) sent_bytes: u64,
    pub(super) passes: u64,
    pub(super) frozen: Duration,
    pub(super) rows: usize,
    pub(super) files: usize,
}

/// A machine, and the nodes that it is moved to.
pub(super) struct Moving<'a> {
    name: &'static str,
    plan: Plan,
    place: &'a Path,
    acknowledged: Acknowledged,
    mesh: Mesh,
    guest: Option<Guest>,
    began: Instant,
}

impl<'a> Moving<'a> {
    /// Founds the mesh and switches the machine on.
    pub(super) fn begin(
        name: &'static str,
        plan: Plan,
        place: &'a Path,
        program: &Path,
    ) -> Result<Self> {
        let acknowledged = Acknowledged::default();
        let disks = Disks::Source(place);
        let guest = Guest::start(place, "source", &disks, Some(&acknowledged))?;
        Ok(Self {
            name,
            plan,
            place,
            acknowledged,
            mesh: Mesh::found(program, place)?,
            guest: Some(guest),
            began: Instant::now(),
        })
    }

    /// Moves it, and looks at its copy.
    pub(super) fn run(&mut self, program: &Path, guide: &Path) -> Result<Moved> {
        let guest = self.guest()?;
        guest.run("true")?;
        self.say("the machine runs");
        workload::start(self.guest()?, 1)?;
        self.install(program, guide)?;
        self.say("the agent is installed");
        self.join()?;
        self.mesh.start_migration(DISKS.len())?;
        self.say("the migration is started");
        self.trouble()?;
        self.converge()?;
        self.say("passes follow each other");
        if self.plan.writes_unseen {
            self.write_unseen()?;
        }
        if !self.plan.has_guard {
            self.freeze()?;
        }
        let since = Instant::now();
        self.mesh.act("cutover")?;
        let is_cut_over = |view: &Value| view["stage"] == "cut-over";
        let view = self.mesh.until("the cutover", is_cut_over)?;
        let frozen = match self.plan.has_guard {
            true => self.mesh.frozen()?,
            false => since.elapsed(),
        };
        self.say("it is cut over");
        // Nothing is told any more by a machine that stays frozen.
        let told = self.acknowledged.told();
        ensure!(
            !told.rows.is_empty() && !told.files.is_empty(),
            "the writer told nothing: {told:?}"
        );
        for line in volumes(&view).map(passes_line) {
            self.say(&line);
        }
        self.check_passes(&view)?;
        let copies = copies(&view)?;
        self.guest()?.halt()?;
        let differences = checks::compare(self.place, &copies)?;
        self.guest = None;
        if self.plan.writes_unseen {
            checks::found_unseen(&differences, FREE_AT, UNSEEN_BYTES)?;
            self.say("the comparison found what was written unseen");
        } else {
            ensure!(differences.is_empty(), "disks and copies: {differences}");
            self.mesh.until_confirmed()?;
            self.say("disks and copies are equal");
            let mut copy = Guest::start(self.place, "copy", &Disks::Copies(copies), None)?;
            let seen = checks::judge(&mut copy, &told)?;
            self.say(&format!("the copy holds all that was told: {seen}"));
        }
        let sum = |field: &str| {
            volumes(&view)
                .flat_map(passes)
                .map(|pass| number(&pass[field]))
                .sum()
        };
        Ok(Moved {
            sent_bytes: sum("bytes_sent"),
            passes: volumes(&view)
                .filter_map(newest)
                .map(|pass| number(&pass["pass"]))
                .sum(),
            frozen,
            rows: told.rows.len(),
            files: told.files.len(),
        })
    }

    /// Prints what there is to see of a failure.
    pub(super) fn explain(&mut self) {
        eprintln!("what the nodes tell:\n{}", self.mesh.log());
        let journal = "journalctl --no-pager --lines=40 -u dunlin -u dunlin-guard -u 'load-*'";
        if let Some(guest) = &mut self.guest {
            match guest.run(journal) {
                Ok(said) => eprintln!("the guest's journal:\n{said}"),
                Err(error) => eprintln!("no journal: {error:#}"),
            }
        }
    }

    fn say(&self, what: &str) {
        eprintln!(
            "{}: {:>4} s  {what}",
            self.name,
            self.began.elapsed().as_secs()
        );
    }

    fn guest(&mut self) -> Result<&mut Guest> {
        self.guest.as_mut().context("the machine is off")
    }

    /// Brings the program by the README's line, and the units of the guide.
    fn install(&mut self, program: &Path, guide: &Path) -> Result<()> {
        let program = fs::read(program)?;
        let guide = fs::read_to_string(guide)?;
        let guest = self.guest()?;
        let install = "cat > /run/dunlin-copied
                       install -m 755 /run/dunlin-copied /usr/local/bin/dunlin
                       rm /run/dunlin-copied
                       dunlin --version";
        guest.run_with(install, &program)?;
        for unit in UNITS {
            let text = unit_of(&guide, unit)?;
            let script = format!("cat > /etc/systemd/system/{unit}");
            guest.run_with(&script, text.as_bytes())?;
        }
        Ok(())
    }

    /// Enrols the guest and has it offer its disks.
    fn join(&mut self) -> Result<()> {
        let invite = self.mesh.invite("agent")?;
        let units = match self.plan.has_guard {
            true => "dunlin-guard dunlin",
            false => "dunlin",
        };
        let guest = self.guest()?;
        let join = format!("mountpoint /var/lib/dunlin\ndunlin join - --name {SERVER}");
        guest.run_with(&join, invite.as_bytes())?;
        let start = format!(
            "systemctl --quiet daemon-reload
             systemctl --quiet enable --now {units}
             for second in $(seq 60); do
               if dunlin status --json 2>&1 | grep -q '\"may_write\":true'; then break; fi
               sleep 1
             done
             dunlin volume add /dev/vda --name root
             dunlin volume add /dev/sda --name data"
        );
        guest.run(&start).map(drop)
    }

    /// What goes wrong in the middle of the first pass.
    fn trouble(&mut self) -> Result<()> {
        if self.plan.trouble == Trouble::None {
            return Ok(());
        }
        let middle = |view: &Value| {
            let sent = volumes(view).map(|volume| number(&volume["progress"]["sent_bytes"]));
            sent.sum::<u64>() >= MIDDLE_BYTES
                || volumes(view).any(|volume| newest(volume).is_some())
        };
        let view = self.mesh.until("the middle of the first pass", middle)?;
        let is_first = volumes(&view).any(|volume| newest(volume).is_none());
        ensure!(is_first, "the first pass ended before the trouble came");
        match self.plan.trouble {
            Trouble::None => {}
            Trouble::AgentKilled => {
                let kill = "kill -KILL $(systemctl show --property=MainPID --value dunlin)";
                self.guest()?.run(kill)?;
                self.say("the agent is killed");
            }
            Trouble::PowerCut => {
                self.guest = None;
                self.say("the machine has no power");
                let (disks, told) = (Disks::Source(self.place), &self.acknowledged);
                self.guest = Some(Guest::start(self.place, "source", &disks, Some(told))?);
                workload::start(self.guest()?, 2)?;
                self.say("it runs again");
            }
            Trouble::NetworkCut => {
                self.guest()?.set_link(false)?;
                self.say("the network is cut");
                thread::sleep(CUT);
                self.guest()?.set_link(true)?;
                self.say("the network is back");
            }
        }
        Ok(())
    }

    /// Waits until each disk has had a pass after its first, found as it has to be; where all
    /// passes are alike, its first.
    fn converge(&self) -> Result<()> {
        let has_guard = self.plan.has_guard;
        let passed = u64::from(has_guard);
        let is_good = |volume: &Value| {
            let pass = newest(volume);
            pass.is_some_and(|pass| number(&pass["pass"]) > passed && pass["tracked"] == has_guard)
        };
        let all = |view: &Value| volumes(view).count() == DISKS.len() && volumes(view).all(is_good);
        self.mesh.until("a pass after the first", all).map(drop)
    }

    /// Freezes what lies on the disks by hand, under load, where no guard does it.
    fn freeze(&mut self) -> Result<()> {
        self.guest()?.run("fsfreeze -f /srv/data\nfsfreeze -f /")?;
        self.say("the machine is frozen");
        Ok(())
    }

    /// Writes to a disk by a command that is passed through to it, which no event of the
    /// kernel and no counter shows.
    fn write_unseen(&mut self) -> Result<()> {
        let script = format!(
            "sg_dd if=/dev/urandom of=/dev/sda bs=512 count={} seek={} oflag=sgio",
            UNSEEN_BYTES / 512,
            FREE_AT / 512
        );
        self.guest()?.run(&script)?;
        self.say("something is written unseen");
        Ok(())
    }

    /// The last passes found what changed as they had to.
    fn check_passes(&self, view: &Value) -> Result<()> {
        for volume in volumes(view) {
            let pass = newest(volume).context("a copy without a pass")?;
            ensure!(
                pass["tracked"] == self.plan.has_guard,
                "the last pass over {} {}: {}",
                volume["name"],
                if self.plan.has_guard {
                    "compared the whole disk"
                } else {
                    "was tracked"
                },
                volume["changes"]
            );
        }
        Ok(())
    }
}

fn volumes(view: &Value) -> impl Iterator<Item = &Value> {
    view["volumes"].as_array().into_iter().flatten()
}

fn passes(volume: &Value) -> impl Iterator<Item = &Value> {
    volume["passes"].as_array().into_iter().flatten()
}

fn newest(volume: &Value) -> Option<&Value> {
    volume["passes"].as_array()?.last()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The newest passes over a disk, for a person to read.
fn passes_line(volume: &Value) -> String {
    let passes = passes(volume).map(|pass| {
        let how = match pass["tracked"].as_bool() {
            Some(true) => "of what was written",
            _ => "of the whole disk",
        };
        let sent = number(&pass["bytes_sent"]) as f64 / f64::from(1 << 20);
        let secs = number(&pass["millis"]) as f64 / 1000.0;
        format!("{} {how} {sent:.1} MiB in {secs:.1} s", pass["pass"])
    });
    let passes: Vec<String> = passes.collect();
    format!("passes over {}: {}", volume["name"], passes.join(", "))
}

/// Where the copies are, in the order of the disks.
fn copies(view: &Value) -> Result<[PathBuf; 2]> {
    let copy = |name: &str| {
        let volume = volumes(view).find(|volume| volume["name"] == name)?;
        Some(PathBuf::from(volume["target_path"].as_str()?))
    };
    let [root, data] = DISKS.map(copy);
    Ok([
        root.context("no copy of root")?,
        data.context("no copy of data")?,
    ])
}

/// A unit, as the guide has it: the first block behind its path.
fn unit_of<'g>(guide: &'g str, unit: &str) -> Result<&'g str> {
    let found = || {
        let (_, rest) = guide.split_once(&format!("`/etc/systemd/system/{unit}`"))?;
        let (_, rest) = rest.split_once("```ini\n")?;
        Some(rest.split_once("```")?.0)
    };
    found().with_context(|| format!("the guide has no {unit}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_units_are_those_of_the_guide() {
        let guide = include_str!("../../../../docs/guide.md");
        let program = UNITS.map(|unit| {
            let text = unit_of(guide, unit).unwrap();
            let line = text.lines().find(|line| line.starts_with("ExecStart="));
            line.unwrap().to_owned()
        });
        assert!(program[0].ends_with("--data-dir /var/lib/dunlin run"));
        assert!(program[1].ends_with("dunlin guard"));
        assert!(unit_of(guide, "no-such.service").is_err());
    }
}
