//! TUN devices: the one place of this crate that talks to the kernel without a safe wrapper.
//!
//! It opens a device and nothing else; addresses and routes are set by `ip`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// `struct ifreq` as `TUNSETIFF` reads it: 16 bytes of name, then the flags; 40 bytes in all on 64-bit
/// Linux and 32 on 32-bit, so 40 zeroed bytes are enough for both.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Opens a TUN device called `name` in the network namespace of the calling thread: plain IP packets,
/// no packet information header, not blocking. The device lives as long as the file.
pub(super) fn open(name: &str) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name too long"));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    attach(&file, &mut request)?;
    Ok(file)
}

/// Turns the freshly opened `/dev/net/tun` into the requested device.
#[allow(unsafe_code, reason = "TUNSETIFF has no safe wrapper in nix, socket2 or rustix; see the proof")]
fn attach(file: &File, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, as `file` is borrowed. TUNSETIFF reads and
    // writes exactly one `struct ifreq` (at most 40 bytes) through the pointer; `InterfaceRequest` is
    // that layout, 40 bytes, fully initialised and exclusively borrowed. The kernel keeps no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, std::ptr::from_mut(request)) };
    const { assert!(size_of::<InterfaceRequest>() == 40) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
