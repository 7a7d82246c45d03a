//! ICMP errors for inner senders (RFC 792, RFC 4443): built around the packet that they are about, and read off a socket's
//! error queue, where the system puts what routers and hosts outside have said (ip(7), IP_RECVERR). Invariant: an error
//! quotes no more than its receiver must take, and none answers a packet to many. Sends nothing itself.

use crate::gso::{add, fold, write_u16};
use std::mem::zeroed;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const ICMP_BYTES: usize = 8;
const HOP_LIMIT: u8 = 64;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
/// RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4 c.
const ICMPV4_ERROR_MAX: usize = 576;
const ICMPV6_ERROR_MAX: usize = 1280;
const CONTROL_BYTES: usize = 256;

// Of linux/errqueue.h.
const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// What an error says: type and code, then the word behind the checksum (a smaller MTU, the place of a fault).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    pub code: u16,
    pub word: u32,
}

/// An error as the system reports it.
pub struct Report {
    pub kind: Kind,
    /// Who said so, IPv4 in the first four bytes; None for this host itself.
    pub from: Option<[u8; 16]>,
    /// Where the packet was going.
    pub to: [u8; 16],
    pub to_port: u16,
    /// Bytes of its payload that came back.
    pub payload: usize,
}

/// What a call that failed for `reason`, an errno, is answered with; None where that is no business of ICMP's.
pub fn kind_of(is_ipv6: bool, reason: i32) -> Option<Kind> {
    let code = match (reason, is_ipv6) {
        (libc::ENETUNREACH | libc::ENETDOWN, false) => 0x0300,
        (libc::ENETUNREACH | libc::ENETDOWN, true) => 0x0100,
        (libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT, false) => 0x0301,
        (libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ETIMEDOUT, true) => 0x0103,
        (libc::EACCES | libc::EPERM, false) => 0x030d,
        (libc::EACCES | libc::EPERM, true) => 0x0101,
        (libc::ECONNREFUSED | libc::EINVAL, false) => 0x0303,
        (libc::ECONNREFUSED | libc::EINVAL, true) => 0x0104,
        _ => return None,
    };
    Some(Kind { code, word: 0 })
}

/// The whole inner packet that tells the sender of `packet`, a whole inner packet, what became of it; None where no error
/// may be sent. Without `from` it comes from where the packet was going, an address that its sender surely routes here.
pub fn error(kind: Kind, from: Option<&[u8; 16]>, packet: &[u8]) -> Option<Vec<u8>> {
    let is_ipv6 = packet.first()? >> 4 == 6;
    let (header, limit) =
        if is_ipv6 { (IPV6_BYTES, ICMPV6_ERROR_MAX) } else { (IPV4_BYTES, ICMPV4_ERROR_MAX) };
    if packet.len() < header || is_to_many(is_ipv6, packet) {
        return None;
    }
    let quoted = &packet[..packet.len().min(limit - header - ICMP_BYTES)];
    let total = header + ICMP_BYTES + quoted.len();
    let mut out = vec![0; total];
    if is_ipv6 {
        out[0] = 0x60;
        write_u16(&mut out, 4, (total - IPV6_BYTES) as u16);
        (out[6], out[7]) = (PROTOCOL_ICMPV6, HOP_LIMIT);
        out[8..24].copy_from_slice(from.map_or(&packet[24..40], |from| &from[..]));
        out[24..40].copy_from_slice(&packet[8..24]);
    } else {
        out[0] = 0x45;
        write_u16(&mut out, 2, total as u16);
        (out[8], out[9]) = (HOP_LIMIT, PROTOCOL_ICMP);
        out[12..16].copy_from_slice(from.map_or(&packet[16..20], |from| &from[..4]));
        out[16..20].copy_from_slice(&packet[12..16]);
        let sum = !fold(add(&out[..IPV4_BYTES]));
        out[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
    write_u16(&mut out, header, kind.code);
    out[header + 4..header + 8].copy_from_slice(&kind.word.to_be_bytes());
    out[header + ICMP_BYTES..].copy_from_slice(quoted);
    let pseudo = if is_ipv6 { pseudo_header(&out, total - header) } else { 0 };
    let sum = !fold(pseudo + add(&out[header..]));
    out[header + 2..header + 4].copy_from_slice(&sum.to_ne_bytes());
    Some(out)
}

/// RFC 8200 section 8.1.
fn pseudo_header(packet: &[u8], length: usize) -> u64 {
    add(&packet[8..40]) + u64::from(u16::from(PROTOCOL_ICMPV6).to_be()) + u64::from((length as u16).to_be())
}

fn is_to_many(is_ipv6: bool, packet: &[u8]) -> bool {
    if is_ipv6 { packet[24] == 0xff } else { packet[16] >= 224 }
}

/// Has the system keep errors for the socket, or not.
pub fn keep_errors(fd: i32, is_ipv6: bool, keeps: bool) {
    let (level, name) = level_of(is_ipv6);
    let value = i32::from(keeps);
    // SAFETY: `value` is valid for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
}

fn level_of(is_ipv6: bool) -> (i32, i32) {
    if is_ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) }
}

/// An entry of a socket's error queue.
enum Entry {
    Report(Report),
    /// One that ICMP has no word for.
    Meaningless,
}

/// Takes the next error of a socket that keeps them, and the packet's payload as far as it came back; those without a meaning
/// in ICMP are passed over. None when there is no more; the error that the socket's next call would have failed with is taken
/// then too.
pub fn next_report(fd: i32, is_ipv6: bool, payload: &mut [u8]) -> Option<Report> {
    // A queue is as long as its socket's receive buffer allows, so the loop ends.
    loop {
        if let Entry::Report(report) = next_entry(fd, is_ipv6, payload)? {
            return Some(report);
        }
    }
}

fn next_entry(fd: i32, is_ipv6: bool, payload: &mut [u8]) -> Option<Entry> {
    #[repr(C, align(8))]
    struct Control([u8; CONTROL_BYTES]);
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: all zero bytes are valid values of these C structures.
    let (mut name, mut header): (libc::sockaddr_in6, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_BYTES;
    // SAFETY: the header points at live, writable memory of the lengths that it states.
    let got = unsafe { libc::recvmsg(fd, &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if got < 0 {
        let mut value: i32 = 0;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: both pointers are valid for what the option writes, one i32.
        unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &mut length)
        };
        return None;
    }
    let (to, to_port) = read_name(&name, is_ipv6);
    let mut report = Report {
        kind: Kind { code: 0, word: 0 },
        from: None,
        to,
        to_port,
        payload: (got as usize).min(payload.len()),
    };
    let (level, kind) = level_of(is_ipv6);
    // SAFETY: the kernel has written msg_controllen bytes of well-formed control messages; one of this level and type has a
    // sock_extended_err and behind it the sockaddr of who reported.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&header);
        while !at.is_null() {
            if (*at).cmsg_level == level && (*at).cmsg_type == kind {
                let data = libc::CMSG_DATA(at).cast::<libc::sock_extended_err>();
                let error = data.read_unaligned();
                let offender = data.add(1).cast::<libc::sockaddr_in6>();
                let Some(kind) = kind_of_report(is_ipv6, &error) else { return Some(Entry::Meaningless) };
                report.kind = kind;
                let bytes = if is_ipv6 { 28 } else { 16 };
                let whole = libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32 + bytes);
                if error.ee_origin != ORIGIN_LOCAL && (*at).cmsg_len as usize >= whole as usize {
                    let mut whole: libc::sockaddr_in6 = zeroed();
                    (&raw mut whole).cast::<u8>().copy_from_nonoverlapping(offender.cast(), bytes as usize);
                    report.from = Some(read_name(&whole, is_ipv6).0);
                }
            }
            at = libc::CMSG_NXTHDR(&header, at);
        }
    }
    Some(Entry::Report(report))
}

/// Type and code as they came, or as this host would have put them.
fn kind_of_report(is_ipv6: bool, error: &libc::sock_extended_err) -> Option<Kind> {
    let own = if is_ipv6 { ORIGIN_ICMP6 } else { ORIGIN_ICMP };
    if error.ee_origin == own {
        let word = if error.ee_errno == libc::EMSGSIZE as u32 { error.ee_info } else { 0 };
        return Some(Kind { code: u16::from(error.ee_type) << 8 | u16::from(error.ee_code), word });
    }
    if error.ee_errno == libc::EMSGSIZE as u32 {
        return Some(Kind { code: if is_ipv6 { 0x0200 } else { 0x0304 }, word: error.ee_info });
    }
    kind_of(is_ipv6, error.ee_errno as i32)
}

/// The address and port in a name of the given family.
pub fn read_name(name: &libc::sockaddr_in6, is_ipv6: bool) -> ([u8; 16], u16) {
    if is_ipv6 {
        return (name.sin6_addr.s6_addr, u16::from_be(name.sin6_port));
    }
    // SAFETY: any bytes are a valid sockaddr_in, which is smaller.
    let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
    let mut address = [0; 16];
    address[..4].copy_from_slice(&name.sin_addr.s_addr.to_ne_bytes());
    (address, u16::from_be(name.sin_port))
}
