//! Reading a source so that its own work does not slow by much, while that is asked for:
//! the manners of one reading thread.
//!
//! Not here: how fast those may read who share a disk (`volumes::Disks`), and waiting
//! (`disk`).

use std::time::Duration;

use tokio::time::Instant;
use volumes::{Disks, IoClass, NoDeviceIo, Seat, SourceVolume, give_way};

/// The disks that the sessions of an agent read and are polite to, and the clock that they
/// have together. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    start: Instant,
    disks: Disks,
}

impl Shared {
    pub(super) fn new(disks: Disks) -> Self {
        let start = Instant::now();
        Self { start, disks }
    }
}

/// The manners of one reading thread.
pub(super) struct Manners {
    shared: Shared,
    is_polite: bool,
    /// What the thread's IO was in before.
    class: Option<IoClass>,
    /// None until it is needed, and where the disk says nothing.
    seat: Option<Seat>,
    is_told: bool,
}

/// Whether the next read may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has begun, until it is told how it ended.
    Now,
    /// At this time, or later; to be asked again.
    NotBefore(Instant),
}

impl Manners {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            is_polite: false,
            class: None,
            seat: None,
            is_told: false,
        }
    }

    /// Whether reads give way.
    pub(super) fn is_polite(&self) -> bool {
        self.is_polite
    }

    /// The pace at which all who read the disk are held together, in bytes a second; 0
    /// while they are not.
    pub(super) fn held_at(&self) -> u64 {
        self.seat.as_ref().map_or(0, Seat::held_at)
    }

    /// Begins to be polite to a source, or ends it. To be called from the thread that
    /// reads.
    pub(super) fn be(&mut self, is_polite: bool, source: &SourceVolume) {
        if self.is_polite == is_polite {
            return;
        }
        self.is_polite = is_polite;
        let changed = match is_polite {
            true => give_way().map(|class| self.class = Some(class)),
            false => self.class.take().map_or(Ok(()), IoClass::take_up),
        };
        if let Err(error) = changed {
            tracing::debug!("the class of IO was not changed: {error}");
        }
        self.seat = match is_polite {
            true => self.seat(source),
            false => None,
        };
    }

    fn seat(&mut self, source: &SourceVolume) -> Option<Seat> {
        match self.shared.disks.seat(self.shared.start.elapsed(), source) {
            Ok(seat) => Some(seat),
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
        let start = self.shared.start;
        let Some(seat) = &mut self.seat else {
            return Turn::Now;
        };
        match seat.turn(start.elapsed()) {
            Ok(None) => Turn::Now,
            Ok(Some(time)) => Turn::NotBefore(start + time),
            Err(error) => {
                self.seat = None;
                self.tell(&error);
                Turn::Now
            }
        }
    }

    /// The read that began ended: so many bytes, and it took so long.
    pub(super) fn read(&mut self, bytes: u64, took: Duration) {
        if let Some(seat) = &mut self.seat {
            seat.read(self.shared.start.elapsed(), bytes, took);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs::File;
    use volumes::{Figures, IoCounts};

    const MIB: u64 = 1 << 20;

    fn source_in(folder: &std::path::Path) -> SourceVolume {
        let path = folder.join("image");
        File::create(&path).unwrap().set_len(MIB).unwrap();
        SourceVolume::open(&path).unwrap()
    }

    #[test]
    fn who_is_not_polite_any_more_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let source = source_in(folder.path());
        let disks = Disks::found_by(|_| {
            Ok(Figures {
                disk: "disk".into(),
                is_direct: false,
                counts: Box::new(|| Ok(IoCounts::default())),
                commits: Box::new(|| Some(0)),
            })
        });
        let mut manners = Manners::new(Shared::new(disks));
        manners.be(true, &source);
        assert!(matches!(manners.turn(), Turn::NotBefore(_)));
        manners.be(false, &source);
        assert_eq!((manners.turn(), manners.held_at()), (Turn::Now, 0));
    }

    #[test]
    fn reads_of_who_is_polite_are_served_after_all_others_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let source = source_in(folder.path());
        let reading = std::thread::spawn(move || {
            let class = || IoClass::of_thread().unwrap();
            let mut manners = Manners::new(Shared::new(Disks::default()));
            let before = class();
            manners.be(true, &source);
            let polite = class();
            manners.be(false, &source);
            (before, polite, class())
        });
        let (before, polite, after) = reading.join().unwrap();
        assert_ne!(before, IoClass::IDLE);
        assert_eq!((polite, after), (IoClass::IDLE, before));
    }

    #[test]
    fn where_the_device_says_nothing_reads_go_on_and_it_is_told_once() {
        let folder = tempfile::tempdir_in("/dev/shm");
        let Ok(folder) = folder else {
            eprintln!("skipped: /dev/shm is not there");
            return;
        };
        let source = source_in(folder.path());
        let mut manners = Manners::new(Shared::new(Disks::default()));
        for _ in 0..2 {
            manners.be(true, &source);
            assert!(manners.is_told && manners.is_polite());
            assert_eq!(manners.turn(), Turn::Now);
            manners.read(MIB, Duration::ZERO);
            manners.be(false, &source);
        }
    }
}
