//! What the UDP ports share: the socket and its options, names, control messages, the way of a received message into
//! rows, and an outgoing burst as messages grouped by destination, with runs for UDP_SEGMENT. Invariant: datagrams to
//! one destination keep their order; what the kernel refuses is counted and delays nobody else's. How messages cross
//! into the kernel is the matter of mmsg.rs and uring.rs.

use crate::layout::{
    Arena, BURST_CAPACITY, Block, HEADROOM, SLOT_BYTES, TAILROOM, TO_PARSE, TO_TRANSMIT, Table, with_burst,
};
use crate::mmsg::MmsgPort;
use crate::sys::{errno, set_option};
use crate::uring::UringPort;
use std::cell::RefCell;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The largest UDP payload, rounded up: what UDP_GRO may put together.
pub const MESSAGE_BYTES: usize = 65536;
/// Longer datagrams than any packet that this relay makes or takes are refused, not cut.
pub const DATAGRAM_BYTES_MAX: usize = SLOT_BYTES - HEADROOM - TAILROOM;
/// Room for every control message that the options below ask for.
pub const CONTROL_BYTES: usize = 128;
/// UDP_MAX_SEGMENTS of the oldest kernels that have UDP_SEGMENT.
const SEGMENTS_MAX: usize = 64;
/// A run's payload stays below the largest IPv4 packet.
const RUN_BYTES_MAX: usize = 65000;
const SOCKET_BUFFER_BYTES: i32 = 8 << 20;
const ECN_MASK: u8 = 3;
/// This bit of the first byte makes a datagram OxTunnel's, which finds out what each path takes and so must not be cut
/// into fragments by this host. WireGuard's may be: it does not look.
const OXTUNNEL: u8 = 0x40;
const GROUPS: usize = 2 * BURST_CAPACITY;
const NOBODY: u16 = u16::MAX;
/// ::ffff:0:0/96, before an IPv4 address.
const MAPPED: [u32; 3] = [0, 0, 0xffff];
const UNKNOWN: [u32; 4] = [0; 4];

// Of linux/udp.h; the libc crate has them for few targets.
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// A control buffer, aligned as cmsghdr must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control(pub [u8; CONTROL_BYTES]);

fn get_option(fd: i32, level: i32, name: i32) -> i32 {
    let mut value: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: both pointers are valid for one i32 each, which is what these options have.
    unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut length) };
    value
}

/// As large a buffer as root may have, or else as the system's limit allows.
fn grow_buffers(fd: i32) {
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if !set_option(fd, libc::SOL_SOCKET, force, SOCKET_BUFFER_BYTES) {
            set_option(fd, libc::SOL_SOCKET, plain, SOCKET_BUFFER_BYTES);
        }
    }
}

fn words_of(bytes: [u8; 16]) -> [u32; 4] {
    let word = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

fn bytes_of(words: &[u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (i, word) in words.iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

fn mapped(address: libc::in_addr) -> [u32; 4] {
    [MAPPED[0], MAPPED[1], MAPPED[2], u32::from_be(address.s_addr)]
}

/// Four host-order words, IPv4 as ::ffff:a.b.c.d, and the port.
fn read_name(name: &libc::sockaddr_in6) -> ([u32; 4], u16) {
    if i32::from(name.sin6_family) == libc::AF_INET {
        // SAFETY: an AF_INET name is a sockaddr_in, which is smaller and has no invalid bit patterns.
        let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
        return (mapped(name.sin_addr), u16::from_be(name.sin_port));
    }
    (words_of(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port))
}

/// Writes the name for a socket of the given family. Returns its length.
fn write_name(name: &mut libc::sockaddr_in6, is_ipv6: bool, address: &[u32; 4], port: u16) -> u32 {
    if is_ipv6 {
        name.sin6_addr.s6_addr = bytes_of(address);
        name.sin6_family = libc::AF_INET6 as u16;
        name.sin6_port = port.to_be();
        return size_of::<libc::sockaddr_in6>() as u32;
    }
    // SAFETY: sockaddr_in is smaller than sockaddr_in6 and no more strictly aligned.
    let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
    name.sin_family = libc::AF_INET as u16;
    name.sin_port = port.to_be();
    name.sin_addr.s_addr = address[3].to_be();
    size_of::<libc::sockaddr_in>() as u32
}

/// Appends a control message. Returns the bytes used in all.
fn push_control<T: Copy>(control: &mut Control, used: usize, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
    let (length, space) =
        unsafe { (libc::CMSG_LEN(size_of::<T>() as u32), libc::CMSG_SPACE(size_of::<T>() as u32)) };
    assert!(used + space as usize <= CONTROL_BYTES);
    let at = control.0[used..].as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: the space was just seen to be there, and `used` is a multiple of cmsghdr's alignment.
    unsafe {
        at.write(libc::cmsghdr { cmsg_len: length as usize, cmsg_level: level, cmsg_type: kind });
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
    }
    used + space as usize
}

/// What is known of a received message.
pub struct Origin {
    address: [u32; 4],
    port: u16,
    /// The address that it came to; zeros when the kernel does not say.
    local: [u32; 4],
    /// Size of the datagrams that UDP_GRO put together; 0 when there is one.
    segment: usize,
    ecn: u8,
}

impl Origin {
    /// From the name, and from the control messages that the kernel has written.
    pub fn read(name: &libc::sockaddr_in6, control: &[u8]) -> Self {
        const HEADER: usize = size_of::<libc::cmsghdr>();
        let (address, port) = read_name(name);
        let mut origin = Self { address, port, local: UNKNOWN, segment: 0, ecn: 0 };
        let mut at = 0;
        while at + HEADER <= control.len() {
            // SAFETY: a whole header lies there, and every bit pattern is one.
            let header: libc::cmsghdr =
                unsafe { control.as_ptr().add(at).cast::<libc::cmsghdr>().read_unaligned() };
            let end = at.saturating_add(header.cmsg_len);
            if header.cmsg_len < HEADER || end > control.len() {
                break;
            }
            let data = &control[at + HEADER..end];
            match (header.cmsg_level, header.cmsg_type) {
                (SOL_UDP, UDP_GRO) if data.len() >= 4 => {
                    origin.segment = i32::from_ne_bytes([data[0], data[1], data[2], data[3]]).max(0) as usize;
                }
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
                    if !data.is_empty() =>
                {
                    origin.ecn = data[0] & ECN_MASK;
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= size_of::<libc::in_pktinfo>() => {
                    // SAFETY: a whole in_pktinfo lies there, and every bit pattern is one. Its ipi_spec_dst is an
                    // address of this host even when the datagram was for all hosts.
                    let info = unsafe { data.as_ptr().cast::<libc::in_pktinfo>().read_unaligned() };
                    origin.local = mapped(info.ipi_spec_dst);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= size_of::<libc::in6_pktinfo>() => {
                    // SAFETY: a whole in6_pktinfo lies there, and every bit pattern is one.
                    let info = unsafe { data.as_ptr().cast::<libc::in6_pktinfo>().read_unaligned() };
                    origin.local = words_of(info.ipi6_addr.s6_addr);
                }
                _ => {}
            }
            at = end.next_multiple_of(align_of::<libc::cmsghdr>());
        }
        origin
    }

    // Why by copy: the 24 ns of 1200 bytes are 2 to 3 % of a hop at the very most, and they bring the bytes into the cache,
    // which the cipher would otherwise wait for. Rows that point into the message instead would own no headroom and no
    // tail: a longer header for the next peer (OxTunnel's 6 to 9 bytes in, WireGuard's 16 out), a report in front of a
    // packet or an ICMP error would overwrite the sealed tail of the row before, and one waiting row would keep 64 KB.
    /// Copies the message's datagrams from byte `at` on into the rows from `row` to `to` - 1, which own slots. Returns
    /// the byte and the row that come next, and how many fitted no slot.
    pub fn deliver(
        &self,
        message: &[u8],
        mut at: usize,
        block: &mut Block,
        arena: &mut Arena,
        mut row: usize,
        to: usize,
    ) -> (usize, usize, u32) {
        let size = if self.segment == 0 { message.len() } else { self.segment };
        let mut refused = 0;
        loop {
            let length = size.min(message.len() - at);
            match arena.slice(block.offset[row], length) {
                Some(target) if length <= DATAGRAM_BYTES_MAX => {
                    target.copy_from_slice(&message[at..at + length]);
                    block.length[row] = length as u32;
                    block.address[row] = self.address;
                    block.port[row] = self.port;
                    block.local[row] = self.local;
                    block.ecn[row] = self.ecn;
                    block.next[row] = TO_PARSE;
                    row += 1;
                }
                _ => refused += 1,
            }
            at += length;
            if at >= message.len() || row == to {
                return (at, row, refused);
            }
        }
    }
}

/// A socket, and the messages of the burst that is being sent through it.
pub struct Socket {
    fd: OwnedFd,
    is_ipv6: bool,
    /// Whether UDP_GRO and UDP_SEGMENT are in use.
    pub segments: bool,
    /// Which of the two the socket is set to; unknown at first.
    is_whole: Option<bool>,
    /// Datagrams that were refused since the count was last taken.
    pub refused: u32,
    /// Rows of one destination are a list, in their order: heads by group, then row to row.
    group_of: [u16; GROUPS],
    head: [u16; BURST_CAPACITY],
    tail: [u16; BURST_CAPACITY],
    following: [u16; BURST_CAPACITY],
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<Control>,
    /// Control bytes of a message whose datagrams go out one by one.
    single_control: [usize; BURST_CAPACITY],
    /// The group that each message belongs to.
    pub group: [u16; BURST_CAPACITY],
    /// The messages; with how much of each went out, for sendmmsg.
    pub headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

impl Socket {
    /// Prepares a bound socket. Errors are errno values.
    fn open(owned: OwnedFd, offload: bool) -> Result<Self, i32> {
        let fd = owned.as_raw_fd();
        let is_ipv6 = get_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == libc::AF_INET6;
        grow_buffers(fd);
        set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
        if is_ipv6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
            // An IPv6 socket tells IPv4 addresses this way too, as ::ffff:a.b.c.d.
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
        } else {
            set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
        }
        let segments =
            offload && set_option(fd, SOL_UDP, UDP_GRO, 1) && set_option(fd, SOL_UDP, UDP_SEGMENT, 0);
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (name, header, vector) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Ok(Self {
            fd: owned,
            is_ipv6,
            segments,
            is_whole: None,
            refused: 0,
            group_of: [NOBODY; GROUPS],
            head: [NOBODY; BURST_CAPACITY],
            tail: [NOBODY; BURST_CAPACITY],
            following: [NOBODY; BURST_CAPACITY],
            names: vec![name; BURST_CAPACITY],
            controls: vec![Control([0; CONTROL_BYTES]); BURST_CAPACITY],
            single_control: [0; BURST_CAPACITY],
            group: [NOBODY; BURST_CAPACITY],
            headers: vec![header; BURST_CAPACITY],
            vectors: vec![vector; BURST_CAPACITY],
        })
    }

    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn local_port(&self) -> u16 {
        // SAFETY: an all-zero sockaddr_in6 is valid; getsockname writes at most its length.
        unsafe {
            let mut name: libc::sockaddr_in6 = zeroed();
            let mut length = size_of::<libc::sockaddr_in6>() as u32;
            libc::getsockname(self.raw_fd(), (&raw mut name).cast(), &mut length);
            read_name(&name).1
        }
    }

    /// Has what is sent from now on leave whole, with DF and whatever the system believes of the path (IP_PMTUDISC_PROBE),
    /// or as is usual (IP_PMTUDISC_WANT). There is no such option for one message.
    fn set_whole(&mut self, is_whole: bool) {
        if self.is_whole == Some(is_whole) {
            return;
        }
        let fd = self.raw_fd();
        let (v4, v6) = if is_whole {
            (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE)
        } else {
            (libc::IP_PMTUDISC_WANT, libc::IPV6_PMTUDISC_WANT)
        };
        // An IPv6 socket sends to IPv4 addresses by the first.
        set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4);
        if self.is_ipv6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6);
        }
        self.is_whole = Some(is_whole);
    }

    /// Sorts the rows to transmit into lists by destination and source. Returns the number of lists.
    fn sort(&mut self, block: &Block, count: usize) -> usize {
        self.group_of.fill(NOBODY);
        let mut groups = 0;
        for row in 0..count {
            if block.next[row] != TO_TRANSMIT {
                continue;
            }
            let (address, port, local) = (&block.address[row], block.port[row], &block.local[row]);
            let mut slot = (address[0] ^ address[1].rotate_left(7) ^ address[2].rotate_left(13))
                .wrapping_add(address[3])
                .wrapping_add(u32::from(port) << 16 | u32::from(port))
                .wrapping_mul(0x9e37_79b1) as usize
                >> 16
                & (GROUPS - 1);
            self.following[row] = NOBODY;
            loop {
                let group = self.group_of[slot];
                if group == NOBODY {
                    self.group_of[slot] = groups as u16;
                    self.head[groups] = row as u16;
                    self.tail[groups] = row as u16;
                    groups += 1;
                    break;
                }
                let first = self.head[group as usize] as usize;
                if block.address[first] == *address
                    && block.port[first] == port
                    && block.local[first] == *local
                {
                    self.following[self.tail[group as usize] as usize] = row as u16;
                    self.tail[group as usize] = row as u16;
                    break;
                }
                slot = (slot + 1) & (GROUPS - 1);
            }
        }
        groups
    }

    /// Makes messages of the sorted rows that go to destinations of OxTunnel's, or of WireGuard's, and marks the rows
    /// `done`. Returns the number of messages; their headers point into the arena.
    fn prepare(
        &mut self,
        block: &mut Block,
        arena: &Arena,
        groups: usize,
        done: u8,
        is_oxtunnel: bool,
    ) -> usize {
        let mut messages = 0;
        let mut vectors = 0;
        for group in 0..groups {
            let mut row = self.head[group];
            // SAFETY: the pointer is valid for one byte. An end speaks one protocol but for a moment.
            let byte = arena.pointer(block.offset[row as usize], 1).map_or(0, |byte| unsafe { *byte });
            if (byte & OXTUNNEL != 0) != is_oxtunnel {
                continue;
            }
            while row != NOBODY {
                let first = row as usize;
                let size = block.length[first] as usize;
                let (mut bytes, mut run, start) = (0, 0, vectors);
                // A run: equal sizes, of which the last may be shorter, and one ECN.
                while row != NOBODY && run < SEGMENTS_MAX {
                    let at = row as usize;
                    let length = block.length[at] as usize;
                    let fits = run == 0
                        || self.segments
                            && length > 0
                            && length <= size
                            && bytes + length <= RUN_BYTES_MAX
                            && block.ecn[at] == block.ecn[first];
                    if !fits {
                        break;
                    }
                    row = self.following[at];
                    block.next[at] = done;
                    let Some(data) = arena.pointer(block.offset[at], length) else { continue };
                    self.vectors[vectors] = libc::iovec { iov_base: data.cast(), iov_len: length };
                    vectors += 1;
                    run += 1;
                    bytes += length;
                    if length < size {
                        break;
                    }
                }
                if run == 0 {
                    continue;
                }
                self.group[messages] = group as u16;
                self.write_header(messages, block, first, start, run);
                messages += 1;
            }
        }
        messages
    }

    /// The header of a message whose `run` datagrams have the vectors from `start` on and go where row `first` does.
    fn write_header(&mut self, message: usize, block: &Block, first: usize, start: usize, run: usize) {
        let name = &mut self.names[message];
        let (address, local, ecn) = (&block.address[first], &block.local[first], block.ecn[first]);
        let name_length = write_name(name, self.is_ipv6, address, block.port[first]);
        let control = &mut self.controls[message];
        let mut used = 0;
        // The segments' size comes last, so that a run that must go out singly keeps what is before it.
        if ecn != 0 {
            let value = i32::from(ecn & ECN_MASK);
            used = if address[..3] == MAPPED {
                push_control(control, used, libc::IPPROTO_IP, libc::IP_TOS, value)
            } else {
                push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value)
            };
        }
        if *local != UNKNOWN {
            used = if self.is_ipv6 {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: bytes_of(local) },
                    ipi6_ifindex: 0,
                };
                push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            } else {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: local[3].to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                push_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            };
        }
        self.single_control[message] = used;
        if run > 1 {
            let size = self.vectors[start].iov_len as u16;
            used = push_control(control, used, SOL_UDP, UDP_SEGMENT, size);
        }
        let header = &mut self.headers[message].msg_hdr;
        header.msg_name = (&raw mut *name).cast();
        header.msg_namelen = name_length;
        header.msg_iov = &raw mut self.vectors[start];
        header.msg_iovlen = run;
        header.msg_control = if used > 0 { (&raw mut *control).cast() } else { std::ptr::null_mut() };
        header.msg_controllen = used;
        header.msg_flags = 0;
    }

    /// Waits for room in the queue below, for a moment: a longer wait would be everybody's.
    pub fn wait_for_room(&self) {
        let mut entry = libc::pollfd { fd: self.raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: `entry` is valid for one pollfd.
        unsafe { libc::poll(&mut entry, 1, 1) };
    }

    /// Counts a message as lost.
    pub fn lose(&mut self, message: usize) {
        self.refused += self.headers[message].msg_hdr.msg_iovlen as u32;
    }

    /// After the kernel refused a message for any other reason than a full queue: sends its datagrams one by one, if
    /// there are several, and counts what is refused again.
    pub fn retry_singly(&mut self, message: usize, reason: i32) {
        let mut header = self.headers[message].msg_hdr;
        let (vectors, run) = (header.msg_iov, header.msg_iovlen);
        if run == 1 {
            self.refused += 1;
            return;
        }
        // EIO says that the device can make no segments at all.
        if reason == libc::EIO {
            self.segments = false;
        }
        header.msg_controllen = self.single_control[message];
        if header.msg_controllen == 0 {
            header.msg_control = std::ptr::null_mut();
        }
        for i in 0..run {
            // SAFETY: the run has `run` vectors in a row.
            header.msg_iov = unsafe { vectors.add(i) };
            header.msg_iovlen = 1;
            if send(self.raw_fd(), &header) != 0 {
                self.refused += 1;
            }
        }
    }
}

/// Sends one message of a `Socket`, without waiting. Returns 0 or an errno.
pub fn send(fd: i32, header: &libc::msghdr) -> i32 {
    // SAFETY: `prepare` made the header; names, controls, vectors and arena bytes live through the call.
    let sent = unsafe { libc::sendmsg(fd, header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { errno() } else { 0 }
}

/// How messages cross into the kernel.
pub trait Port {
    fn socket(&mut self) -> &mut Socket;
    /// Polls readable when `receive` would find something.
    fn descriptor(&self) -> i32;
    /// Fills rows from `from` to `to` - 1, which own slots, without waiting. Returns the row after the last.
    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> usize;
    /// Begins to read a TUN device's packets, each with its offload header, for `device_message`; once for a port. Returns
    /// 0 or -errno.
    fn read_device(&mut self, _fd: i32) -> i32 {
        -libc::ENOTSUP
    }
    /// The oldest that was read and not ended, without waiting.
    fn device_message(&mut self) -> Option<&[u8]> {
        None
    }
    /// Gives its memory back.
    fn end_device_message(&mut self) {}
    /// Lets `wait` wait for somebody else's descriptor too. Returns its bit in what `wait` returns, or -errno.
    fn watch(&mut self, _fd: i32) -> i32 {
        -libc::ENOTSUP
    }
    /// Waits for so many microseconds at most; 0 looks and does not wait. Returns what is ready to be read: bit 0 for
    /// the port, and those of `watch`; or -errno.
    fn wait(&mut self, _timeout_us: u32) -> i32 {
        -libc::ENOTSUP
    }
    /// Sends the socket's first `messages` messages, each once; what is refused is counted. When it returns, the kernel
    /// is done with the memory that they point to.
    fn send(&mut self, messages: usize);
}

thread_local! {
    static PORTS: RefCell<Table<Box<dyn Port>>> = const { RefCell::new(Table::new()) };
}

pub fn with_port(handle: u32, act: impl FnOnce(&mut dyn Port) -> i32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.get(handle).map_or(-libc::EINVAL, |port| act(port.as_mut())))
}

/// The port's options, bits of `ox_udp_open`'s last argument.
const OFFLOAD: u32 = 1;
const URING: u32 = 2;
const UNDEFERRED: u32 = 4;

/// Binds UDP to a host name or address of `length` bytes (UTF-8) and a port; 0 lets the system choose. `options` are
/// bits: 1 to use UDP_GRO and UDP_SEGMENT, 2 for io_uring instead of recvmmsg and sendmmsg, 4 to use it as on kernels
/// before 6.1. Returns the port's handle, or -errno.
///
/// # Safety
/// `host` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_open(host: *const u8, length: u32, port: u32, options: u32) -> i32 {
    if host.is_null() || length > 255 || port > 65535 {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `length` bytes.
    let host = unsafe { std::slice::from_raw_parts(host, length as usize) };
    let Ok(host) = std::str::from_utf8(host) else { return -libc::EINVAL };
    match UdpSocket::bind((host, port as u16)) {
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
    let opened = Socket::open(socket, options & OFFLOAD != 0).and_then(|socket| {
        if options & URING != 0 {
            UringPort::open(socket, options & UNDEFERRED == 0).map(|port| Box::new(port) as Box<dyn Port>)
        } else {
            Ok(Box::new(MmsgPort::open(socket)) as Box<dyn Port>)
        }
    });
    match opened {
        Ok(port) => PORTS.with_borrow_mut(|ports| ports.insert(port)),
        Err(reason) => -reason,
    }
}

/// Closes the socket.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_close(handle: u32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.release(handle))
}

/// Writes four u32s: the descriptor that polls readable, the local port, the receive buffer in bytes, and 1 when
/// segments are offloaded.
///
/// # Safety
/// `out` is valid for four u32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_describe(handle: u32, out: *mut u32) -> i32 {
    if out.is_null() {
        return -libc::EINVAL;
    }
    with_port(handle, |port| {
        let descriptor = port.descriptor() as u32;
        let socket = port.socket();
        let buffer = get_option(socket.raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF) as u32;
        let about = [descriptor, u32::from(socket.local_port()), buffer, u32::from(socket.segments)];
        for (i, value) in about.into_iter().enumerate() {
            // SAFETY: i is below 4.
            unsafe { out.add(i).write_unaligned(value) };
        }
        0
    })
}

/// Lets `ox_udp_wait` wait for somebody else's descriptor too, which stays open until the port is closed. Returns its
/// bit in what that returns; eight may be watched. -ENOTSUP where the port is not io_uring's.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_watch(handle: u32, fd: i32) -> i32 {
    with_port(handle, |port| port.watch(fd))
}

/// Waits, holding up the thread, until the port or a watched descriptor is ready to be read, for so many microseconds at
/// most; 0 looks and does not wait. Returns what is ready: bit 0 for the port, and those of `ox_udp_watch`.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_wait(handle: u32, timeout_us: u32) -> i32 {
    with_port(handle, |port| port.wait(timeout_us))
}

/// Fills rows `from` to `to` - 1, which own slots, with datagrams that have arrived, as TO_PARSE rows. Returns the rows
/// filled; datagrams beyond stay for the next call.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            let (from, to) = (from as usize, (to as usize).min(BURST_CAPACITY));
            if from > to { -libc::EINVAL } else { (port.receive(block, arena, from, to) - from) as i32 }
        })
    })
}

/// Sends the TO_TRANSMIT rows and marks them `done`. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_transmit(handle: u32, burst: u32, count: u32, done: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            let count = (count as usize).min(BURST_CAPACITY);
            let groups = port.socket().sort(block, count);
            for is_oxtunnel in [false, true] {
                let messages = port.socket().prepare(block, arena, groups, done as u8, is_oxtunnel);
                if messages > 0 {
                    port.socket().set_whole(is_oxtunnel);
                    port.send(messages);
                }
            }
            0
        })
    })
}

/// Datagrams refused since the last call: too long, or not taken by the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_refused(handle: u32) -> i32 {
    with_port(handle, |port| std::mem::take(&mut port.socket().refused) as i32)
}
