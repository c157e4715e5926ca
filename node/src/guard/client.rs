//! The agent's end of its guard.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blocks::{BlockIndex, DirtySet, GroupIndex};
use volumes::{SourceIdentity, SourceVolume};

use super::words::{Answer, Ask, Broken, Line};
use crate::transfer::{ChangeTracker, Collected, TrackerLost, Trackers, TreeName};

/// An answer takes milliseconds; a guard that hangs must not hold up a session.
const PATIENCE: Duration = Duration::from_secs(20);

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
        let connected = UnixStream::connect(socket).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|error| {
            format!(
                "no guard answers at {} ({error}): run `dunlin guard` as root",
                socket.display()
            )
        })?;
        let mut followed = Self {
            line: Line::new(stream),
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
            Ok(None) => Err(self.lost("the guard ended")),
            Err(broken) => Err(self.lost(broken)),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, TrackerLost> {
        let said = self.line.say(ask);
        said.map_err(|broken| self.lost(broken))?;
        self.hear()
    }

    fn done(&mut self, ask: &Ask) -> Result<(), TrackerLost> {
        match self.ask(ask)? {
            Answer::Done => Ok(()),
            answer => Err(self.lost(format!("the guard answered {answer:?}"))),
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
                        let end = first.saturating_add(count).min(into.geometry().blocks());
                        (first..end).for_each(|block| {
                            into.mark(BlockIndex(block));
                        });
                    }
                }
                Answer::Collected {
                    whole_because,
                    is_final,
                } => {
                    return Ok(Collected {
                        whole_because,
                        is_final,
                    });
                }
                answer => return Err(self.lost(format!("the guard answered {answer:?}"))),
            }
            answer = self.hear()?;
        }
    }

    fn owe(&mut self, group: GroupIndex) -> Result<(), TrackerLost> {
        let (tree, group) = (self.tree, group.0);
        self.done(&Ask::Owe { tree, group })
    }

    fn settled(&mut self) -> Result<(), TrackerLost> {
        self.done(&Ask::Settled { tree: self.tree })
    }
}
