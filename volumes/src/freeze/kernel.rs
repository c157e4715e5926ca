//! The system calls that freezing needs and that no safe wrapper offers. Nothing else goes
//! here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};

// Of linux/fs.h: both are said to take an `int`, which the kernel does not look at.
const FREEZE: Opcode = opcode::read_write::<libc::c_int>(b'X', 119);
const THAW: Opcode = opcode::read_write::<libc::c_int>(b'X', 120);

/// Writes out the file system that a file lies on, and holds all writes to it.
///
/// # Errors
/// `EBUSY` where somebody has frozen it, `EOPNOTSUPP` where it cannot be frozen.
pub(super) fn freeze(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
    unsafe { ioctl(file.as_fd(), NoArg::<FREEZE>::new()) }.map_err(io::Error::from)
}

/// Lets go of the file system that a file lies on.
///
/// # Errors
/// `EINVAL` where it is not frozen.
pub(super) fn thaw(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
    unsafe { ioctl(file.as_fd(), NoArg::<THAW>::new()) }.map_err(io::Error::from)
}

/// Keeps all memory of this process in memory, that which it takes later too: while file
/// systems are frozen it may not wait for them to be read or written.
///
/// # Errors
/// Where the process may not lock as much.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: two flags are passed, and no memory.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
