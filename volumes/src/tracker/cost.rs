//! What following writes costs who writes: fio with and without it in turn, on a loop device
//! and on a file system there. It takes minutes, and runs where the environment says how long:
//! `cargo xtask bench track`.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::tests::may_follow;
use super::{Disk, Tracker};
use crate::SourceVolume;
use crate::loop_device::LoopDevice;

const ROUNDS: &str = "DUNLIN_TRACK_ROUNDS";
const SECONDS: &str = "DUNLIN_TRACK_SECONDS";

/// Of the median without it are left at least so many with it.
const LIMIT: f64 = 0.97;

/// Passes begin more seldom.
const BETWEEN_ADVANCES: Duration = Duration::from_secs(1);

const MIB: u64 = 1 << 20;
const DISK: u64 = 512 * MIB;

/// Unmounts it when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Writes of 4 KiB that a second had.
fn measure(file: &Path, is_device: bool, (seconds, depth): (u64, u64)) -> f64 {
    let mut command = Command::new("fio");
    command.args(["--name=writes", "--rw=randwrite", "--bs=4k", "--direct=1"]);
    command.args(["--ioengine=libaio", "--thread", "--time_based"]);
    command.args(["--output-format=terse", "--terse-version=3"]);
    command.args([
        format!("--runtime={seconds}"),
        format!("--iodepth={depth}"),
        format!("--filename={}", file.display()),
    ]);
    if !is_device {
        command.arg("--size=256m");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("3;"));
    // The 49th field, by the manual of fio.
    let field = line.and_then(|line| line.split(';').nth(48));
    field.expect("fio says it").parse().unwrap()
}

/// The same while it is followed.
fn measure_followed(disk: &Path, file: &Path, is_device: bool, how: (u64, u64)) -> f64 {
    let (disk, _) = Disk::of(&SourceVolume::open(disk).unwrap()).unwrap();
    let (mut tracker, _) = Tracker::start(vec![disk]).unwrap();
    let (done, told) = channel();
    let file = file.to_owned();
    let fio = thread::spawn(move || {
        let writes = measure(&file, is_device, how);
        done.send(()).unwrap();
        writes
    });
    while told.recv_timeout(BETWEEN_ADVANCES) == Err(RecvTimeoutError::Timeout) {
        tracker.advance().unwrap();
    }
    fio.join().unwrap()
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Rounds in which both take turns, and each begins with another one; whether the limit was
/// kept.
fn compare(name: &str, disk: &Path, file: &Path, (rounds, how): (u64, (u64, u64))) -> bool {
    let is_device = disk == file;
    let (mut without, mut with) = (vec![], vec![]);
    for round in 0..rounds {
        for turn in 0..2 {
            match (round + turn) % 2 {
                0 => without.push(measure(file, is_device, how)),
                _ => with.push(measure_followed(disk, file, is_device, how)),
            }
        }
    }
    let ratios: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a / b).collect();
    let ratio = median(&with) / median(&without);
    let is_kept = ratio >= LIMIT;
    eprintln!(
        "{name}, {} at once: {:.0} writes a second, {:.0} while followed: {:.1} % (limit {:.0} %: {}); \
        median of the rounds' own ratios {:.1} %\n  without: {without:.0?}\n  with: {with:.0?}",
        how.1,
        median(&without),
        median(&with),
        ratio * 100.0,
        LIMIT * 100.0,
        if is_kept { "kept" } else { "not kept" },
        median(&ratios) * 100.0,
    );
    is_kept
}

/// A loop device over a file that has all its bytes.
fn attached(folder: &Path) -> Option<LoopDevice> {
    let image = folder.join("disk");
    io::copy(
        &mut io::Read::take(io::repeat(7), DISK),
        &mut File::create(&image).unwrap(),
    )
    .unwrap();
    LoopDevice::attach(&image)
}

#[test]
fn following_writes_costs_who_writes_little() {
    let setting = |name| Some(env::var(name).ok()?.parse::<u64>().expect("a number"));
    let (Some(rounds), Some(seconds)) = (setting(ROUNDS), setting(SECONDS)) else {
        eprintln!("skipped: it is measured by `cargo xtask bench track`");
        return;
    };
    assert!(may_follow(), "following writes cannot be measured here");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = attached(folder.path()).unwrap();
    let disk = device.path();
    let over = "a loop device over memory";
    let mut is_kept = true;
    for depth in [1, 16] {
        is_kept &= compare(over, disk, disk, (rounds, (seconds, depth)));
    }
    let made = Command::new("mkfs.ext4").arg("-qF").arg(disk).status();
    assert!(made.unwrap().success());
    let at = folder.path().join("at");
    fs::create_dir(&at).unwrap();
    let status = Command::new("mount").arg(disk).arg(&at).status();
    assert!(status.unwrap().success());
    let mounted = Mounted(at);
    let file = mounted.0.join("file");
    // Its blocks are there before it is measured.
    measure(&file, false, (1, 16));
    let over = format!("ext4 on {over}");
    is_kept &= compare(&over, disk, &file, (rounds, (seconds, 16)));
    assert!(is_kept, "the limit was not kept");
}
