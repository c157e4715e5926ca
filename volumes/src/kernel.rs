//! The system calls that no safe wrapper offers. Nothing else goes here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Starts writing the dirty pages of a range of bytes and does not wait.
///
/// # Errors
/// When the file system does not support it, or writing already failed.
pub(crate) fn start_writeback(file: &File, range: Range<u64>) -> io::Result<()> {
    let offset = i64::try_from(range.start).map_err(io::Error::other)?;
    let len = i64::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    // SAFETY: no memory is passed; the descriptor is open for as long as
    // `file` is borrowed, and the kernel checks the numbers.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `IOPRIO_WHO_PROCESS` of linux/ioprio.h; with 0 it is the calling thread.
const OF_THREAD: libc::c_int = 1;

/// The class and level of IO that a thread has: as somebody set it for the process, or
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoClass(libc::c_long);

/// Puts the IO of the calling thread into the idle class, and gives what it was in.
/// Schedulers that know classes (BFQ, mq-deadline) serve it after all others, and now and
/// then in any case, so that it is never stuck; others take no notice.
///
/// # Errors
/// When the kernel has no classes.
pub fn give_way() -> io::Result<IoClass> {
    let was = IoClass::of_thread()?;
    IoClass::IDLE.take_up()?;
    Ok(was)
}

impl IoClass {
    /// The class that is served when no other asks, shifted by `IOPRIO_CLASS_SHIFT`.
    pub const IDLE: Self = Self(3 << 13);

    /// Of the calling thread.
    ///
    /// # Errors
    /// When the kernel has no classes.
    pub fn of_thread() -> io::Result<Self> {
        // SAFETY: two numbers are passed, and no memory; it is about this thread alone.
        let class = unsafe { libc::syscall(libc::SYS_ioprio_get, OF_THREAD, 0) };
        match class {
            0.. => Ok(Self(class)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Puts the IO of the calling thread into this class.
    ///
    /// # Errors
    /// When the kernel has no classes, or this one takes rights that the process lost.
    pub fn take_up(self) -> io::Result<()> {
        // SAFETY: three numbers are passed, and no memory; it is about this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_ioprio_set, OF_THREAD, 0, self.0) };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_class_of_one_thread_changes_and_changes_back_to_what_was_set() {
        let class = || IoClass::of_thread().unwrap();
        let before = class();
        // Best effort, at the lowest level.
        let set = IoClass(2 << 13 | 7);
        let other = std::thread::spawn(move || {
            set.take_up().unwrap();
            let was = give_way().unwrap();
            let idle = class();
            was.take_up().unwrap();
            (idle, class())
        });
        assert_eq!(other.join().unwrap(), (IoClass::IDLE, set));
        assert_eq!(class(), before);
    }
}
