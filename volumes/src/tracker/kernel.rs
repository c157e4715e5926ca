//! The system calls that a tracker needs and that no safe wrapper offers: maps and programs
//! of BPF, events of tracepoints, a barrier for all processors, and memory shared with a
//! map. Nothing else goes here.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU64};

use super::assembler::Word;

// Of linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const OF_TRACEPOINTS: u32 = 5;
const HASH: u32 = 1;
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

#[repr(C)]
struct UpdateAttributes {
    map: u32,
    _unused: u32,
    key: u64,
    value: u64,
    flags: u64,
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
    /// One from 32 bits to values of so many bytes, of at most so many entries.
    pub(super) fn hash(value_bytes: u32, entries: u32) -> io::Result<Self> {
        Self::new(HASH, value_bytes, entries, 0)
    }

    /// An array of values of so many bytes, all zero, of which memory is shared by
    /// [`Shared::new`].
    pub(super) fn array(value_bytes: u32, entries: u32) -> io::Result<Self> {
        Self::new(ARRAY, value_bytes, entries, CAN_BE_MAPPED)
    }

    fn new(kind: u32, value_bytes: u32, entries: u32, flags: u32) -> io::Result<Self> {
        let mut attributes = MapAttributes {
            kind,
            key_bytes: 4,
            value_bytes,
            entries,
            flags,
        };
        // SAFETY: these are the attributes of the command, without an address.
        unsafe { bpf(MAP_CREATE, &mut attributes) }.map(|made| Self(owned(made)))
    }

    /// Sets the value of a key.
    pub(super) fn set<const BYTES: usize>(&self, key: u32, value: [u8; BYTES]) -> io::Result<()> {
        let mut attributes = UpdateAttributes {
            map: self.descriptor().unsigned_abs(),
            _unused: 0,
            key: (&raw const key).addr() as u64,
            value: value.as_ptr().addr() as u64,
            flags: 0,
        };
        // SAFETY: key and value live through the call. That the value is as long as those of
        // the map is for its only user to see to, which makes maps and values of one type.
        unsafe { bpf(MAP_UPDATE, &mut attributes) }.map(drop)
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
        let licence = CString::new(LICENCE).expect("the licence has no zero in it");
        let mut log = vec![0u8; LOG_BYTES];
        let mut attributes = LoadAttributes {
            kind: OF_TRACEPOINTS,
            words: u32::try_from(words.len()).unwrap_or(u32::MAX),
            program: words.as_ptr().addr() as u64,
            licence: licence.as_ptr().addr() as u64,
            log_level: 1,
            log_bytes: u32::try_from(log.len()).unwrap_or(0),
            log: log.as_mut_ptr().addr() as u64,
            kernel: 0,
            flags: 0,
        };
        // SAFETY: program, licence and log live through the call and are as long as it says.
        let loaded = unsafe { bpf(PROGRAM_LOAD, &mut attributes) };
        loaded.map(|made| Self(owned(made))).map_err(|error| {
            let text: Vec<u8> = log.into_iter().take_while(|byte| *byte != 0).collect();
            let text = String::from_utf8_lossy(&text);
            let last = text.trim_end().lines().rev().take(3);
            (error, last.collect::<Vec<_>>().join(" < "))
        })
    }

    /// Runs it at each event of this number, on every processor, for as long as what is
    /// given is kept.
    pub(super) fn attach(&self, event: u64) -> io::Result<OwnedFd> {
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
        Ok(opened)
    }
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

/// The memory of an array map, which programs write at any time.
#[derive(Debug)]
pub(super) struct Shared {
    memory: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: it is memory that belongs to nobody, and is looked at by atomic types alone.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The first so many bytes of a map; `is_read_only` where nobody is to store there.
    pub(super) fn new(map: &Map, bytes: usize, is_read_only: bool) -> io::Result<Self> {
        let protection = match is_read_only {
            true => libc::PROT_READ,
            false => libc::PROT_READ | libc::PROT_WRITE,
        };
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

    /// As numbers of 16 bits.
    pub(super) fn halves(&self) -> &[AtomicU16] {
        let length = self.bytes / size_of::<AtomicU16>();
        // SAFETY: it is mapped for as long as `self` is, aligned to a page, and atomics may
        // be changed by others.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), length) }
    }

    /// As numbers of 64 bits.
    pub(super) fn doubles(&self) -> &[AtomicU64] {
        let length = self.bytes / size_of::<AtomicU64>();
        // SAFETY: as for the halves.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), length) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody has a slice of it any more.
        unsafe { libc::munmap(self.memory.as_ptr(), self.bytes) };
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
