//! A UDP port by recvmmsg and sendmmsg with the kernel's segmentation offloads (UDP_GRO, UDP_SEGMENT). Invariant: one
//! call moves a whole burst; datagrams to one destination keep their order; what the kernel refuses costs that
//! datagram (or run of datagrams) and delays nobody else's. Never waits.

use crate::layout::{BURST_CAPACITY, Block, TO_PARSE, TO_TRANSMIT, Table, with_burst};
use std::cell::RefCell;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Messages of one recvmmsg. With UDP_GRO each may hold up to 64 datagrams.
const MESSAGES: usize = 32;
/// The largest UDP payload, rounded up: what UDP_GRO may put together.
const MESSAGE_BYTES: usize = 65536;
/// UDP_MAX_SEGMENTS of the oldest kernels that have UDP_SEGMENT.
const SEGMENTS_MAX: usize = 64;
/// A run's payload stays below the largest IPv4 packet.
const RUN_BYTES_MAX: usize = 65000;
const CONTROL_BYTES: usize = 128;
const SOCKET_BUFFER_BYTES: i32 = 8 << 20;
const ECN_MASK: u8 = 3;
const GROUPS: usize = 2 * BURST_CAPACITY;
const NOBODY: u16 = u16::MAX;

// Of linux/udp.h; the libc crate has them for few targets.
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// A control buffer, aligned as cmsghdr must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Datagrams that one recvmmsg brought and that no burst has taken yet.
struct Staging {
    buffers: Vec<u8>,
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    filled: usize,
    /// The message, and the byte in it, that the next row takes.
    message: usize,
    at: usize,
}

struct Port {
    socket: OwnedFd,
    is_ipv6: bool,
    segments: bool,
    staging: Staging,
    sending: Sending,
    /// Datagrams that the kernel refused since the count was last taken.
    refused: u32,
}

/// Scratch for one transmit.
struct Sending {
    /// Rows of one destination are a list, in their order: heads by group, then row to row.
    group_of: [u16; GROUPS],
    head: [u16; BURST_CAPACITY],
    tail: [u16; BURST_CAPACITY],
    following: [u16; BURST_CAPACITY],
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<Control>,
    /// Control bytes of a message whose datagrams go out one by one.
    single_control: [usize; BURST_CAPACITY],
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the raw pointers inside lead to the vectors beside them; they are set anew before every system call.
unsafe impl Send for Port {}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn set_option(fd: i32, level: i32, name: i32, value: i32) -> bool {
    // SAFETY: `value` is valid for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) == 0 }
}

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

impl Staging {
    fn new() -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (name, header, vector) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            buffers: vec![0; MESSAGES * MESSAGE_BYTES],
            names: vec![name; MESSAGES],
            controls: vec![Control([0; CONTROL_BYTES]); MESSAGES],
            headers: vec![header; MESSAGES],
            vectors: vec![vector; MESSAGES],
            filled: 0,
            message: 0,
            at: 0,
        }
    }

    /// Asks the kernel for what is there. Returns 0, or an errno.
    fn refill(&mut self, fd: i32) -> i32 {
        for i in 0..MESSAGES {
            self.vectors[i] = libc::iovec {
                iov_base: self.buffers[i * MESSAGE_BYTES..].as_mut_ptr().cast(),
                iov_len: MESSAGE_BYTES,
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = CONTROL_BYTES;
            header.msg_flags = 0;
        }
        // SAFETY: every header was just pointed at live memory of the lengths it states.
        let got = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                MESSAGES as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.message = 0;
        self.at = 0;
        self.filled = got.max(0) as usize;
        if got < 0 { errno() } else { 0 }
    }

    /// Datagram size of a message that UDP_GRO put together (0 when it did not), and the ECN bits.
    fn ancillary(&self, message: usize) -> (usize, u8) {
        let (mut segment, mut ecn) = (0, 0);
        let header = &self.headers[message].msg_hdr;
        // SAFETY: the kernel has written msg_controllen bytes of well-formed control messages.
        let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !control.is_null() {
            // SAFETY: `control` lies in the control buffer, its data behind it; sizes are those the kernel documents.
            unsafe {
                let data = libc::CMSG_DATA(control);
                match ((*control).cmsg_level, (*control).cmsg_type) {
                    (SOL_UDP, UDP_GRO) => segment = data.cast::<u16>().read_unaligned() as usize,
                    (libc::IPPROTO_IP, libc::IP_TOS) => ecn = *data & ECN_MASK,
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ecn = *data & ECN_MASK,
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(header, control);
            }
        }
        (segment, ecn)
    }
}

/// Four host-order words, IPv4 as ::ffff:a.b.c.d, and the port.
fn read_name(name: &libc::sockaddr_in6) -> ([u32; 4], u16) {
    if i32::from(name.sin6_family) == libc::AF_INET {
        // SAFETY: an AF_INET name is a sockaddr_in, which is smaller and has no invalid bit patterns.
        let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
        return ([0, 0, 0xffff, u32::from_be(name.sin_addr.s_addr)], u16::from_be(name.sin_port));
    }
    let bytes = name.sin6_addr.s6_addr;
    let word = |i: usize| u32::from_be_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    ([word(0), word(4), word(8), word(12)], u16::from_be(name.sin6_port))
}

/// Writes the name for a socket of the given family. Returns its length.
fn write_name(name: &mut libc::sockaddr_in6, is_ipv6: bool, address: &[u32; 4], port: u16) -> u32 {
    if is_ipv6 {
        for (i, word) in address.iter().enumerate() {
            name.sin6_addr.s6_addr[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
        }
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

/// Appends a control message with an integer value. Returns the bytes used in all.
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

impl Sending {
    fn new() -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (name, header, vector) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            group_of: [NOBODY; GROUPS],
            head: [NOBODY; BURST_CAPACITY],
            tail: [NOBODY; BURST_CAPACITY],
            following: [NOBODY; BURST_CAPACITY],
            names: vec![name; BURST_CAPACITY],
            controls: vec![Control([0; CONTROL_BYTES]); BURST_CAPACITY],
            single_control: [0; BURST_CAPACITY],
            headers: vec![header; BURST_CAPACITY],
            vectors: vec![vector; BURST_CAPACITY],
        }
    }

    /// Sorts the rows to transmit into lists by destination. Returns the number of lists.
    fn group(&mut self, block: &Block, count: usize) -> usize {
        self.group_of.fill(NOBODY);
        let mut groups = 0;
        for row in 0..count {
            if block.next[row] != TO_TRANSMIT {
                continue;
            }
            let (address, port) = (&block.address[row], block.port[row]);
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
                if block.address[first] == *address && block.port[first] == port {
                    self.following[self.tail[group as usize] as usize] = row as u16;
                    self.tail[group as usize] = row as u16;
                    break;
                }
                slot = (slot + 1) & (GROUPS - 1);
            }
        }
        groups
    }
}

impl Port {
    /// Fills rows from `from`, which own slots, and returns how many.
    fn receive(
        &mut self,
        block: &mut Block,
        arena: &mut crate::layout::Arena,
        from: usize,
        to: usize,
    ) -> i32 {
        let mut row = from;
        let fd = self.socket.as_raw_fd();
        while row < to {
            let staging = &mut self.staging;
            if staging.message == staging.filled && (staging.refill(fd) != 0 || staging.filled == 0) {
                break;
            }
            let message = staging.message;
            let total = staging.headers[message].msg_len as usize;
            let (segment, ecn) = staging.ancillary(message);
            let (address, port) = read_name(&staging.names[message]);
            let size = if segment == 0 { total } else { segment };
            loop {
                let length = size.min(total - staging.at);
                let start = message * MESSAGE_BYTES + staging.at;
                // Longer than any packet that this relay makes or takes: refused, not cut.
                match arena.slice(block.offset[row], length) {
                    Some(target)
                        if length
                            <= crate::layout::SLOT_BYTES
                                - crate::layout::HEADROOM
                                - crate::layout::TAILROOM =>
                    {
                        target.copy_from_slice(&staging.buffers[start..start + length]);
                        block.length[row] = length as u32;
                        block.address[row] = address;
                        block.port[row] = port;
                        block.ecn[row] = ecn;
                        block.next[row] = TO_PARSE;
                        row += 1;
                    }
                    _ => self.refused += 1,
                }
                staging.at += length;
                if staging.at >= total {
                    staging.message += 1;
                    staging.at = 0;
                    break;
                }
                if row == to {
                    break;
                }
            }
        }
        (row - from) as i32
    }

    /// Sends the TO_TRANSMIT rows, grouped by destination.
    fn transmit(&mut self, block: &mut Block, arena: &mut crate::layout::Arena, count: usize, done: u8) {
        let groups = self.sending.group(block, count);
        let mut messages = 0;
        let mut vectors = 0;
        for group in 0..groups {
            let mut row = self.sending.head[group];
            while row != NOBODY {
                let sending = &mut self.sending;
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
                    row = sending.following[at];
                    block.next[at] = done;
                    let Some(data) = arena.pointer(block.offset[at], length) else { continue };
                    sending.vectors[vectors] = libc::iovec { iov_base: data.cast(), iov_len: length };
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
                let name = &mut sending.names[messages];
                let name_length = write_name(name, self.is_ipv6, &block.address[first], block.port[first]);
                let control = &mut sending.controls[messages];
                let mut used = 0;
                // ECN comes first, so that a run that must go out singly keeps it and loses only what is behind.
                if block.ecn[first] != 0 {
                    let value = i32::from(block.ecn[first] & ECN_MASK);
                    let is_mapped = block.address[first][..3] == [0, 0, 0xffff];
                    used = if is_mapped {
                        push_control(control, used, libc::IPPROTO_IP, libc::IP_TOS, value)
                    } else {
                        push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value)
                    };
                }
                sending.single_control[messages] = used;
                if run > 1 {
                    used = push_control(control, used, SOL_UDP, UDP_SEGMENT, size as u16);
                }
                let header = &mut sending.headers[messages].msg_hdr;
                header.msg_name = (&raw mut *name).cast();
                header.msg_namelen = name_length;
                header.msg_iov = &raw mut sending.vectors[start];
                header.msg_iovlen = run;
                header.msg_control = if used > 0 { (&raw mut *control).cast() } else { std::ptr::null_mut() };
                header.msg_controllen = used;
                header.msg_flags = 0;
                messages += 1;
            }
        }
        self.send(messages);
    }

    /// Sends the first `messages` headers, each once; a refused one is counted and passed over.
    fn send(&mut self, messages: usize) {
        let fd = self.socket.as_raw_fd();
        let mut at = 0;
        let mut waited = false;
        while at < messages {
            let left = &mut self.sending.headers[at..messages];
            // SAFETY: the headers point at names, controls, vectors and arena bytes that live through the call.
            let sent = unsafe {
                libc::sendmmsg(
                    fd,
                    left.as_mut_ptr(),
                    left.len() as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if sent > 0 {
                at += sent as usize;
                continue;
            }
            match errno() {
                libc::EINTR => {}
                libc::EAGAIN | libc::ENOBUFS if !waited => {
                    // Once, and for a moment: the queue below is full, and a longer wait would be everybody's.
                    waited = true;
                    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
                    // SAFETY: `entry` is valid for one pollfd.
                    unsafe { libc::poll(&mut entry, 1, 1) };
                }
                libc::EAGAIN | libc::ENOBUFS => {
                    self.refused += self.sending.headers[at..messages]
                        .iter()
                        .map(|m| m.msg_hdr.msg_iovlen as u32)
                        .sum::<u32>();
                    return;
                }
                reason => {
                    let run = self.sending.headers[at].msg_hdr.msg_iovlen;
                    if run > 1 {
                        // Some rows are not sendable, or not as segments; EIO says that the device has none at all.
                        if reason == libc::EIO {
                            self.segments = false;
                        }
                        self.send_singly(at);
                    } else {
                        self.refused += 1;
                    }
                    at += 1;
                }
            }
        }
    }

    /// Sends each datagram of one run by itself.
    fn send_singly(&mut self, message: usize) {
        let mut header = self.sending.headers[message].msg_hdr;
        header.msg_controllen = self.sending.single_control[message];
        if header.msg_controllen == 0 {
            header.msg_control = std::ptr::null_mut();
        }
        let (vectors, run) = (header.msg_iov, header.msg_iovlen);
        for i in 0..run {
            // SAFETY: the run has `run` vectors in a row.
            header.msg_iov = unsafe { vectors.add(i) };
            header.msg_iovlen = 1;
            // SAFETY: as in `send`.
            let sent = unsafe {
                libc::sendmsg(self.socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            };
            if sent < 0 {
                self.refused += 1;
            }
        }
    }
}

thread_local! {
    static PORTS: RefCell<Table<Port>> = const { RefCell::new(Table::new()) };
}

fn with_port(handle: u32, act: impl FnOnce(&mut Port) -> i32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.get(handle).map_or(-libc::EINVAL, act))
}

/// Binds UDP to a host name or address of `length` bytes (UTF-8) and a port; 0 lets the system choose. `offload` is 0
/// to do without UDP_GRO and UDP_SEGMENT. Returns the port's handle, or -errno.
///
/// # Safety
/// `host` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_open(host: *const u8, length: u32, port: u32, offload: u32) -> i32 {
    if host.is_null() || length > 255 || port > 65535 {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `length` bytes.
    let host = unsafe { std::slice::from_raw_parts(host, length as usize) };
    let Ok(host) = std::str::from_utf8(host) else { return -libc::EINVAL };
    let socket = match UdpSocket::bind((host, port as u16)) {
        Ok(socket) => socket,
        Err(error) => return -error.raw_os_error().unwrap_or(libc::EADDRNOTAVAIL),
    };
    take(socket.into(), offload)
}

/// The same over a socket that is bound already and stays the caller's: the port has a descriptor of its own.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_adopt(fd: i32, offload: u32) -> i32 {
    // SAFETY: fcntl takes no memory.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return -errno();
    }
    // SAFETY: the descriptor was just made and is nobody else's.
    take(unsafe { OwnedFd::from_raw_fd(own) }, offload)
}

fn take(socket: OwnedFd, offload: u32) -> i32 {
    let fd = socket.as_raw_fd();
    let is_ipv6 = get_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == libc::AF_INET6;
    grow_buffers(fd);
    set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
    if is_ipv6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
    }
    // Fragments are for the path to make, and larger ones than a path takes are for the sender to know of.
    let segments =
        offload != 0 && set_option(fd, SOL_UDP, UDP_GRO, 1) && set_option(fd, SOL_UDP, UDP_SEGMENT, 0);
    let port =
        Port { socket, is_ipv6, segments, staging: Staging::new(), sending: Sending::new(), refused: 0 };
    PORTS.with_borrow_mut(|ports| ports.insert(port))
}

/// Closes the socket.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_close(handle: u32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.release(handle))
}

/// Writes four u32s: the descriptor, the local port, the receive buffer in bytes, and 1 when segments are offloaded.
///
/// # Safety
/// `out` is valid for four u32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_describe(handle: u32, out: *mut u32) -> i32 {
    if out.is_null() {
        return -libc::EINVAL;
    }
    with_port(handle, |port| {
        let fd = port.socket.as_raw_fd();
        // SAFETY: an all-zero sockaddr_in6 is valid; getsockname writes at most its length.
        let local = unsafe {
            let mut name: libc::sockaddr_in6 = zeroed();
            let mut length = size_of::<libc::sockaddr_in6>() as u32;
            libc::getsockname(fd, (&raw mut name).cast(), &mut length);
            read_name(&name).1
        };
        let buffer = get_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF);
        for (i, value) in
            [fd as u32, u32::from(local), buffer as u32, u32::from(port.segments)].into_iter().enumerate()
        {
            // SAFETY: i is below 4.
            unsafe { out.add(i).write_unaligned(value) };
        }
        0
    })
}

/// Fills rows `from` to `to` - 1, which own slots, with datagrams that have arrived, as TO_PARSE rows. Returns the rows
/// filled; datagrams beyond stay for the next call.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            let to = (to as usize).min(BURST_CAPACITY);
            if from as usize > to { -libc::EINVAL } else { port.receive(block, arena, from as usize, to) }
        })
    })
}

/// Sends the TO_TRANSMIT rows and marks them `done`. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_transmit(handle: u32, burst: u32, count: u32, done: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            port.transmit(block, arena, (count as usize).min(BURST_CAPACITY), done as u8);
            0
        })
    })
}

/// Datagrams refused since the last call: too long, or not taken by the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn ox_udp_refused(handle: u32) -> i32 {
    with_port(handle, |port| std::mem::take(&mut port.refused) as i32)
}
