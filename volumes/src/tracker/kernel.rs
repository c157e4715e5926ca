//! The system calls that a tracker needs and that no safe wrapper offers: maps and programs
//! of BPF, events of tracepoints, a barrier for all processors, and memory shared with a
//! map. Nothing else goes here.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU16, AtomicU64, fence};

use super::assembler::Word;

// Of linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const PROGRAM_LOAD: libc::c_int = 5;
#[cfg(test)]
const ENABLE_STATISTICS: libc::c_int = 32;
const OF_TRACEPOINTS: u32 = 5;
const ARRAY: u32 = 2;
const CAN_BE_MAPPED: u32 = 1 << 10;

// Of linux/perf_event.h.
const TRACEPOINT: u32 = 2;
const EVENT_BYTES: usize = 128;
const CLOSE_ON_EXEC: libc::c_ulong = 8;
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;

/// Of linux/membarrier.h.
const GLOBAL: libc::c_int = 1;

/// What the verifier says of a program is cut to this.
const LOG_BYTES: usize = 64 * 1024;

/// The kernel looks at the licence of a program for the functions that it may call.
const LICENCE: &str = "Apache-2.0";

#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[cfg(test)]
#[repr(C)]
struct StatisticsAttributes {
    kind: u32,
}

#[repr(C)]
struct LoadAttributes {
    kind: u32,
    words: u32,
    program: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// The attributes are those of the command, and what their addresses lead to is as long as
/// they say and lives through the call.
// SAFETY: for callers to see to, as above.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    let bytes = size_of::<T>();
    // SAFETY: by the contract of this function; the kernel reads `bytes` from there.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            bytes,
        )
    };
    match RawFd::try_from(result) {
        Ok(made) if made >= 0 => Ok(made),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Owns a descriptor that a call has just made.
fn owned(made: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(made) }
}

/// What programs and we have in common.
#[derive(Debug)]
pub(super) struct Map(OwnedFd);

impl Map {
    /// An array of values of so many bytes, all zero, of which memory is shared by
    /// [`Seen`] and [`Told`].
    pub(super) fn array(value_bytes: u32, entries: u32) -> io::Result<Self> {
        let mut attributes = MapAttributes {
            kind: ARRAY,
            key_bytes: 4,
            value_bytes,
            entries,
            flags: CAN_BE_MAPPED,
        };
        // SAFETY: these are the attributes of the command, without an address.
        unsafe { bpf(MAP_CREATE, &mut attributes) }.map(|made| Self(owned(made)))
    }

    /// Its descriptor, for a program that uses it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A program that the kernel has taken.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    /// Has the kernel check it and take it; else what it says of it.
    pub(super) fn load(words: &[Word]) -> Result<Self, (io::Error, String)> {
        let load = |log: &mut [u8]| load(words, log);
        silently_first(load).map(|made| Self(owned(made)))
    }

    /// Runs it at each event of this number, on every processor, for as long as what is
    /// given is kept.
    pub(super) fn attach(self, event: u64) -> io::Result<Attached> {
        let mut attributes = [0u8; EVENT_BYTES];
        attributes[..4].copy_from_slice(&TRACEPOINT.to_ne_bytes());
        attributes[4..8].copy_from_slice(&(EVENT_BYTES as u32).to_ne_bytes());
        attributes[8..16].copy_from_slice(&event.to_ne_bytes());
        attributes[16..24].copy_from_slice(&1u64.to_ne_bytes());
        // Programs of a tracepoint run on all processors, whichever the event is opened for.
        let (any_process, processor, no_group) = (-1, 0, -1);
        // SAFETY: the attributes have the length that they say, and live through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_mut_ptr(),
                any_process,
                processor,
                no_group,
                CLOSE_ON_EXEC,
            )
        };
        let opened = match RawFd::try_from(result) {
            Ok(opened) if opened >= 0 => owned(opened),
            _ => return Err(io::Error::last_os_error()),
        };
        for (request, value) in [(SET_BPF, self.0.as_raw_fd()), (ENABLE, 0)] {
            // SAFETY: a number is passed; both descriptors are open.
            let result = unsafe { libc::ioctl(opened.as_raw_fd(), request, value) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(Attached {
            _event: opened,
            _program: self,
        })
    }
}

/// A program that runs at an event.
#[derive(Debug)]
pub(super) struct Attached {
    _event: OwnedFd,
    _program: Program,
}

/// How often a program has run, and how long in all.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) nanoseconds: u64,
}

#[cfg(test)]
impl Attached {
    /// What the kernel counted of it while [`count_runs`] had it do so.
    pub(super) fn runs(&self) -> io::Result<Runs> {
        let shown = format!("/proc/self/fdinfo/{}", self._program.0.as_raw_fd());
        let text = std::fs::read_to_string(shown)?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim().parse().ok());
            number.ok_or_else(|| io::Error::other(format!("the kernel does not say {name}")))
        };
        Ok(Runs {
            count: number("run_cnt:")?,
            nanoseconds: number("run_time_ns:")?,
        })
    }
}

/// Has the kernel count and time what programs run, for as long as what is given is kept.
#[cfg(test)]
pub(super) fn count_runs() -> io::Result<OwnedFd> {
    let mut attributes = StatisticsAttributes { kind: 0 };
    // SAFETY: these are the attributes of the command, without an address.
    unsafe { bpf(ENABLE_STATISTICS, &mut attributes) }.map(owned)
}

/// Has the kernel take a program, and say what it thinks of it where there is room for that.
fn load(words: &[Word], log: &mut [u8]) -> io::Result<RawFd> {
    let licence = CString::new(LICENCE).expect("the licence has no zero in it");
    let mut attributes = LoadAttributes {
        kind: OF_TRACEPOINTS,
        words: u32::try_from(words.len()).unwrap_or(u32::MAX),
        program: words.as_ptr().addr() as u64,
        licence: licence.as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_bytes: u32::try_from(log.len()).unwrap_or(0),
        log: match log.is_empty() {
            true => 0,
            false => log.as_mut_ptr().addr() as u64,
        },
        kernel: 0,
        flags: 0,
    };
    // SAFETY: program, licence and log live through the call and are as long as it says.
    unsafe { bpf(PROGRAM_LOAD, &mut attributes) }
}

/// Loads without room for what the kernel says, and again with it only where that fails: of
/// a good program it may say more than there is room for, and refuses it then.
fn silently_first<T>(
    mut load: impl FnMut(&mut [u8]) -> io::Result<T>,
) -> Result<T, (io::Error, String)> {
    load(&mut []).map_err(|error| {
        let mut log = vec![0u8; LOG_BYTES];
        // It fails again, for the same reason; the log is what it is for.
        let _ = load(&mut log);
        let text: Vec<u8> = log.into_iter().take_while(|byte| *byte != 0).collect();
        let text = String::from_utf8_lossy(&text);
        let last = text.trim_end().lines().rev().take(3);
        (error, last.collect::<Vec<_>>().join(" < "))
    })
}

/// Waits until every program that ran on some processor when it was called has ended: they
/// run where the kernel may not be preempted, and this waits for each processor to have
/// been where it may.
pub(super) fn wait_for_programs() -> io::Result<()> {
    // SAFETY: numbers are passed, and no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Memory of an array map, which programs write at any time.
#[derive(Debug)]
struct Mapped {
    memory: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: it is memory that belongs to nobody, and is looked at by atomic types alone.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(map: &Map, bytes: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, and a map that is shared keeps its length.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                map.descriptor(),
                0,
            )
        };
        match NonNull::new(memory) {
            Some(memory) if memory.as_ptr() != libc::MAP_FAILED => Ok(Self { memory, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where the number of this index lies, among numbers of this type.
    ///
    /// # Panics
    /// When there is none: indexes come from how the map was laid out.
    fn at<T>(&self, index: usize) -> *mut T {
        let length = self.bytes / size_of::<T>();
        assert!(index < length, "number {index} of {length}");
        // SAFETY: it lies within what is mapped, as was just seen.
        unsafe { self.memory.as_ptr().cast::<T>().add(index) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody is given a pointer into it.
        unsafe { libc::munmap(self.memory.as_ptr(), self.bytes) };
    }
}

/// Memory of an array map in which nobody but programs can store. Only relaxed loads are
/// allowed in memory that cannot be written; fences make an order of them.
#[derive(Debug)]
pub(super) struct Seen(Mapped);

impl Seen {
    /// The first so many bytes of a map.
    pub(super) fn new(map: &Map, bytes: usize) -> io::Result<Self> {
        Mapped::new(map, bytes, libc::PROT_READ).map(Self)
    }

    /// A number of 16 bits, in no order with others.
    pub(super) fn half(&self, index: usize) -> u16 {
        // SAFETY: it is mapped for as long as `self` is, aligned since a page is, and nobody
        // stores there but atomically.
        unsafe { AtomicU16::from_ptr(self.0.at(index)) }.load(Relaxed)
    }

    /// A number of 64 bits, read after all that was read before and before all that is
    /// read after.
    pub(super) fn double(&self, index: usize) -> u64 {
        fence(SeqCst);
        // SAFETY: as for a half.
        let number = unsafe { AtomicU64::from_ptr(self.0.at(index)) }.load(Relaxed);
        fence(SeqCst);
        number
    }
}

/// Memory of an array map in which this process stores for programs.
#[derive(Debug)]
pub(super) struct Told(Mapped);

impl Told {
    /// The first so many bytes of a map.
    pub(super) fn new(map: &Map, bytes: usize) -> io::Result<Self> {
        Mapped::new(map, bytes, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    /// Stores a number of 16 bits.
    pub(super) fn set_half(&self, index: usize, number: u16) {
        // SAFETY: it is mapped for as long as `self` is, to be written too, aligned since a
        // page is, and atomics may be read by others.
        unsafe { AtomicU16::from_ptr(self.0.at(index)) }.store(number, SeqCst);
    }
}

/// Opens a file of tracefs, which is mounted for nobody else.
pub(super) fn trace_file(path: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, openat};
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };
    let opened = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(opened.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let root = fsmount(opened.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(root, path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_loaded_without_a_log_first() {
        let mut rooms = vec![];
        // As of a kernel that has more to say of a good program than there is room for.
        let loaded = silently_first(|log| {
            rooms.push(log.len());
            match log.is_empty() {
                true => Ok(7),
                false => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            }
        });
        assert!(matches!(loaded, Ok(7)), "{loaded:?}");
        assert_eq!(rooms, [0]);
        let refused: Result<(), _> = silently_first(|log| {
            let says = b"a\nb\nc\nd\n";
            if let Some(room) = log.get_mut(..says.len()) {
                room.copy_from_slice(says);
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            Err(io::Error::from_raw_os_error(libc::EACCES))
        });
        let (error, says) = refused.expect_err("it always fails");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        assert_eq!(says, "d < c < b");
    }

    #[test]
    fn what_the_kernel_has_against_a_program_is_told() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: programs of the kernel need root");
            return;
        }
        // It ends without a result.
        let refused = Program::load(&[[0x95, 0, 0, 0, 0, 0, 0, 0]]);
        let (error, says) = refused.map(drop).expect_err("it is no program");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        assert!(says.contains("R0 !read_ok"), "{says}");
    }
}
