//! The one system call that no safe wrapper offers. Nothing else goes here.
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
