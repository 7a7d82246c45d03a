//! Socket addresses, the only place where they are written and read: a sockaddr_in or sockaddr_in6 to and from the three
//! forms that the callers have. These are the four words of a burst's address column (host order, IPv4 as ::ffff:a.b.c.d),
//! 16 bytes in network order with an IPv4 address in the first four, and std's addresses. Invariant: a name that was
//! written has no byte left of the name before.

use std::mem::zeroed;
use std::net::SocketAddr;

/// ::ffff:0:0/96, before an IPv4 address.
pub const MAPPED: [u32; 3] = [0, 0, 0xffff];
/// No address: what a row has where the kernel does not say.
pub const UNKNOWN: [u32; 4] = [0; 4];

/// The four words of 16 bytes in network order.
pub fn words_of(bytes: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

/// The 16 bytes in network order of four words.
pub fn bytes_of(words: &[u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (i, word) in words.iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The four words of an IPv4 address in network order.
pub fn mapped(address: [u8; 4]) -> [u32; 4] {
    [MAPPED[0], MAPPED[1], MAPPED[2], u32::from_be_bytes(address)]
}

/// A socket address of either family, in memory for the longer one, as msghdr, bind(2) and recvmmsg(2) take and fill it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Name(libc::sockaddr_in6);

impl Name {
    /// Bytes of the longer one.
    pub const BYTES: u32 = size_of::<libc::sockaddr_in6>() as u32;
    const IPV4_BYTES: u32 = size_of::<libc::sockaddr_in>() as u32;
    /// Of no family.
    // SAFETY: all zero bytes are a valid sockaddr_in6.
    pub const EMPTY: Self = Self(unsafe { zeroed() });

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.0).cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.0).cast()
    }

    /// Becomes a sockaddr_in. Returns its length.
    pub fn set_ipv4(&mut self, address: [u8; 4], port: u16) -> u32 {
        *self = Self::EMPTY;
        // SAFETY: sockaddr_in is smaller than sockaddr_in6 and no more strictly aligned.
        let name = unsafe { &mut *self.as_mut_ptr().cast::<libc::sockaddr_in>() };
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = port.to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(address);
        Self::IPV4_BYTES
    }

    /// Becomes a sockaddr_in6 without flow label and scope. Returns its length.
    pub fn set_ipv6(&mut self, address: [u8; 16], port: u16) -> u32 {
        *self = Self::EMPTY;
        self.0.sin6_family = libc::AF_INET6 as u16;
        self.0.sin6_port = port.to_be();
        self.0.sin6_addr.s6_addr = address;
        Self::BYTES
    }

    /// Becomes what a socket of the given family sends to; IPv4 in the first four bytes. Returns its length.
    pub fn set(&mut self, is_ipv6: bool, address: &[u8; 16], port: u16) -> u32 {
        if is_ipv6 {
            return self.set_ipv6(*address, port);
        }
        self.set_ipv4([address[0], address[1], address[2], address[3]], port)
    }

    /// The same from a row's words: an IPv6 socket sends to IPv4 addresses by their mapped form, an IPv4 socket by the last
    /// word.
    pub fn set_words(&mut self, is_ipv6: bool, address: &[u32; 4], port: u16) -> u32 {
        if is_ipv6 {
            return self.set_ipv6(bytes_of(address), port);
        }
        self.set_ipv4(address[3].to_be_bytes(), port)
    }

    /// The name of std's address, with its scope, and its length.
    pub fn of(address: &SocketAddr) -> (Self, u32) {
        let mut name = Self::EMPTY;
        let length = match address {
            SocketAddr::V4(address) => name.set_ipv4(address.ip().octets(), address.port()),
            SocketAddr::V6(address) => {
                let length = name.set_ipv6(address.ip().octets(), address.port());
                name.0.sin6_scope_id = address.scope_id();
                length
            }
        };
        (name, length)
    }

    /// From the bytes of a sockaddr that lies elsewhere; those beyond a Name are passed over.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut name = Self::EMPTY;
        let length = bytes.len().min(Self::BYTES as usize);
        // SAFETY: both are valid for `length` bytes, and every bit pattern is a sockaddr_in6.
        unsafe { name.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), length) };
        name
    }

    pub fn port(&self) -> u16 {
        u16::from_be(self.0.sin6_port) // where sockaddr_in has its port too
    }

    fn ipv4(&self) -> [u8; 4] {
        // SAFETY: a sockaddr_in is smaller and has no invalid bit patterns.
        unsafe { *self.as_ptr().cast::<libc::sockaddr_in>() }.sin_addr.s_addr.to_ne_bytes()
    }

    /// Address and port of a name that a socket of the given family has filled; IPv4 in the first four bytes.
    pub fn get(&self, is_ipv6: bool) -> ([u8; 16], u16) {
        if is_ipv6 {
            return (self.0.sin6_addr.s6_addr, self.port());
        }
        let mut address = [0; 16];
        address[..4].copy_from_slice(&self.ipv4());
        (address, self.port())
    }

    /// A row's words and the port, by the family that the name says.
    pub fn words(&self) -> ([u32; 4], u16) {
        if i32::from(self.0.sin6_family) == libc::AF_INET {
            return (mapped(self.ipv4()), self.port());
        }
        (words_of(self.0.sin6_addr.s6_addr), self.port())
    }
}

/// Reads a host name or address that came over the C ABI; None for null, more than 255 bytes, or what is no UTF-8.
///
/// # Safety
/// `host` is null or valid for `length` bytes, which nothing changes while the result is used.
pub unsafe fn read_host<'a>(host: *const u8, length: u32) -> Option<&'a str> {
    if host.is_null() || length > 255 {
        return None;
    }
    // SAFETY: the caller gives `length` bytes.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(host, length as usize) }).ok()
}

#[test]
fn a_name_is_read_as_it_was_written() {
    let mut name = Name::EMPTY;
    let six: [u8; 16] = std::array::from_fn(|i| i as u8 + 1);
    assert_eq!(name.set(true, &six, 4433), 28);
    assert_eq!((name.get(true), name.words()), ((six, 4433), (words_of(six), 4433)));
    let four = [192, 0, 2, 7];
    let mut padded = [0; 16];
    padded[..4].copy_from_slice(&four);
    assert_eq!(name.set(false, &padded, 53), 16);
    assert_eq!((name.get(false), name.words()), ((padded, 53), (mapped(four), 53)));
    // An IPv4 socket sends by the last word, an IPv6 one by all.
    let mut twin = Name::EMPTY;
    assert_eq!(twin.set_words(false, &mapped(four), 53), 16);
    assert_eq!(twin.words(), name.words());
    assert_eq!(twin.set_words(true, &mapped(four), 53), 28);
    assert_eq!(twin.words(), name.words());
    for text in ["192.0.2.7:53", "[2001:db8::1]:4433"] {
        let address: SocketAddr = text.parse().expect("it is one");
        let (name, length) = Name::of(&address);
        assert_eq!(length, if address.is_ipv4() { 16 } else { 28 });
        // SAFETY: a Name is this many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), length as usize) };
        assert_eq!(Name::from_bytes(bytes).words(), name.words());
        assert_eq!(name.port(), address.port());
    }
}
