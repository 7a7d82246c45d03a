//! The sockets by which the exit's TCP goes on: made nonblocking and with bounded buffers, closed with FIN or RST, and asked
//! what they cost. Owns nothing: a descriptor belongs to the flow that asked for it.

use crate::icmp;
use crate::segment::Key;
use crate::sys::name::Name;
use crate::sys::{bind, close, connect, errno, get_words, set_option, socket, take_error};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// Data that the system has of us and has not sent: a far end that does not read gets no more than this to keep for it.
const UNSENT_BYTES: i32 = 128 * 1024;
/// RFC 5382 REQ-5, as connection.rs keeps the other side: an idle far end is asked after 2 h 4 min.
const KEEP_IDLE_S: i32 = 7_440;
const KEEP_PROBE_S: i32 = 15;
const KEEP_PROBES: i32 = 8;
/// Connections that may wait at a forward's port.
const BACKLOG: i32 = 64;
/// linux/sock_diag.h: what getsockopt(SO_MEMINFO) tells, in words.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_RECEIVED: usize = 0;
const MEMINFO_QUEUED: usize = 5;

/// Closes the socket so that the far end sees an RST instead of a FIN.
pub fn close_with_reset(fd: i32) {
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
    close(fd);
}

/// The more flows a source has, the less the system may keep for each of them.
fn bound_buffers(fd: i32, flows: usize) {
    let bytes: i32 = match flows {
        0..8 => return,
        8..32 => {
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 512 * 1024);
            return;
        }
        32..128 => 32 * 1024,
        _ => 8 * 1024,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
}

/// Sets the TTL or hop limit of a socket's packets; -1 for the system's default.
pub fn set_hops(fd: i32, is_ipv6: bool, hops: i32) {
    let (level, name) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL)
    };
    set_option(fd, level, name, hops);
}

/// A nonblocking socket on its way to the key's destination by `hops` at most, or the errno that kept it from starting.
/// `flows` are those that its source has already.
pub fn dial(key: &Key, hops: i32, flows: usize) -> Result<i32, i32> {
    let fd = socket(key.destination.is_ipv6(), libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?.into_raw_fd();
    prepare(fd, flows);
    // A router's word about the SYN is kept, so that it can be handed on as it was.
    icmp::keep_errors(fd, key.destination.is_ipv6(), true);
    set_hops(fd, key.destination.is_ipv6(), hops);
    let (name, length) = Name::of(&SocketAddr::new(key.destination, key.destination_port));
    match connect(fd, &name, length) {
        Ok(()) | Err(libc::EINPROGRESS) => Ok(fd),
        Err(reason) => {
            close(fd);
            Err(reason)
        }
    }
}

/// The options of a far end's socket, whoever began the connection.
fn prepare(fd: i32, flows: usize) {
    bound_buffers(fd, flows);
    let options = [
        (libc::TCP_NODELAY, 1), // what is written at once leaves at once
        (libc::TCP_NOTSENT_LOWAT, UNSENT_BYTES),
        (libc::TCP_KEEPIDLE, KEEP_IDLE_S),
        (libc::TCP_KEEPINTVL, KEEP_PROBE_S),
        (libc::TCP_KEEPCNT, KEEP_PROBES),
    ];
    for (option, value) in options {
        set_option(fd, libc::IPPROTO_TCP, option, value);
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
}

/// A nonblocking socket of any address of this host that takes connections to a port, and which strangers reach. Err is the errno.
pub fn listen(is_ipv6: bool, port: u16) -> Result<OwnedFd, i32> {
    let owned = socket(is_ipv6, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?;
    let fd = owned.as_raw_fd();
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    if is_ipv6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    }
    let mut name = Name::EMPTY;
    let length = name.set(is_ipv6, &[0; 16], port);
    bind(fd, &name, length)?;
    // SAFETY: no pointer crosses.
    if unsafe { libc::listen(fd, BACKLOG) } < 0 { Err(errno()) } else { Ok(owned) }
}

/// The next connection that waits at a listening socket, and from where it is; None when none waits. `flows` as in `dial`.
pub fn accept(listener: i32, is_ipv6: bool, flows: usize) -> Option<(OwnedFd, SocketAddr)> {
    let mut name = Name::EMPTY;
    let mut length = Name::BYTES;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: both are valid and writable for what an address takes.
    let fd = unsafe { libc::accept4(listener, name.as_mut_ptr(), &mut length, flags) };
    if fd < 0 {
        return None;
    }
    prepare(fd, flows);
    let (bytes, port) = name.get(is_ipv6);
    let address =
        if is_ipv6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) };
    // SAFETY: the descriptor was just made and is nobody else's.
    Some((unsafe { OwnedFd::from_raw_fd(fd) }, SocketAddr::new(address, port)))
}

/// The errno that a socket's connection attempt ended with, 0 for none.
pub fn connect_error(fd: i32) -> i32 {
    take_error(fd)
}

/// Bytes that the system keeps for the socket in both directions.
pub fn kernel_bytes(fd: i32) -> usize {
    get_words::<MEMINFO_WORDS>(fd, libc::SOL_SOCKET, libc::SO_MEMINFO)
        .map_or(0, |words| words[MEMINFO_RECEIVED] as usize + words[MEMINFO_QUEUED] as usize)
}

/// The result of a nonblocking transfer.
pub enum Moved {
    Bytes(usize),
    /// Of a read: the far end has finished.
    End,
    Blocked,
    Broken,
}

fn moved(result: isize) -> Moved {
    match result {
        0.. => Moved::Bytes(result as usize),
        _ => match errno() {
            libc::EAGAIN | libc::EINTR => Moved::Blocked,
            _ => Moved::Broken,
        },
    }
}

pub fn send(fd: i32, data: &[u8]) -> Moved {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `data` is valid for its length; the kernel only reads it.
    moved(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), flags) })
}

pub fn receive(fd: i32, room: &mut [u8]) -> Moved {
    // SAFETY: `room` is valid and writable for its length.
    match moved(unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) }) {
        Moved::Bytes(0) => Moved::End,
        other => other,
    }
}
