//! Changing a source: once, or all the time, so that no pass over it is clean.

use crate::harness::noise;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

pub const MIB: u64 = 1 << 20;

/// Puts other bytes into a part of a disk.
pub fn rewrite(disk: &Path, from_mib: u64, mib: usize, seed: u64) {
    let file = File::options().write(true).open(disk).unwrap();
    file.write_all_at(&noise(mib << 20, seed), from_mib * MIB)
        .unwrap();
}

/// Writes to a disk until it is dropped.
pub struct Writer {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(disk: &Path) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let (seen, path) = (stop.clone(), disk.to_owned());
        let thread = std::thread::spawn(move || {
            let mut seed = 1000;
            while !seen.load(Ordering::Relaxed) {
                rewrite(&path, seed % 8, 1, seed);
                seed += 1;
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        let thread = Some(thread);
        Self { stop, thread }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            Thread::unpark(thread.thread());
            let _ = thread.join();
        }
    }
}
