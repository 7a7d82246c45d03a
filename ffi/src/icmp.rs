//! ICMP errors for inner senders (RFC 792, RFC 4443): built around the packet that they are about, and read off a socket's
//! error queue, where the system puts what routers and hosts outside have said (ip(7), IP_RECVERR). Invariant: an error
//! quotes no more than its receiver must take, and none answers a packet to many. Sends nothing itself.

use crate::packet::{
    IPV4_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, add, ip_bytes, is_ipv6, is_to_many, pseudo_header,
    write_checksum, write_ip_header, write_u16,
};
use crate::sys::control::{Control, messages};
use crate::sys::name::Name;
use crate::sys::{set_option, take_error};
use std::mem::zeroed;

const ICMP_BYTES: usize = 8;
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

/// The ICMP error, a whole inner packet, that tells the sender of `packet`, a whole inner packet, what became of that; None
/// where no error may be sent. Without `from` its source is the packet's destination, an address that the sender routes here.
pub fn error(kind: Kind, from: Option<&[u8; 16]>, packet: &[u8]) -> Option<Vec<u8>> {
    let is_ipv6 = is_ipv6(packet);
    let header = ip_bytes(is_ipv6);
    let (limit, protocol) =
        if is_ipv6 { (ICMPV6_ERROR_MAX, PROTOCOL_ICMPV6) } else { (ICMPV4_ERROR_MAX, PROTOCOL_ICMP) };
    if packet.len() < header || is_to_many(packet, is_ipv6) {
        return None;
    }
    let quoted = &packet[..packet.len().min(limit - header - ICMP_BYTES)];
    let mut out = vec![0; header + ICMP_BYTES + quoted.len()];
    let (source, destination) =
        if is_ipv6 { (&packet[8..24], &packet[24..40]) } else { (&packet[12..16], &packet[16..IPV4_BYTES]) };
    write_ip_header(&mut out, is_ipv6, protocol, from.map_or(destination, |from| &from[..]), source);
    write_u16(&mut out, header, kind.code);
    out[header + 4..header + 8].copy_from_slice(&kind.word.to_be_bytes());
    out[header + ICMP_BYTES..].copy_from_slice(quoted);
    // ICMP for IPv4 has no pseudo-header.
    let length = out.len() - header;
    let pseudo = if is_ipv6 { pseudo_header(&out, is_ipv6, protocol, length) } else { 0 };
    let sum = pseudo + add(&out[header..]);
    write_checksum(&mut out, header + 2, sum);
    Some(out)
}

/// Has the system keep errors for the socket, or not.
pub fn keep_errors(fd: i32, is_ipv6: bool, keeps: bool) {
    let (level, name) = level_of(is_ipv6);
    set_option(fd, level, name, i32::from(keeps));
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
    let mut control = Control::<CONTROL_BYTES>::EMPTY;
    let mut name = Name::EMPTY;
    // SAFETY: all zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    let mut vector = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = Name::BYTES;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_BYTES;
    // SAFETY: the header points at live, writable memory of the lengths that it states.
    let got = unsafe { libc::recvmsg(fd, &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if got < 0 {
        take_error(fd);
        return None;
    }
    let (to, to_port) = name.get(is_ipv6);
    let mut report = Report {
        kind: Kind { code: 0, word: 0 },
        from: None,
        to,
        to_port,
        payload: (got as usize).min(payload.len()),
    };
    let own = level_of(is_ipv6);
    for message in messages(&control.0[..header.msg_controllen.min(CONTROL_BYTES)]) {
        if (message.level, message.kind) != own {
            continue;
        }
        let Some(error) = message.read::<libc::sock_extended_err>() else { continue };
        let Some(kind) = kind_of_report(is_ipv6, &error) else { return Some(Entry::Meaningless) };
        report.kind = kind;
        // Behind it lies the sockaddr of who reported, where somebody did.
        let offender = &message.data[size_of::<libc::sock_extended_err>()..];
        if error.ee_origin != ORIGIN_LOCAL && offender.len() >= if is_ipv6 { 28 } else { 16 } {
            report.from = Some(Name::from_bytes(offender).get(is_ipv6).0);
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
