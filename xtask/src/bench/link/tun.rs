//! The one call that makes a TUN device. Nothing else goes here.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// Where devices are made, by root.
pub(super) const CLONE_DEVICE: &str = "/dev/net/tun";

const TUNSETIFF: Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
/// Packets begin with their IP header.
const IFF_NO_PI: u16 = 0x1000;
/// With its closing zero.
const NAME_LEN: usize = 16;

/// `struct ifreq` of `linux/if.h`: a name, and a union of 24 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a device in the namespace of this process. Each read gives a packet that the
/// kernel sends over it, each write is one that comes in. It is gone once the file is
/// closed.
///
/// # Errors
/// When the name is too long or taken, or the kernel does not allow it.
pub(super) fn open(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest {
        name: [0; NAME_LEN],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    let room = request
        .name
        .get_mut(..name.len())
        .filter(|room| room.len() < NAME_LEN);
    room.ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name.as_bytes());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CLONE_DEVICE)?;
    // SAFETY: the kernel reads and writes back one `ifreq` for this opcode, which the
    // request is in size and layout; the setter owns it for the length of the call.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request))? };
    Ok(file)
}
