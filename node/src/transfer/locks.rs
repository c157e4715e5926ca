//! Waiting for what an ended session still holds.
//!
//! Not here: locks themselves; volumes, trees and notes each lock their file.

use std::thread;
use std::time::{Duration, Instant};

/// A session that was cut off still flushes; the next one waits this long for
/// its locks.
const BUSY: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Opens something that a session before may still hold. Blocks the thread.
pub(super) fn while_busy<T, E>(
    mut open: impl FnMut() -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + BUSY;
    loop {
        match open() {
            // A lock on a file cannot be waited for with a limit.
            Err(error) if is_busy(&error) && Instant::now() < deadline => thread::sleep(LOOK),
            opened => return opened,
        }
    }
}
