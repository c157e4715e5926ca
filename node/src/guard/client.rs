//! The agent's end of its guard.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blocks::{BlockIndex, DirtySet, GroupIndex};
use socket2::{Domain, SockAddr, Socket, Type};
use volumes::{SourceIdentity, SourceVolume};

use super::words::{Answer, Ask, Broken, Line};
use crate::transfer::{ChangeTracker, Collected, TrackerLost, Trackers, TreeName};

/// An answer takes milliseconds; a guard that hangs must not hold up a session.
/// Less than a tree that is in use is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);

pub(super) const ENDED: &str = "the guard ended or hangs: start `dunlin guard` again";

pub(super) const OUT_OF_TURN: &str = "the guard said what nobody asked: run the same version of it";

/// Connects to whoever listens, who may be too busy: that is told at once.
///
/// # Errors
/// Where nobody listens, or is too busy.
pub(super) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let made = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    made.set_nonblocking(true)?;
    made.connect(&SockAddr::unix(socket)?)?;
    made.set_nonblocking(false)?;
    Ok(OwnedFd::from(made).into())
}

/// A line to a guard, which root or this user runs: another could say that nothing was
/// written. An answer is waited for that long.
pub(super) fn line_to(socket: &Path, patience: Duration) -> io::Result<Line> {
    let stream = connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = Line::new(stream);
    match line.is_with_us() {
        Ok(true) => Ok(line),
        _ => Err(io::Error::other("another user runs it")),
    }
}

/// Why there is no line, with what to do.
pub(super) fn no_guard(socket: &Path, error: &io::Error) -> String {
    let shown = socket.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("the guard at {shown} does not answer this user: run both as the same")
        }
        _ => format!("no guard answers at {shown} ({error}): run `dunlin guard` as root"),
    }
}

/// Finds trackers at the guard that listens here.
pub fn trackers(socket: PathBuf) -> Trackers {
    Trackers::new(move |volume, tree| match volume.identity() {
        SourceIdentity::Device { number } => {
            let followed = AtGuard::follow(&socket, volume, (number, tree))?;
            Ok(Box::new(followed) as Box<dyn ChangeTracker>)
        }
        _ => Err("it is a file: only what is written to a device can be followed".to_owned()),
    })
}

/// One volume at the guard.
struct AtGuard {
    line: Line,
    tree: TreeName,
    volume: PathBuf,
}

impl AtGuard {
    fn follow(
        socket: &Path,
        volume: &SourceVolume,
        (device, tree): (u64, TreeName),
    ) -> Result<Self, String> {
        let line = line_to(socket, PATIENCE).map_err(|error| no_guard(socket, &error))?;
        let mut followed = Self {
            line,
            tree,
            volume: volume.path().to_owned(),
        };
        let ask = Ask::Follow {
            tree,
            path: volume.path().to_owned(),
            device,
            length: volume.length(),
        };
        followed.done(&ask).map_err(|lost| lost.why)?;
        Ok(followed)
    }

    fn lost(&self, why: impl ToString) -> TrackerLost {
        TrackerLost {
            volume: self.volume.clone(),
            why: why.to_string(),
        }
    }

    fn hear(&mut self) -> Result<Answer, TrackerLost> {
        let heard: Result<Option<Answer>, Broken> = self.line.hear();
        match heard {
            Ok(Some(Answer::Not(why))) => Err(self.lost(why)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.lost(ENDED)),
            Err(Broken::Io(error)) => Err(self.lost(format!("{ENDED} ({error})"))),
            Err(broken) => Err(self.lost(broken)),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, TrackerLost> {
        let said = self.line.say(ask);
        said.map_err(|broken| match broken {
            Broken::Io(error) => self.lost(format!("{ENDED} ({error})")),
            broken => self.lost(broken),
        })?;
        self.hear()
    }

    fn done(&mut self, ask: &Ask) -> Result<(), TrackerLost> {
        match self.ask(ask)? {
            Answer::Done => Ok(()),
            _ => Err(self.lost(OUT_OF_TURN)),
        }
    }
}

impl ChangeTracker for AtGuard {
    fn collect(&mut self, into: &mut DirtySet) -> Result<Collected, TrackerLost> {
        let mut answer = self.ask(&Ask::Collect { tree: self.tree })?;
        loop {
            match answer {
                Answer::Runs(runs) => {
                    for (first, count) in runs {
                        let end = first.saturating_add(count.into());
                        let end = end.min(into.geometry().blocks());
                        (first..end).for_each(|block| {
                            into.mark(BlockIndex(block));
                        });
                    }
                }
                Answer::Collected {
                    pass,
                    whole_because,
                    is_final,
                    is_followed,
                    how,
                } => {
                    return Ok(Collected {
                        pass,
                        whole_because,
                        is_final,
                        is_followed,
                        how,
                    });
                }
                _ => return Err(self.lost(OUT_OF_TURN)),
            }
            answer = self.hear()?;
        }
    }

    fn owe(&mut self, group: GroupIndex) -> Result<(), TrackerLost> {
        let (tree, group) = (self.tree, group.0);
        self.done(&Ask::Owe { tree, group })
    }

    fn settled(&mut self, pass: u64) -> Result<(), TrackerLost> {
        let tree = self.tree;
        self.done(&Ask::Settled { tree, pass })
    }
}
