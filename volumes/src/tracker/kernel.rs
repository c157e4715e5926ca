//! The system calls that a tracker needs and that no safe wrapper offers: maps and programs
//! of BPF, events of tracepoints, a barrier for all processors, and memory shared with a
//! map or with an event's ring. Nothing else goes here.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
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
const SET_FILTER: libc::c_ulong = 0x4008_2406;
const ENABLE: libc::c_ulong = 0x2400;
const SAMPLE_RAW: u64 = 1 << 10;
/// Disabled until it is enabled, and woken by bytes.
const RING_FLAGS: u64 = 1 | 1 << 14;
/// Numbers of 64 bits of the page before a ring: how far the kernel has written, how far we
/// have read, and where the ring begins and how long it is.
const WRITTEN: usize = 128;
const READ: usize = 129;
const BEGINS: usize = 130;
const LENGTH: usize = 131;
/// A record begins with its kind (32 bits), 16 bits of flags, and its length (16 bits).
const RECORD_HEAD: usize = 8;

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
        // Programs of a tracepoint run on all processors, whichever the event is opened for.
        let opened = open_event(event, 0, &mut [0; EVENT_BYTES])?;
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

/// Opens the tracepoint of this number on a processor, for all processes. What else its
/// attributes say is in them already.
fn open_event(
    event: u64,
    processor: u32,
    attributes: &mut [u8; EVENT_BYTES],
) -> io::Result<OwnedFd> {
    attributes[..4].copy_from_slice(&TRACEPOINT.to_ne_bytes());
    attributes[4..8].copy_from_slice(&(EVENT_BYTES as u32).to_ne_bytes());
    attributes[8..16].copy_from_slice(&event.to_ne_bytes());
    attributes[16..24].copy_from_slice(&1u64.to_ne_bytes());
    let (any_process, no_group) = (-1, -1);
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
    match RawFd::try_from(result) {
        Ok(opened) if opened >= 0 => Ok(owned(opened)),
        _ => Err(io::Error::last_os_error()),
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

// SAFETY: it is memory that belongs to nobody. It is looked at by atomic types, and where a
// ring's records lie by one thread at a time, which has the ring to itself.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// The first so many bytes of a map, or of an event.
    fn new(of: RawFd, bytes: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, and what is shared keeps its length.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                of,
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

impl Mapped {
    /// The number of 64 bits of this index, in memory that may be written.
    fn number(&self, index: usize) -> &AtomicU64 {
        // SAFETY: it is mapped for as long as `self` is, to be written too, aligned since a
        // page is, and others store there atomically.
        unsafe { AtomicU64::from_ptr(self.at(index)) }
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
        Mapped::new(map.descriptor(), bytes, libc::PROT_READ).map(Self)
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
        Mapped::new(map.descriptor(), bytes, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    /// Stores a number of 16 bits.
    pub(super) fn set_half(&self, index: usize, number: u16) {
        // SAFETY: it is mapped for as long as `self` is, to be written too, aligned since a
        // page is, and atomics may be read by others.
        unsafe { AtomicU16::from_ptr(self.0.at(index)) }.store(number, SeqCst);
    }
}

/// What the kernel writes of an event on one processor, until it is read.
#[derive(Debug)]
pub(super) struct Ring {
    event: OwnedFd,
    memory: Mapped,
    /// Of the memory: the ring, whose length is a power of two.
    begins: usize,
    length: usize,
    /// How far it was read.
    read: u64,
    record: Vec<u8>,
}

/// What was found in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Records, of which the kernel had so many bytes room left for more.
    Room(u64),
    /// What is no record.
    Nonsense,
}

impl Ring {
    /// Has the kernel write events of this number on a processor, but for those that a filter
    /// leaves out, in a ring of so many bytes: a power of two, and whole pages.
    pub(super) fn open(event: u64, processor: u32, filter: &str, bytes: u32) -> io::Result<Self> {
        let mut attributes = [0u8; EVENT_BYTES];
        attributes[24..32].copy_from_slice(&SAMPLE_RAW.to_ne_bytes());
        attributes[40..48].copy_from_slice(&RING_FLAGS.to_ne_bytes());
        // Whoever waits is woken while there is room for three times as much.
        attributes[48..52].copy_from_slice(&(bytes / 4).to_ne_bytes());
        let opened = open_event(event, processor, &mut attributes)?;
        let filter = CString::new(filter).map_err(io::Error::other)?;
        // SAFETY: the filter ends with a zero and lives through the call.
        let result = unsafe { libc::ioctl(opened.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a number is passed.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let memory = Mapped::new(opened.as_raw_fd(), page + bytes as usize, protection)?;
        let [begins, length] = [BEGINS, LENGTH].map(|at| memory.number(at).load(Acquire) as usize);
        if begins < page || length != bytes as usize || begins + length > memory.bytes {
            return Err(io::Error::other(
                "the kernel laid a ring out in a way that is not known",
            ));
        }
        // SAFETY: a number is passed.
        let result = unsafe { libc::ioctl(opened.as_raw_fd(), ENABLE, 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            event: opened,
            memory,
            begins,
            length,
            read: 0,
            record: vec![],
        })
    }

    /// What to wait for: it can be read when a quarter of the ring is full.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Reads what was written when this began, each record with its kind, and makes room.
    pub(super) fn take(&mut self, mut with: impl FnMut(u32, &[u8])) -> Found {
        let written = self.memory.number(WRITTEN).load(Acquire);
        let began = self.read;
        let mut is_sound = written.wrapping_sub(began) <= self.length as u64;
        while self.read != written && is_sound {
            let mut head = [0; RECORD_HEAD];
            self.copy(&mut head);
            let [a, b, c, d, _, _, e, f] = head;
            let kind = u32::from_ne_bytes([a, b, c, d]);
            let bytes = usize::from(u16::from_ne_bytes([e, f]));
            if bytes < RECORD_HEAD || bytes as u64 > written.wrapping_sub(self.read) {
                is_sound = false;
                break;
            }
            let mut record = std::mem::take(&mut self.record);
            record.resize(bytes, 0);
            self.copy(&mut record);
            with(kind, &record[RECORD_HEAD..]);
            self.record = record;
            self.read = self.read.wrapping_add(bytes as u64);
        }
        self.read = written;
        self.memory.number(READ).store(written, Release);
        // Until it has seen that, the kernel had no more room than was left when this began.
        fence(SeqCst);
        let since = self
            .memory
            .number(WRITTEN)
            .load(Relaxed)
            .wrapping_sub(began);
        match is_sound {
            true => Found::Room((self.length as u64).saturating_sub(since)),
            false => Found::Nonsense,
        }
    }

    /// Bytes from where it was read on, which the kernel has written and does not write over.
    fn copy(&self, into: &mut [u8]) {
        let at = self.read as usize % self.length;
        let first = into.len().min(self.length - at);
        let (first, rest) = into.split_at_mut(first);
        for (part, at) in [(first, at), (rest, 0)] {
            let from = self.begins + at;
            assert!(at + part.len() <= self.length, "{} of {}", at, self.length);
            // SAFETY: it lies within the ring, which lies within what is mapped, as was seen
            // when it was opened; the kernel stores there only once `READ` says so.
            unsafe {
                let from = self.memory.memory.as_ptr().cast::<u8>().add(from);
                std::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), part.len());
            }
        }
    }
}

/// Opens a file of tracefs, which is mounted for nobody else; where the kernel cannot do that
/// (before 5.2), where it is mounted.
pub(super) fn trace_file(path: &str) -> io::Result<File> {
    mounted_apart(path).or_else(|error| {
        let mut places = TRACE_FOLDERS.iter();
        places
            .find_map(|folder| File::open(Path::new(folder).join(path)).ok())
            .ok_or(error)
    })
}

/// Where tracefs is mounted.
const TRACE_FOLDERS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

fn mounted_apart(path: &str) -> io::Result<File> {
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
