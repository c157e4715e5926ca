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

/// The class that is served when no other asks, and the one that is the default, each
/// shifted by `IOPRIO_CLASS_SHIFT`.
const IDLE: libc::c_int = 3 << 13;
const DEFAULT: libc::c_int = 0;

/// Puts the IO of the calling thread into the idle class, or back into the default one.
/// Schedulers that know classes (BFQ, mq-deadline) serve it after all others, and now and
/// then in any case, so that it is never stuck; others take no notice.
///
/// # Errors
/// When the kernel has no classes.
pub fn give_way(is_idle: bool) -> io::Result<()> {
    let class = if is_idle { IDLE } else { DEFAULT };
    // SAFETY: three numbers are passed, and no memory; it is about this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, OF_THREAD, 0, class) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_class_of_one_thread_changes_and_changes_back() {
        // SAFETY: two numbers are passed, and no memory.
        let class = || unsafe { libc::syscall(libc::SYS_ioprio_get, OF_THREAD, 0) } >> 13;
        let before = class();
        let other = std::thread::spawn(move || {
            give_way(true).unwrap();
            let idle = class();
            give_way(false).unwrap();
            (idle, class())
        });
        let (idle, after) = other.join().unwrap();
        assert_eq!(idle, 3);
        assert_ne!(after, 3);
        assert_eq!(class(), before);
    }
}
