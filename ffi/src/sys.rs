//! System calls and packet fields that several sockets' owners need: the last error, a descriptor's end, an integer option,
//! and the hops of a packet. Owns nothing: a descriptor belongs to whoever passes it.

/// The errno of the calling thread's last system call.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Closes a descriptor that the caller owns and forgets.
pub fn close(fd: i32) {
    // SAFETY: no pointer crosses; the caller owns the descriptor and forgets it with this call.
    unsafe { libc::close(fd) };
}

/// Sets a socket option that is an int. False when the system refuses it.
pub fn set_option(fd: i32, level: i32, name: i32, value: i32) -> bool {
    // SAFETY: `value` is valid for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) == 0 }
}

/// The TTL or hop limit of a whole IP packet behind this exit, 1 to 254.
pub fn hops_of(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 6 { 7 } else { 8 }].max(2) - 1
}
