//! What writes to the disk of a run: two programs of fio, one of which is checked in the
//! copy, and a thread that writes, punches holes, zeroes, renames and syncs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use super::Draw;
use super::place::Place;
use crate::AlignedBuf;

const MIB: u64 = 1 << 20;

/// Where each writes, in bytes of a disk without a file system.
const CHURNED: u64 = 32 * MIB;
const WRITTEN: u64 = 200 * MIB;

/// What the thread writes to is so long.
const LENGTH: u64 = 32 * MIB;

/// A program that ends with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Load {
    churn: Option<Running>,
    checked: Vec<String>,
    done: Receiver<ExitStatus>,
    writer: Option<JoinHandle<u64>>,
    is_over: Arc<AtomicBool>,
    what: String,
}

impl Load {
    /// None where there is no fio, and a word on stderr.
    pub(super) fn start(place: &Place, draw: &mut Draw) -> Option<Self> {
        if Command::new("fio").arg("--version").output().is_err() {
            eprintln!("skipped: fio is not installed");
            return None;
        }
        let is_raw = place.mounted().is_none();
        let checked = checked(draw, is_raw);
        let mut command = fio("checked", place, 0);
        command.args(&checked).args(["--do_verify=0", "--rate=6m"]);
        let (told, done) = channel();
        let mut child = Running(command.spawn().unwrap());
        thread::spawn(move || {
            // The run may have failed.
            let _ = told.send(child.0.wait().unwrap());
        });
        let churning = churning(draw, is_raw);
        let mut churn = fio("churn", place, CHURNED);
        churn
            .args(&churning)
            .args(["--time_based", "--runtime=600"]);
        let churn = Running(churn.spawn().unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            at: place.mounted().map(Path::to_owned),
            device: place.device(),
            is_over: Arc::clone(&is_over),
            draw: Draw(draw.next()),
        };
        Some(Self {
            churn: Some(churn),
            what: churning.join(" "),
            checked,
            done,
            writer: Some(thread::spawn(|| writer.write())),
            is_over,
        })
    }

    /// Whether what is checked is written, at the latest after this long. All else goes on.
    pub(super) fn is_over(&self, within: Duration) -> bool {
        match self.done.recv_timeout(within) {
            Ok(status) => {
                assert!(status.success(), "fio failed: {status}");
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => panic!("nobody waits for fio any more"),
        }
    }

    /// Ends what goes on.
    pub(super) fn stop(&mut self) {
        self.churn = None;
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            assert!(writer.join().unwrap() > 0, "nothing was written");
        }
    }

    /// Has fio check in a copy what it wrote.
    pub(super) fn check(&self, copy: &Place, seed: u64) {
        let mut command = fio("checked", copy, 0);
        command.args(&self.checked).arg("--verify_only=1");
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "seed {seed}: fio finds other bytes in the copy with {:?}: {says}",
            self.checked
        );
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

/// A file of this name, or the disk from an offset on.
fn fio(name: &str, place: &Place, offset: u64) -> Command {
    let mut command = Command::new("fio");
    command.args(["--thread", "--output=/dev/null", "--allow_mounted_write=1"]);
    // Or it leaves a file where it is started.
    command.arg("--verify_state_save=0");
    command.arg(format!("--name={name}"));
    match place.mounted() {
        Some(at) => command.arg(format!("--filename={}", at.join(name).display())),
        None => command
            .arg(format!("--filename={}", place.device().display()))
            .arg(format!("--offset={offset}")),
    };
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn args(all: &[(&str, &str)]) -> Vec<String> {
    all.iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

/// How it writes, and whether past the page cache. Of a device fio 3.33 maps other bytes
/// than it is told to.
fn engine(draw: &mut Draw, is_raw: bool) -> (&'static str, &'static str) {
    match draw.below(4) {
        0 if !is_raw => ("mmap", "0"),
        0 | 1 => ("psync", "0"),
        2 => ("psync", "1"),
        _ => ("libaio", "1"),
    }
}

/// Each block of it once, with sums that fio can check.
fn checked(draw: &mut Draw, is_raw: bool) -> Vec<String> {
    let mut all = args(&[
        ("size", "24m"),
        ("verify", "crc32c"),
        ("rw", draw.of(&["randwrite", "write"])),
        ("bs", draw.of(&["4k", "16k", "64k"])),
    ]);
    let (engine, direct) = engine(draw, is_raw);
    all.extend(args(&[("ioengine", engine), ("direct", direct)]));
    all.push(format!("--randseed={}", draw.below(1 << 31)));
    all
}

fn churning(draw: &mut Draw, is_raw: bool) -> Vec<String> {
    let mut all = args(&[
        ("size", "64m"),
        ("rate", draw.of(&["4m", "30m", "200m"])),
        ("numjobs", draw.of(&["1", "2"])),
    ]);
    let (engine, direct) = engine(draw, is_raw);
    all.extend(args(&[("ioengine", engine), ("direct", direct)]));
    let kinds: &[&str] = match is_raw {
        true => &["randwrite", "randrw", "write", "randtrim", "trimwrite"],
        false => &["randwrite", "randrw", "write"],
    };
    all.extend(args(&[
        ("rw", draw.of(kinds)),
        ("iodepth", draw.of(&["1", "8", "32"])),
        ("fsync", draw.of(&["0", "16", "64"])),
        ("fallocate", draw.of(&["none", "native", "keep"])),
    ]));
    let sizes: [&[(&str, &str)]; 4] = [
        &[("bs", "4k")],
        &[("bs", "64k")],
        &[("bsrange", "4k-256k")],
        &[("bs", "1m")],
    ];
    all.extend(args(draw.of(&sizes)));
    all.push(format!("--randseed={}", draw.below(1 << 31)));
    all
}

/// The thread.
struct Writer {
    at: Option<PathBuf>,
    device: PathBuf,
    is_over: Arc<AtomicBool>,
    draw: Draw,
}

impl Writer {
    /// Goes on until it is over; how often something was done.
    fn write(mut self) -> u64 {
        let (path, base) = match &self.at {
            Some(at) => (at.join("written"), 0),
            None => (self.device.clone(), WRITTEN),
        };
        let open = |flags: i32| {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create(self.at.is_some())
                .truncate(false);
            options.custom_flags(flags).open(&path).unwrap()
        };
        let files = [open(0), open(libc::O_DIRECT), open(libc::O_SYNC)];
        if self.at.is_some() {
            files[0].set_len(LENGTH).unwrap();
        }
        let mut buf = AlignedBuf::new(8);
        let mut done = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let length = 4096 << self.draw.below(8);
            let offset = base + self.draw.below((LENGTH - length) / 4096) * 4096;
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let zeroes = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            // What a file system does not take is not done; a full one is none of ours.
            let is_done = match self.draw.below(16) {
                0 | 1 => fallocate(&files[0], hole, offset, length).is_ok(),
                2 => fallocate(&files[0], zeroes, offset, length).is_ok(),
                3 => files[0].sync_data().is_ok(),
                4 | 5 => self.rename(done),
                drawn => {
                    let file = &files[drawn as usize % 3];
                    let word = self.draw.next();
                    let bytes = &mut buf.bytes_mut()[..length as usize];
                    for (part, at) in bytes.chunks_exact_mut(8).zip(0u64..) {
                        part.copy_from_slice(&(word ^ at).to_le_bytes());
                    }
                    file.write_all_at(bytes, offset).is_ok()
                }
            };
            done += u64::from(is_done);
        }
        done
    }

    /// A small file takes the place of another, or goes.
    fn rename(&mut self, number: u64) -> bool {
        let Some(at) = &self.at else {
            return false;
        };
        let [new, named] = ["new".to_owned(), format!("file {}", self.draw.below(40))];
        let [new, named] = [new, named].map(|name| at.join(name));
        if self.draw.once_in(4) {
            return fs::remove_file(named).is_ok();
        }
        let text = number
            .to_string()
            .repeat(1 + self.draw.below(3000) as usize);
        let made = File::create(&new).and_then(|file| file.write_all_at(text.as_bytes(), 0));
        made.and_then(|()| fs::rename(new, named)).is_ok()
    }
}
