//! How UDP ports are opened: over a socket of their own or an adopted one, by recvmmsg and sendmmsg or by io_uring. The only
//! file of the room that knows every kind.

use crate::port::insert;
use crate::port::mmsg::MmsgPort;
use crate::port::udp::Socket;
use crate::port::uring::UringPort;
use crate::sys::errno;
use crate::sys::name::read_host;
use std::net::UdpSocket;
use std::os::fd::{FromRawFd, OwnedFd};

/// The port's options, bits of the last argument of `ox_udp_open`.
const OFFLOAD: u32 = 1;
const URING: u32 = 2;
const UNDEFERRED: u32 = 4;

/// Binds UDP to a host name or address of `length` bytes (UTF-8) and a port; 0 lets the system choose. `options` are
/// bits: 1 to use UDP_GRO and UDP_SEGMENT, 2 for io_uring instead of recvmmsg and sendmmsg, 4 to use io_uring as on kernels
/// before 6.1. Returns the port's handle, or -errno.
///
/// # Safety
/// `host` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_open(host: *const u8, length: u32, port: u32, options: u32) -> i32 {
    // SAFETY: as the caller says.
    let host = unsafe { read_host(host, length) };
    let (Some(host), Ok(port)) = (host, u16::try_from(port)) else { return -libc::EINVAL };
    match UdpSocket::bind((host, port)) {
        Ok(socket) => open(socket.into(), options),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EADDRNOTAVAIL),
    }
}

/// The same over a socket that is bound already and stays the caller's: the port has a descriptor of its own.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_adopt(fd: i32, options: u32) -> i32 {
    // SAFETY: fcntl takes no memory.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return -errno();
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    open(unsafe { OwnedFd::from_raw_fd(own) }, options)
}

fn open(socket: OwnedFd, options: u32) -> i32 {
    let socket = Socket::open(socket, options & OFFLOAD != 0);
    if options & URING == 0 {
        return insert(Box::new(MmsgPort::open(socket)));
    }
    match UringPort::open(socket, options & UNDEFERRED == 0) {
        Ok(port) => insert(Box::new(port)),
        Err(reason) => -reason,
    }
}
