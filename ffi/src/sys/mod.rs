//! Linux as the ports, the exits and the TCP stack need it: the last error, descriptors, socket options, and in the files
//! beside this one socket addresses, control messages and mapped memory. Invariant: every unsafe call here gets pointers
//! that are valid for the lengths that it states. Owns no descriptor unless the type says so.

pub mod control;
pub mod mapping;
pub mod name;

use crate::sys::name::Name;
use std::os::fd::{FromRawFd, OwnedFd};

/// The errno of the calling thread's last system call.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Closes a descriptor that the caller owns and forgets.
pub fn close(fd: i32) {
    // SAFETY: no pointer crosses; the caller owns the descriptor and forgets it with this call.
    unsafe { libc::close(fd) };
}

/// Sets a socket option whose value is a `T`, laid out as the kernel has it. False when the system refuses.
pub fn set_option<T: Copy>(fd: i32, level: i32, name: i32, value: T) -> bool {
    // SAFETY: `value` is valid for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<T>() as u32) == 0 }
}

/// A socket option of up to `WORDS` 32-bit words; those that the kernel does not write are 0. Err is the errno.
pub fn get_words<const WORDS: usize>(fd: i32, level: i32, name: i32) -> Result<[u32; WORDS], i32> {
    let mut words = [0; WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: both pointers are valid, and the kernel writes no more than `length` bytes.
    let result = unsafe { libc::getsockopt(fd, level, name, words.as_mut_ptr().cast(), &mut length) };
    if result < 0 { Err(errno()) } else { Ok(words) }
}

/// A socket option that is an int; 0 when the system refuses.
pub fn get_option(fd: i32, level: i32, name: i32) -> i32 {
    get_words(fd, level, name).map_or(0, |[value]| value as i32)
}

/// The error that waits at a socket, which has none from here on; 0 for none. A descriptor that is no socket gives its
/// errno.
pub fn take_error(fd: i32) -> i32 {
    get_words(fd, libc::SOL_SOCKET, libc::SO_ERROR).map_or_else(|reason| reason, |[value]| value as i32)
}

/// A new internet socket, closed on exec; `kind` is SOCK_STREAM or SOCK_DGRAM with flags. Err is the errno.
pub fn socket(is_ipv6: bool, kind: i32) -> Result<OwnedFd, i32> {
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointer crosses.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    // SAFETY: the descriptor was just made and is nobody else's.
    if fd < 0 { Err(errno()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// Binds a socket to a name of `length` bytes. Err is the errno.
pub fn bind(fd: i32, name: &Name, length: u32) -> Result<(), i32> {
    // SAFETY: no name is longer than a Name, which is valid for as much.
    let result = unsafe { libc::bind(fd, name.as_ptr(), length.min(Name::BYTES)) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// Connects a socket to a name of `length` bytes. Err is the errno, EINPROGRESS for a nonblocking one on its way.
pub fn connect(fd: i32, name: &Name, length: u32) -> Result<(), i32> {
    // SAFETY: as in `bind`.
    let result = unsafe { libc::connect(fd, name.as_ptr(), length.min(Name::BYTES)) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// The port that a socket is bound to; 0 for none.
pub fn local_port(fd: i32) -> u16 {
    let mut name = Name::EMPTY;
    let mut length = Name::BYTES;
    // SAFETY: both are valid and writable for what an address takes.
    unsafe { libc::getsockname(fd, name.as_mut_ptr(), &mut length) };
    name.port()
}

/// Sends one message without waiting. Returns 0 or an errno.
///
/// # Safety
/// The header's pointers are null or valid for the lengths beside them.
pub unsafe fn send_message(fd: i32, header: &libc::msghdr) -> i32 {
    // SAFETY: as the caller promises.
    let sent = unsafe { libc::sendmsg(fd, header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { errno() } else { 0 }
}
