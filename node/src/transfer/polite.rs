//! Reading a source so that its own work does not slow by much, while that is asked for:
//! looks at the figures of its device, and says when the next read may begin.
//!
//! Not here: what follows from the figures (`volumes::Courtesy`), and waiting (`disk`).

use std::time::Duration;

use blocks::Pacing;
use tokio::time::Instant;
use volumes::{Courtesy, DeviceIo, IoCounts, Look, NoDeviceIo, Reading, SourceVolume, give_way};

/// The manners of one reading thread.
pub(super) struct Manners {
    start: Instant,
    is_polite: bool,
    /// None until it is needed, and where the device says nothing.
    watch: Option<Watch>,
    is_told: bool,
}

/// Of a device that says what it does.
struct Watch {
    device: DeviceIo,
    courtesy: Courtesy,
    pacing: Pacing,
    at: Duration,
    counts: IoCounts,
    own_bytes: u64,
    own_time: Duration,
}

/// Whether the next read may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// At this time, or later; to be asked again.
    NotBefore(Instant),
}

impl Manners {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            is_polite: false,
            watch: None,
            is_told: false,
        }
    }

    /// Whether reads give way.
    pub(super) fn is_polite(&self) -> bool {
        self.is_polite
    }

    /// The pace at which reads are held, in bytes a second; 0 while they are not.
    pub(super) fn held_at(&self) -> u64 {
        let watch = self.watch.as_ref();
        let rate = watch.and_then(|watch| watch.courtesy.backing_off());
        rate.map_or(0, |rate| rate.get())
    }

    /// Begins to be polite to a source, or ends it. To be called from the thread that
    /// reads.
    pub(super) fn be(&mut self, is_polite: bool, source: &SourceVolume) {
        if self.is_polite == is_polite {
            return;
        }
        self.is_polite = is_polite;
        if let Err(error) = give_way(is_polite) {
            tracing::debug!("the class of IO was not changed: {error}");
        }
        self.watch = match is_polite {
            true => self.watch(source),
            false => None,
        };
    }

    fn watch(&mut self, source: &SourceVolume) -> Option<Watch> {
        match Watch::new(source, self.start.elapsed()) {
            Ok(watch) => Some(watch),
            Err(error) => {
                self.tell(&error);
                None
            }
        }
    }

    /// Said once in a session: it will not become another.
    fn tell(&mut self, error: &NoDeviceIo) {
        if !self.is_told {
            self.is_told = true;
            tracing::warn!(
                "reading does not back off when the source's own work slows, for it is not seen: {error}"
            );
        }
    }

    /// Whether a read may begin now.
    pub(super) fn turn(&mut self) -> Turn {
        let now = self.start.elapsed();
        let Some(watch) = &mut self.watch else {
            return Turn::Now;
        };
        if now >= watch.courtesy.deadline()
            && let Err(error) = watch.look(now)
        {
            self.watch = None;
            self.tell(&error);
            return Turn::Now;
        }
        let deadline = watch.courtesy.deadline();
        match watch.courtesy.reading() {
            Reading::Full => Turn::Now,
            Reading::Paced(_) if watch.pacing.due() <= now => Turn::Now,
            Reading::Paced(_) => Turn::NotBefore(self.start + watch.pacing.due().min(deadline)),
            Reading::Paused => Turn::NotBefore(self.start + deadline),
        }
    }

    /// So many bytes were read, and it took so long.
    pub(super) fn read(&mut self, bytes: u64, took: Duration) {
        let now = self.start.elapsed();
        let Some(watch) = &mut self.watch else {
            return;
        };
        watch.own_bytes += bytes;
        watch.own_time += took;
        if let Reading::Paced(rate) = watch.courtesy.reading() {
            watch.pacing.spend(now, bytes, rate);
        }
    }
}

impl Watch {
    fn new(source: &SourceVolume, now: Duration) -> Result<Self, NoDeviceIo> {
        let device = DeviceIo::of(source)?;
        Ok(Self {
            counts: device.counts()?,
            device,
            courtesy: Courtesy::new(now, source.identity().is_device()),
            pacing: Pacing::default(),
            at: now,
            own_bytes: 0,
            own_time: Duration::ZERO,
        })
    }

    /// No read of ours is under way.
    fn look(&mut self, now: Duration) -> Result<(), NoDeviceIo> {
        let counts = self.device.counts()?;
        let was = std::mem::replace(&mut self.counts, counts);
        let look = Look {
            time: now.saturating_sub(self.at),
            writes: counts.writes.saturating_sub(was.writes),
            write_time: counts.write_time.saturating_sub(was.write_time),
            reads: counts.reads.saturating_sub(was.reads),
            in_flight: counts.in_flight,
            own_bytes: std::mem::take(&mut self.own_bytes),
            own_time: std::mem::take(&mut self.own_time),
        };
        self.at = now;
        self.courtesy.step(now, &look);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs::File;
    use volumes::LEAST_READ;

    const MIB: u64 = 1 << 20;

    /// Polite to a file, on a disk that says what it does.
    fn polite() -> Option<Manners> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        File::create(&path).unwrap().set_len(MIB).unwrap();
        let source = SourceVolume::open(&path).unwrap();
        let mut manners = Manners::new();
        manners.be(true, &source);
        if manners.watch.is_none() {
            eprintln!("skipped: temporary files lie on no block device");
            return None;
        }
        Some(manners)
    }

    #[test]
    fn reads_wait_for_their_time_once_they_slow_what_others_write() {
        let Some(mut manners) = polite() else { return };
        // First it is found out how fast others are.
        assert!(matches!(manners.turn(), Turn::NotBefore(_)));
        let watch = manners.watch.as_mut().unwrap();
        let mut now = Duration::ZERO;
        for _ in 0..60 {
            let is_quiet = watch.courtesy.reading() == Reading::Paused;
            now = watch.courtesy.deadline();
            let look = Look {
                time: Duration::from_millis(if is_quiet { 100 } else { 500 }),
                writes: 50,
                write_time: Duration::from_millis(if is_quiet { 50 } else { 5_000 }),
                own_bytes: if is_quiet { 0 } else { MIB },
                ..Look::default()
            };
            watch.courtesy.step(now, &look);
        }
        while watch.courtesy.reading() == Reading::Paused {
            now = watch.courtesy.deadline();
            watch.courtesy.step(now, &Look::default());
        }
        assert_eq!(manners.held_at(), LEAST_READ);
        // The clock stands where the looks came to.
        manners.start = Instant::now().checked_sub(now).unwrap();
        assert_eq!(manners.turn(), Turn::Now);
        manners.read(MIB, Duration::from_millis(3));
        let Turn::NotBefore(time) = manners.turn() else {
            panic!("a second is not over");
        };
        assert!(time > Instant::now());
        // Who is not polite any more does not wait.
        let path = std::env::current_exe().unwrap();
        manners.be(false, &SourceVolume::open(&path).unwrap());
        assert_eq!((manners.turn(), manners.held_at()), (Turn::Now, 0));
    }

    #[test]
    fn where_the_device_says_nothing_reads_go_on_and_it_is_told_once() {
        let folder = tempfile::tempdir_in("/dev/shm");
        let Ok(folder) = folder else {
            eprintln!("skipped: /dev/shm is not there");
            return;
        };
        let path = folder.path().join("image");
        File::create(&path).unwrap().set_len(MIB).unwrap();
        let source = SourceVolume::open(&path).unwrap();
        let mut manners = Manners::new();
        for _ in 0..2 {
            manners.be(true, &source);
            assert!(manners.is_told && manners.is_polite());
            assert_eq!(manners.turn(), Turn::Now);
            manners.read(MIB, Duration::ZERO);
            manners.be(false, &source);
        }
    }
}
