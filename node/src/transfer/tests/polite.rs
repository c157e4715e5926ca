//! A pass beside somebody else who writes to the same device.

use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use rustix::fs::OFlags;
use volumes::AlignedBuf;

use super::*;

/// How long it may take until something is decided.
const PATIENCE: Duration = Duration::from_secs(50);

/// A device of real blocks of the disk that temporary files lie on, past the cache.
struct Loop(std::path::PathBuf);

impl Loop {
    /// None, and why on stderr, where there are none.
    fn attach(image: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: loop devices need root");
            return None;
        }
        let made = Command::new("losetup")
            .args(["-f", "--show", "--direct-io=on"])
            .arg(image)
            .output();
        match made {
            Ok(output) if output.status.success() => {
                let name = String::from_utf8_lossy(&output.stdout);
                Some(Self(name.trim().into()))
            }
            failed => {
                eprintln!("skipped: losetup does not work here: {failed:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

/// Writes small blocks into the first mebibyte past the cache, one after the other, until
/// it is stopped.
struct Writing(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Writing {
    fn start(device: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(device)
            .unwrap();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let bytes = AlignedBuf::new(1);
            for at in 0.. {
                if stopped.load(SeqCst) {
                    return;
                }
                let offset = at % 256 * 4096;
                file.write_all_at(&bytes.bytes()[..4096], offset).unwrap();
            }
        });
        Self(stop, Some(thread))
    }

    fn stop(mut self) {
        self.0.store(true, SeqCst);
        self.1.take().unwrap().join().unwrap();
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_backs_off_while_somebody_writes_to_its_disk_and_comes_back_after() {
    let world = World::new(192 * MIB);
    let image = world.dir.join("image");
    // Written, or the disk had nothing to read.
    fs::copy(world.source(), &image).unwrap();
    File::open(&image).unwrap().sync_all().unwrap();
    let Some(device) = Loop::attach(&image) else {
        return;
    };
    let (_change, pace) = watch::channel(Pace {
        limit: None,
        polite: true,
    });
    let job = SendJob {
        source: device.0.clone(),
        pacer: Pacer::new(pace),
        ..world.send_job()
    };
    let (_leave, given) = granted();
    let started = world.start_jobs(pair().await, job, (given, 64), |_| {});
    let mut running = started.await;
    let progress = running.sending.clone();
    let held_at = || progress.reads_held_at.load(Relaxed);
    // While nobody else does anything, nothing is held.
    running.pass(1).await;
    running.pass(2).await;
    assert_eq!(held_at(), 0);
    let writing = Writing::start(&device.0);
    let mut pass = 2;
    let began = Instant::now();
    while held_at() == 0 {
        pass += 1;
        running.pass(pass).await;
        assert!(began.elapsed() < PATIENCE, "it does not back off");
    }
    writing.stop();
    let (held, began) = (held_at(), Instant::now());
    while held_at() != 0 && held_at() < held / 2 * 3 {
        pass += 1;
        running.pass(pass).await;
        let now = held_at();
        assert!(began.elapsed() < PATIENCE, "held at {held}, then at {now}");
    }
    running.close().await;
    assert_eq!(held_at(), 0);
}
