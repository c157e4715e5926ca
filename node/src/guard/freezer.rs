//! The agent's end of what its guard makes still: a connection for each question, so that a
//! guard that was started again is found.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use keys::MigrationId;

use super::client::{ENDED, OUT_OF_TURN, PATIENCE, line_to, no_guard};
use super::words::{Answer, Ask, AskStill, Broken};
use crate::stillness::{Freezer, Frozen, NotStill, Prepared, SourceDisk, Stillness, Thawed};

/// Longer than the guard itself waits for a disk that is looked at or thawed.
const FOR_A_DISK: Duration = Duration::from_secs(90);

/// Gigabytes may have to be written to a slow disk.
const FOR_A_SYNC: Duration = Duration::from_secs(15 * 60);

/// The disks of this machine, by the guard that listens here.
pub fn freezer(socket: PathBuf) -> impl Freezer + 'static {
    AtGuard { socket }
}

struct AtGuard {
    socket: PathBuf,
}

impl AtGuard {
    fn ask(
        &self,
        patience: Duration,
        migration: MigrationId,
        ask: AskStill,
    ) -> Result<Answer, NotStill> {
        let mut line = line_to(&self.socket, patience).map_err(|error| NotStill::NoGuard {
            why: no_guard(&self.socket, &error),
        })?;
        let lost = |why: String| NotStill::Lost { why };
        let not_heard = |broken: Broken| match broken {
            Broken::Io(error) if is_late(&error) => {
                lost(format!("the guard did not answer within {patience:?}"))
            }
            Broken::Io(error) => lost(format!("{ENDED} ({error})")),
            broken => lost(broken.to_string()),
        };
        match line.say(&Ask::Still { migration, ask }) {
            Err(Broken::Encode(error)) => return Err(NotStill::refused(error)),
            // It may have said why before it closed.
            Err(Broken::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            said => said.map_err(not_heard)?,
        }
        match line.hear().map_err(not_heard)? {
            Some(Answer::Not(why)) => Err(NotStill::Refused { why }),
            Some(answer) => Ok(answer),
            None => Err(lost(ENDED.to_owned())),
        }
    }

    fn thawed(&self, migration: MigrationId, ask: AskStill) -> Result<Thawed, NotStill> {
        match self.ask(FOR_A_DISK, migration, ask)? {
            Answer::Thawed(thawed) => Ok(thawed),
            _ => Err(out_of_turn()),
        }
    }

    fn done(&self, migration: MigrationId, ask: AskStill) -> Result<(), NotStill> {
        match self.ask(FOR_A_DISK, migration, ask)? {
            Answer::Done => Ok(()),
            _ => Err(out_of_turn()),
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::TimedOut
}

fn out_of_turn() -> NotStill {
    let why = OUT_OF_TURN.to_owned();
    NotStill::Lost { why }
}

impl Freezer for AtGuard {
    fn prepare(&self, migration: MigrationId, disks: &[SourceDisk]) -> Result<Prepared, NotStill> {
        let disks = disks.to_vec();
        match self.ask(FOR_A_DISK, migration, AskStill::Prepare { disks })? {
            Answer::Prepared(prepared) => Ok(prepared),
            _ => Err(out_of_turn()),
        }
    }

    fn sync(&self, migration: MigrationId) -> Result<Duration, NotStill> {
        match self.ask(FOR_A_SYNC, migration, AskStill::Sync)? {
            Answer::Synced(took) => Ok(took),
            _ => Err(out_of_turn()),
        }
    }

    fn freeze(&self, migration: MigrationId, deadline: Duration) -> Result<Frozen, NotStill> {
        let ask = AskStill::Freeze { deadline };
        // What cannot be frozen in time is undone only once the kernel lets go of it.
        match self.ask(deadline.saturating_add(FOR_A_DISK), migration, ask)? {
            Answer::Frozen(frozen) => Ok(frozen),
            _ => Err(out_of_turn()),
        }
    }

    fn thaw(&self, migration: MigrationId) -> Result<Thawed, NotStill> {
        self.thawed(migration, AskStill::Thaw)
    }

    fn keep(&self, migration: MigrationId) -> Result<(), NotStill> {
        self.done(migration, AskStill::Keep)
    }

    fn stillness(&self, migration: MigrationId) -> Result<Stillness, NotStill> {
        match self.ask(PATIENCE, migration, AskStill::Stillness)? {
            Answer::Stillness(stillness) => Ok(stillness),
            _ => Err(out_of_turn()),
        }
    }

    fn power_off(&self, migration: MigrationId) -> Result<(), NotStill> {
        self.done(migration, AskStill::PowerOff)
    }

    fn release(&self, migration: MigrationId) -> Result<Thawed, NotStill> {
        self.thawed(migration, AskStill::Release)
    }
}
