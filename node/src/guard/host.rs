//! What the guard does to its process and machine as a whole, as values: nothing that tests a
//! guard can turn its machine off.

use std::io;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

/// How long a machine that is to be turned off waits for what is written out.
const FOR_OTHER_DISKS: Duration = Duration::from_secs(10);

/// Something that is done once, or fails.
type Do = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// See the module's page.
pub(super) struct Host {
    /// Keeps the memory of this process in memory.
    pub(super) lock_memory: Do,
    /// Turns the machine off; what other disks have cached is written out before, if that does
    /// not take long.
    pub(super) power_off: Do,
}

impl Host {
    /// The machine that this runs on, which is turned off only where its owner allows it.
    pub(super) fn real(may_power_off: bool) -> Self {
        Self {
            lock_memory: Box::new(volumes::freeze::lock_memory),
            power_off: match may_power_off {
                true => Box::new(power_off),
                false => Box::new(|| Err(io::Error::other("its guard runs with --no-power-off"))),
            },
        }
    }
}

/// A machine whose root is frozen cannot be stopped by what runs on it, which would write.
fn power_off() -> io::Result<()> {
    if cfg!(test) {
        return Err(io::Error::other("a test does not turn its machine off"));
    }
    // Of disks that are not moved and not frozen: written out, as far as that is done in time.
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rustix::fs::sync();
        // Nobody waits any more where it took too long.
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(FOR_OTHER_DISKS);
    reboot(RebootCommand::PowerOff)?;
    Ok(())
}
