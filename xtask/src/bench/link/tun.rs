//! The two calls that make a TUN device. Nothing else goes here.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;

use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl};

/// Where devices are made, by root.
pub(super) const CLONE_DEVICE: &str = "/dev/net/tun";

const TUNSETIFF: Opcode = 0x4004_54ca;
const TUNSETOFFLOAD: Opcode = 0x4004_54d0;
const IFF_TUN: u16 = 0x0001;
/// Packets are behind no header but virtio's.
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Checksums are left open, and packets of IPv4 and TCP are not cut.
const TUN_F_CSUM_AND_TSO4: usize = 0x01 | 0x02;
/// With its closing zero.
const NAME_LEN: usize = 16;

/// `struct ifreq` of `linux/if.h`: a name, and a union of 24 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a device in the namespace of this process. Each read gives what the kernel sends
/// over it (see `packet`), each write is what comes in. It is gone once the file is closed.
///
/// # Errors
/// When the name is too long or taken, or the kernel does not allow it.
pub(super) fn open(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest {
        name: [0; NAME_LEN],
        flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR,
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
    // SAFETY: this opcode takes a number, and no memory.
    unsafe {
        ioctl(
            &file,
            IntegerSetter::<TUNSETOFFLOAD>::new_usize(TUN_F_CSUM_AND_TSO4),
        )?
    };
    Ok(file)
}
