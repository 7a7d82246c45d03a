//! The userspace exit's UDP: one socket per inner source address and port, so that mapping and filtering are
//! endpoint-independent (RFC 4787 REQ-1, REQ-8), all of them behind one epoll descriptor that others join. Invariant:
//! flows are bounded in all and per peer, only outbound packets keep one alive (REQ-6), and an answer goes
//! only to the inner source that owns the socket it came to. Never waits; puts no fragments together and makes none.

use crate::gso::{PACKET_BYTES_MAX, SEGMENTS_MAX, add, fold, pseudo_header, read_u16, write_u16};
use crate::icmp::{self, read_name};
use crate::layout::{Arena, BURST_CAPACITY, Block, Owner, TO_EXIT, TO_TUNNEL, Table, with_burst};
use crate::sys::{close, errno, hops_of, set_option};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

const PROTOCOL_UDP: u8 = 17;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const HOP_LIMIT: u8 = 64;
/// Largest datagram that an answer may have: what IPv4 has room for.
const ANSWER_BYTES_MAX: usize = 65507;
/// Datagrams that one flow may bring before the next one's turn.
const MESSAGES: usize = 32;
const EVENTS: usize = 64;
/// Answers beyond the MTU that wait to be cut into fragments, and ICMP errors.
const LARGE_MAX: usize = 64;
/// One peer may hold a quarter of all flows, whatever its addresses; an address of no known peer as many.
const SOURCE_SHARE: usize = 4;
/// Ports from here on are kept the same outside where they are free (RFC 4787 section 4.2.1).
const PORT_KEPT_MIN: u16 = 1024;
/// What the system's limits allow of it. Twice this is what a flow that nobody reads may hold.
const SOCKET_BUFFER_BYTES: i32 = 512 << 10;
/// A run's payload stays below the largest IPv4 packet.
const RUN_BYTES_MAX: usize = 65000;
const CONTROL_BYTES: usize = 64;
/// Of three quarters of the descriptors that the process may have, UDP and TCP get half each.
const DESCRIPTORS_MAX: u64 = 1 << 20;
/// Errors of one flow that are handed on at a time.
const REPORTS_MAX: usize = 16;
/// More of a datagram than an ICMP error ever quotes.
const QUOTED_BYTES_MAX: usize = 1280;
/// What a packet is made of whose hops are not known.
const CONTROL_OF_HOPS: u32 = size_of::<i32>() as u32;
const NOBODY: u16 = u16::MAX;
const NO_FLOW: u32 = u32::MAX;

// Of linux/udp.h; the libc crate has them for few targets.
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

// Bits of what `ox_flows_poll` returns; a watched descriptor's own come behind.
const READY_FLOWS: u32 = 1;
const FIRST_WATCHED: u32 = 1;
const WATCHED_MAX: u32 = 16;

/// Where an inner packet comes from, IPv4 addresses in the first four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    is_ipv6: bool,
    address: [u8; 16],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    port: u16,
}

struct Flow {
    key: Key,
    owner: Owner,
    /// Never 0, and another for each flow in the same place.
    generation: u32,
    fd: i32,
    /// Its port outside.
    outer_port: u16,
    last_sent_ms: u32,
    /// Whether the client has sent to this host's loopback, which the policy must have opened.
    used_loopback: bool,
    /// Neighbours in the order of last use among the flows of one owner.
    older: u32,
    newer: u32,
    /// Rows of the burst at hand that leave by this flow.
    head: u16,
    tail: u16,
    /// The kernel's count of datagrams for which its buffer had no room.
    overflowed: u32,
}

/// What one owner holds.
struct Holder {
    flows: usize,
    oldest: u32,
    newest: u32,
}

/// A control buffer, aligned as cmsghdr must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// Memory for the messages of one system call.
struct Messages {
    names: Vec<libc::sockaddr_in6>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

impl Messages {
    fn new(count: usize, vectors: usize) -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (name, header, vector) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            names: vec![name; count],
            controls: vec![Control([0; CONTROL_BYTES]); count],
            headers: vec![header; count],
            vectors: vec![vector; vectors],
        }
    }
}

/// What rows become, as TypeScript numbers it.
#[derive(Clone, Copy)]
struct Outcomes {
    done: u8,
    malformed: u8,
    full: u8,
    failed: u8,
    /// Not what a row becomes but what it is: on its way to another client's port outside (RFC 4787 REQ-9).
    hairpin: u8,
}

/// The ports of this host that are some client's, of all threads' flows, a bit each: IPv4's, then IPv6's.
static PORTS: [[AtomicU64; 1024]; 2] = [const { [const { AtomicU64::new(0) }; 1024] }; 2];

fn mark_port(is_ipv6: bool, port: u16, is_open: bool) {
    let word = &PORTS[usize::from(is_ipv6)][usize::from(port >> 6)];
    let bit = 1 << (port & 63);
    if is_open {
        word.fetch_or(bit, Ordering::Relaxed)
    } else {
        word.fetch_and(!bit, Ordering::Relaxed)
    };
}

fn is_flow_port(is_ipv6: bool, port: u16) -> bool {
    PORTS[usize::from(is_ipv6)][usize::from(port >> 6)].load(Ordering::Relaxed) >> (port & 63) & 1 == 1
}

/// A row of the burst at hand as it arrived: where its packet begins, its length, and the hops that it has left.
#[derive(Clone, Copy, Default)]
struct Arrived {
    offset: u32,
    length: u32,
    hops: u8,
}

struct Flows {
    epoll: i32,
    mtu: usize,
    max_flows: usize,
    timeout_ms: u32,
    outcomes: Outcomes,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    holders: HashMap<Owner, Holder>,
    generation: u32,
    watched: u32,
    events: [libc::epoll_event; EVENTS],
    /// Events of flows, and which of them is next.
    ready: usize,
    at: usize,
    receiving: Messages,
    /// Where datagrams go on that do not fit a packet of `mtu` bytes.
    spill: Vec<u8>,
    large: VecDeque<Vec<u8>>,
    sending: Messages,
    following: [u16; BURST_CAPACITY],
    arrived: [Arrived; BURST_CAPACITY],
    segments: bool,
    /// Datagrams from outside that found no room, since the count was last taken.
    lost: u32,
    /// Flows that the system would not give a socket, since the last burst began.
    starved: i32,
}

// SAFETY: the raw pointers inside lead to the vectors beside them; they are set anew before every system call.
unsafe impl Send for Flows {}

/// An inner UDP packet whose lengths were checked.
struct Datagram {
    key: Key,
    /// Where its payload begins and how long it is.
    payload: usize,
    bytes: usize,
    to: [u8; 16],
    to_port: u16,
}

/// Where the UDP header of a plain packet begins: not a fragment, and in IPv6 without extension headers.
fn plain_segment(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_BYTES => {
            let whole = read_u16(packet, 6) & 0x3fff == 0;
            (packet[9] == PROTOCOL_UDP && whole).then_some(usize::from(packet[0] & 15) * 4)
        }
        6 if packet.len() >= IPV6_BYTES => (packet[6] == PROTOCOL_UDP).then_some(IPV6_BYTES),
        _ => None,
    }
}

/// Reads a packet whose UDP header begins at `segment`; None when its lengths are not as they should be.
fn parse(packet: &[u8], segment: usize) -> Option<Datagram> {
    let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let header = if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
    if segment < header || packet.len() < segment + UDP_BYTES {
        return None;
    }
    let total = if is_ipv6 {
        IPV6_BYTES + usize::from(read_u16(packet, 4))
    } else {
        usize::from(read_u16(packet, 2))
    };
    let size = usize::from(read_u16(packet, segment + 4));
    if size < UDP_BYTES || segment + size > total.min(packet.len()) {
        return None;
    }
    let (mut from, mut to) = ([0; 16], [0; 16]);
    if is_ipv6 {
        from.copy_from_slice(&packet[8..24]);
        to.copy_from_slice(&packet[24..40]);
    } else {
        from[..4].copy_from_slice(&packet[12..16]);
        to[..4].copy_from_slice(&packet[16..20]);
    }
    let source = Source { is_ipv6, address: from };
    Some(Datagram {
        key: Key { source, port: read_u16(packet, segment) },
        payload: segment + UDP_BYTES,
        bytes: size - UDP_BYTES,
        to,
        to_port: read_u16(packet, segment + 2),
    })
}

fn is_loopback(is_ipv6: bool, address: &[u8; 16]) -> bool {
    if is_ipv6 { u128::from_be_bytes(*address) == 1 } else { address[0] == 127 }
}

/// Writes a socket address. Returns its length.
fn write_name(name: &mut libc::sockaddr_in6, is_ipv6: bool, address: &[u8; 16], port: u16) -> u32 {
    if is_ipv6 {
        // SAFETY: all zero bytes are a valid sockaddr_in6.
        *name = unsafe { zeroed() };
        name.sin6_family = libc::AF_INET6 as u16;
        name.sin6_port = port.to_be();
        name.sin6_addr.s6_addr = *address;
        return size_of::<libc::sockaddr_in6>() as u32;
    }
    // SAFETY: sockaddr_in is smaller than sockaddr_in6 and no more strictly aligned.
    let name = unsafe { &mut *(&raw mut *name).cast::<libc::sockaddr_in>() };
    name.sin_family = libc::AF_INET as u16;
    name.sin_port = port.to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes([address[0], address[1], address[2], address[3]]);
    size_of::<libc::sockaddr_in>() as u32
}

/// A socket on the same port as inside where that is free, else on any, and which. Err is the errno.
fn bind(is_ipv6: bool, port: u16) -> Result<(i32, u16), i32> {
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointer crosses.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(errno());
    }
    if is_ipv6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, SOCKET_BUFFER_BYTES);
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SOCKET_BUFFER_BYTES);
    set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    icmp::keep_errors(fd, is_ipv6, true);
    let wanted = if port >= PORT_KEPT_MIN { port } else { 0 };
    let mut reason = 0;
    for port in [wanted, 0] {
        // SAFETY: all zero bytes are a valid name.
        let mut name = unsafe { zeroed() };
        let mut length = write_name(&mut name, is_ipv6, &[0; 16], port);
        // SAFETY: `name` is valid for `length` bytes.
        if unsafe { libc::bind(fd, (&raw const name).cast(), length) } == 0 {
            // SAFETY: both are valid and writable for what an address takes.
            unsafe { libc::getsockname(fd, (&raw mut name).cast(), &mut length) };
            return Ok((fd, read_name(&name, is_ipv6).1));
        }
        reason = errno();
        if reason != libc::EADDRINUSE {
            break;
        }
    }
    close(fd);
    Err(reason)
}

/// Writes the control messages of a datagram: the hops that it begins with, and the size of segments where it has several.
fn write_control(
    header: &mut libc::msghdr,
    control: &mut Control,
    is_ipv6: bool,
    hops: u8,
    segment: Option<u16>,
) {
    header.msg_control = (&raw mut *control).cast();
    header.msg_controllen = CONTROL_BYTES;
    let (level, kind) =
        if is_ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute; a cmsghdr with an i32 and one with a u16 fit CONTROL_BYTES, which are
    // all zero or what was written here before.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_len = libc::CMSG_LEN(CONTROL_OF_HOPS) as usize;
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        libc::CMSG_DATA(first).cast::<i32>().write_unaligned(i32::from(hops));
        let mut bytes = libc::CMSG_SPACE(CONTROL_OF_HOPS) as usize;
        if let Some(size) = segment {
            let second = first.cast::<u8>().add(bytes).cast::<libc::cmsghdr>();
            (*second).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            (*second).cmsg_level = SOL_UDP;
            (*second).cmsg_type = UDP_SEGMENT;
            libc::CMSG_DATA(second).cast::<u16>().write_unaligned(size);
            bytes += libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
        }
        header.msg_controllen = bytes;
    }
}

/// Writes the headers of a packet as its client sent it, of which an error is to be told; no checksum is known any more.
fn write_headers_of(packet: &mut [u8], from: &Key, to: &[u8; 16], to_port: u16) {
    let far = Key { source: Source { is_ipv6: from.source.is_ipv6, address: *to }, port: to_port };
    write_headers(packet, &from.source.address, from.port, &far);
}

/// Writes the headers of a UDP packet that fills `packet`; its payload is there already.
fn write_headers(packet: &mut [u8], from: &[u8; 16], from_port: u16, to: &Key) {
    let is_ipv6 = to.source.is_ipv6;
    let (header, total) = (if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES }, packet.len());
    packet[..header].fill(0);
    if is_ipv6 {
        packet[0] = 0x60;
        write_u16(packet, 4, (total - IPV6_BYTES) as u16);
        packet[6] = PROTOCOL_UDP;
        packet[7] = HOP_LIMIT;
        packet[8..24].copy_from_slice(from);
        packet[24..40].copy_from_slice(&to.source.address);
    } else {
        packet[0] = 0x45;
        write_u16(packet, 2, total as u16);
        packet[8] = HOP_LIMIT;
        packet[9] = PROTOCOL_UDP;
        packet[12..16].copy_from_slice(&from[..4]);
        packet[16..20].copy_from_slice(&to.source.address[..4]);
        let sum = !fold(add(&packet[..IPV4_BYTES]));
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    }
    write_u16(packet, header, from_port);
    write_u16(packet, header + 2, to.port);
    write_u16(packet, header + 4, (total - header) as u16);
    packet[header + 6..header + 8].fill(0);
    let sum = !fold(pseudo_header(packet, is_ipv6, false, total - header) + add(&packet[header..]));
    // A checksum of zero means "none" in UDP, so zero is sent as all ones (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[header + 6..header + 8].copy_from_slice(&sum.to_ne_bytes());
}

/// The count of overflowed datagrams that came with a message, if the socket has lost any.
fn overflowed(header: &libc::msghdr) -> Option<u32> {
    if header.msg_controllen == 0 {
        return None;
    }
    // SAFETY: the kernel has written msg_controllen bytes of well-formed control messages, and this is the only kind
    // that the socket was asked to give.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        let is_ours = !control.is_null()
            && (*control).cmsg_level == libc::SOL_SOCKET
            && (*control).cmsg_type == libc::SO_RXQ_OVFL;
        is_ours.then(|| libc::CMSG_DATA(control).cast::<u32>().read_unaligned())
    }
}

impl Flows {
    fn new(mtu: usize, max_flows: usize, timeout_ms: u32, outcomes: Outcomes) -> Result<Self, i32> {
        // SAFETY: no pointer crosses.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(errno());
        }
        Ok(Self {
            epoll,
            mtu,
            max_flows,
            timeout_ms,
            outcomes,
            flows: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            holders: HashMap::new(),
            generation: 0,
            watched: 0,
            events: [libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            ready: 0,
            at: 0,
            receiving: Messages::new(MESSAGES, 2 * MESSAGES),
            // One byte more tells a datagram that is too long from one of the greatest size.
            spill: vec![0; MESSAGES * (ANSWER_BYTES_MAX + 1)],
            large: VecDeque::new(),
            sending: Messages::new(BURST_CAPACITY, BURST_CAPACITY),
            following: [NOBODY; BURST_CAPACITY],
            arrived: [Arrived::default(); BURST_CAPACITY],
            segments: true,
            lost: 0,
            starved: 0,
        })
    }

    fn flow(&mut self, index: u32) -> Option<&mut Flow> {
        self.flows.get_mut(index as usize)?.as_mut()
    }

    fn watch(&mut self, fd: i32, data: u64) -> i32 {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
        // SAFETY: `event` is valid; the kernel copies it.
        if unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } < 0 {
            return -errno();
        }
        0
    }

    /// Takes a flow out of its holder's order.
    fn unlink(&mut self, index: u32) {
        let Some(&mut Flow { older, newer, owner, .. }) = self.flow(index) else { return };
        if let Some(flow) = self.flow(older) {
            flow.newer = newer;
        }
        if let Some(flow) = self.flow(newer) {
            flow.older = older;
        }
        let Some(holder) = self.holders.get_mut(&owner) else { return };
        if holder.oldest == index {
            holder.oldest = newer;
        }
        if holder.newest == index {
            holder.newest = older;
        }
    }

    /// Puts a flow behind all others of its holder.
    fn link(&mut self, index: u32) {
        let Some(owner) = self.flow(index).map(|flow| flow.owner) else { return };
        let holder =
            self.holders.entry(owner).or_insert(Holder { flows: 0, oldest: NO_FLOW, newest: NO_FLOW });
        let newest = std::mem::replace(&mut holder.newest, index);
        if holder.oldest == NO_FLOW {
            holder.oldest = index;
        }
        if let Some(flow) = self.flow(newest) {
            flow.newer = index;
        }
        if let Some(flow) = self.flow(index) {
            (flow.older, flow.newer) = (newest, NO_FLOW);
        }
    }

    fn end(&mut self, index: u32) {
        self.unlink(index);
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::take) else { return };
        mark_port(flow.key.source.is_ipv6, flow.outer_port, false);
        close(flow.fd);
        self.by_key.remove(&flow.key);
        self.free.push(index);
        if let Some(holder) = self.holders.get_mut(&flow.owner) {
            holder.flows -= 1;
            if holder.flows == 0 {
                self.holders.remove(&flow.owner);
            }
        }
    }

    /// Whoever has most flows loses its idlest, so that one client cannot push out another's few. False when there
    /// is none. What the burst at hand has for that flow is dropped with it.
    fn make_room(&mut self) -> bool {
        let Some(holder) = self.holders.values().max_by_key(|holder| holder.flows) else { return false };
        self.end(holder.oldest);
        true
    }

    /// The flow of an inner source, which is opened for its peer where there is none; None when one more cannot be had.
    fn admit(&mut self, datagram: &Datagram, peer: u32, now_ms: u32) -> Option<u32> {
        let key = datagram.key;
        let index = match self.by_key.get(&key) {
            Some(&index) => {
                if self.flow(index).is_some_and(|flow| flow.newer != NO_FLOW) {
                    self.unlink(index);
                    self.link(index);
                }
                index
            }
            None => self.open(key, Owner::of(peer, key.source.mapped()))?,
        };
        let flow = self.flow(index)?;
        flow.last_sent_ms = now_ms;
        flow.used_loopback |= is_loopback(key.source.is_ipv6, &datagram.to);
        Some(index)
    }

    fn open(&mut self, key: Key, owner: Owner) -> Option<u32> {
        let share = (self.max_flows / SOURCE_SHARE).max(1);
        let own = self.holders.get(&owner).filter(|holder| holder.flows >= share);
        if let Some(oldest) = own.map(|holder| holder.oldest) {
            self.end(oldest);
        }
        if self.by_key.len() >= self.max_flows {
            self.make_room();
        }
        let mut opened = bind(key.source.is_ipv6, key.port);
        if matches!(opened, Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
            self.starved += 1;
            if self.make_room() {
                opened = bind(key.source.is_ipv6, key.port);
            }
        }
        let (fd, outer_port) = opened.ok()?;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let generation = self.generation;
        let index = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            (self.flows.len() - 1) as u32
        });
        if self.watch(fd, u64::from(generation) << 32 | u64::from(index)) < 0 {
            close(fd);
            self.free.push(index);
            return None;
        }
        self.flows[index as usize] = Some(Flow {
            key,
            owner,
            generation,
            fd,
            outer_port,
            last_sent_ms: 0,
            used_loopback: false,
            older: NO_FLOW,
            newer: NO_FLOW,
            head: NOBODY,
            tail: NOBODY,
            overflowed: 0,
        });
        mark_port(key.source.is_ipv6, outer_port, true);
        self.by_key.insert(key, index);
        self.link(index);
        if let Some(holder) = self.holders.get_mut(&owner) {
            holder.flows += 1;
        }
        Some(index)
    }

    /// Sends the TO_EXIT rows that are plain UDP; the others stay. Returns how many flows found no socket at first.
    fn send(&mut self, block: &mut Block, arena: &mut Arena, count: usize, now_ms: u32) -> i32 {
        self.starved = 0;
        let mut touched = [NO_FLOW; BURST_CAPACITY];
        let mut flows = 0;
        for row in 0..count {
            let is_hairpin = block.next[row] == self.outcomes.hairpin;
            if block.next[row] != TO_EXIT && !is_hairpin {
                continue;
            }
            let (offset, length) = (block.offset[row], block.length[row]);
            let Some(packet) = arena.slice(offset, length as usize) else { continue };
            let Some(segment) = plain_segment(packet) else { continue };
            let hops = hops_of(packet);
            let Some(datagram) = parse(packet, segment) else {
                block.next[row] = self.outcomes.malformed;
                continue;
            };
            // Whatever else listens on this host is no client's.
            if is_hairpin && !is_flow_port(datagram.key.source.is_ipv6, datagram.to_port) {
                continue;
            }
            self.arrived[row] = Arrived { offset, length, hops };
            // It stays so when its flow gives way to a later row's.
            block.next[row] = self.outcomes.full;
            let Some(index) = self.admit(&datagram, block.peer[row], now_ms) else { continue };
            // From here on the row describes the payload, and its address columns where that goes.
            block.offset[row] += datagram.payload as u32;
            block.length[row] = datagram.bytes as u32;
            for (word, bytes) in block.address[row].iter_mut().zip(datagram.to.as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            block.port[row] = datagram.to_port;
            self.following[row] = NOBODY;
            let Some(flow) = self.flow(index) else { continue };
            let tail = std::mem::replace(&mut flow.tail, row as u16);
            if flow.head == NOBODY {
                flow.head = row as u16;
                touched[flows] = index;
                flows += 1;
            } else {
                self.following[usize::from(tail)] = row as u16;
            }
        }
        for &index in &touched[..flows] {
            self.flush(index, block, arena);
        }
        self.starved
    }

    /// Sends the rows that wait at a flow, runs of equal size to one destination as one message.
    fn flush(&mut self, index: u32, block: &mut Block, arena: &Arena) {
        let Some(flow) = self.flow(index) else { return };
        let (fd, is_ipv6) = (flow.fd, flow.key.source.is_ipv6);
        let mut row = std::mem::replace(&mut flow.head, NOBODY);
        flow.tail = NOBODY;
        let mut first_rows = [NOBODY; BURST_CAPACITY];
        let (mut messages, mut vectors) = (0, 0);
        while row != NOBODY {
            let first = usize::from(row);
            let size = block.length[first] as usize;
            let (mut bytes, mut run, start) = (0, 0, vectors);
            while row != NOBODY && run < SEGMENTS_MAX {
                let at = usize::from(row);
                let length = block.length[at] as usize;
                let fits = run == 0
                    || self.segments
                        && length > 0
                        && length <= size
                        && bytes + length <= RUN_BYTES_MAX
                        && block.port[at] == block.port[first]
                        && self.arrived[at].hops == self.arrived[first].hops
                        && block.address[at] == block.address[first];
                if !fits {
                    break;
                }
                row = self.following[at];
                block.next[at] = self.outcomes.done;
                let Some(data) = arena.pointer(block.offset[at], length) else { break };
                self.sending.vectors[vectors] = libc::iovec { iov_base: data.cast(), iov_len: length };
                vectors += 1;
                run += 1;
                bytes += length;
                if length < size {
                    break; // only a run's last may be shorter
                }
            }
            if run == 0 {
                continue;
            }
            let Messages { names, controls, headers, vectors: all } = &mut self.sending;
            let mut address = [0; 16];
            for (bytes, word) in address.as_chunks_mut::<4>().0.iter_mut().zip(block.address[first]) {
                *bytes = word.to_ne_bytes();
            }
            let header = &mut headers[messages].msg_hdr;
            header.msg_namelen = write_name(&mut names[messages], is_ipv6, &address, block.port[first]);
            header.msg_name = (&raw mut names[messages]).cast();
            header.msg_iov = &raw mut all[start];
            header.msg_iovlen = run;
            let segment = if run > 1 { Some(size as u16) } else { None };
            write_control(header, &mut controls[messages], is_ipv6, self.arrived[first].hops, segment);
            first_rows[messages] = first as u16;
            messages += 1;
        }
        let (mut sent, mut is_again) = (0, false);
        while sent < messages {
            // SAFETY: the headers from `sent` on were just pointed at live memory of the lengths they state.
            let taken = unsafe {
                libc::sendmmsg(
                    fd,
                    self.sending.headers[sent..].as_mut_ptr(),
                    (messages - sent) as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if taken > 0 {
                sent += taken as usize;
                is_again = false;
                continue;
            }
            let reason = errno();
            if reason == libc::EINTR {
                continue;
            }
            // What a router said of an earlier datagram fails the next one, which may well arrive.
            if self.hand_on_errors(index) && !std::mem::replace(&mut is_again, true) {
                continue;
            }
            is_again = false;
            if reason == libc::EAGAIN {
                // No room in the socket: what follows would find none either.
                while sent < messages {
                    self.refuse(sent, first_rows[sent], block);
                    sent += 1;
                }
                break;
            }
            self.send_singly(fd, sent, first_rows[sent], block, arena, reason);
            sent += 1;
        }
    }

    fn refuse(&mut self, message: usize, first: u16, block: &mut Block) {
        let mut row = first;
        for _ in 0..self.sending.headers[message].msg_hdr.msg_iovlen {
            block.next[usize::from(row)] = self.outcomes.failed;
            row = self.following[usize::from(row)];
        }
    }

    /// The rows of a message that the kernel would not have as a whole, for `reason`.
    fn send_singly(
        &mut self,
        fd: i32,
        message: usize,
        first: u16,
        block: &mut Block,
        arena: &Arena,
        reason: i32,
    ) {
        let mut header = self.sending.headers[message].msg_hdr;
        let (vectors, run) = (header.msg_iov, header.msg_iovlen);
        let mut row = usize::from(first);
        if run == 1 {
            self.fail(row, block, arena, reason);
            return;
        }
        // Their hops come first; the size of segments behind them goes.
        // SAFETY: CMSG_SPACE only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(CONTROL_OF_HOPS) } as usize;
        header.msg_iovlen = 1;
        for i in 0..run {
            // SAFETY: the run has `run` vectors in a row.
            header.msg_iov = unsafe { vectors.add(i) };
            // SAFETY: as in `flush`.
            if unsafe { libc::sendmsg(fd, &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) } < 0 {
                self.fail(row, block, arena, errno());
            }
            row = usize::from(self.following[row]);
        }
    }

    /// The system would not send a row's datagram: its sender hears why.
    fn fail(&mut self, row: usize, block: &mut Block, arena: &Arena, reason: i32) {
        block.next[row] = self.outcomes.failed;
        let Arrived { offset, length, .. } = self.arrived[row];
        let Some(start) = arena.pointer(offset, length as usize) else { return };
        // SAFETY: `pointer` checked the range, and nothing writes there meanwhile.
        let packet = unsafe { std::slice::from_raw_parts(start, length as usize) };
        self.report(reason, packet);
    }

    fn report(&mut self, reason: i32, packet: &[u8]) {
        let kind = icmp::kind_of(packet[0] >> 4 == 6, reason);
        if let Some(error) = kind.and_then(|kind| icmp::error(kind, None, packet)) {
            self.keep(error);
        }
    }

    /// Keeps a packet for its client until it is taken, where there is room.
    fn keep(&mut self, packet: Vec<u8>) {
        if self.large.len() >= LARGE_MAX {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.large.push_back(packet);
    }

    /// Hands on what the system was told about datagrams of a flow, as ICMP errors to their sender. False when it was told
    /// nothing.
    fn hand_on_errors(&mut self, index: u32) -> bool {
        let Some(&mut Flow { key, fd, .. }) = self.flow(index) else { return false };
        let is_ipv6 = key.source.is_ipv6;
        let header = UDP_BYTES + if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        let mut packet = [0; QUOTED_BYTES_MAX];
        let mut told = false;
        for _ in 0..REPORTS_MAX {
            let Some(report) = icmp::next_report(fd, is_ipv6, &mut packet[header..]) else { break };
            told = true;
            let about = &mut packet[..header + report.payload];
            write_headers_of(about, &key, &report.to, report.to_port);
            if let Some(error) = icmp::error(report.kind, report.from.as_ref(), about) {
                self.keep(error);
            }
        }
        told
    }

    /// Sends one whole packet that lies outside the arena, its UDP header at `segment`. Returns what became of it.
    fn send_one(&mut self, packet: &[u8], segment: usize, peer: u32, now_ms: u32) -> u8 {
        let Some(datagram) = parse(packet, segment) else { return self.outcomes.malformed };
        let Some(index) = self.admit(&datagram, peer, now_ms) else { return self.outcomes.full };
        let Some(fd) = self.flow(index).map(|flow| flow.fd) else { return self.outcomes.full };
        let payload = &packet[datagram.payload..datagram.payload + datagram.bytes];
        // SAFETY: all zero bytes are valid values of these C structures.
        let (mut name, mut header): (libc::sockaddr_in6, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        let mut control = Control([0; CONTROL_BYTES]);
        let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        let is_ipv6 = datagram.key.source.is_ipv6;
        header.msg_namelen = write_name(&mut name, is_ipv6, &datagram.to, datagram.to_port);
        header.msg_name = (&raw mut name).cast();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        write_control(&mut header, &mut control, is_ipv6, hops_of(packet), None);
        for _ in 0..2 {
            // SAFETY: the header points at live memory of the lengths that it states.
            if unsafe { libc::sendmsg(fd, &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) } >= 0 {
                return self.outcomes.done;
            }
            let reason = errno();
            if !self.hand_on_errors(index) {
                self.report(reason, packet);
                break;
            }
        }
        self.outcomes.failed
    }

    /// Asks what is ready; bits as READY_FLOWS and `ox_flows_watch` have them.
    fn poll(&mut self) -> u32 {
        if self.at < self.ready {
            return READY_FLOWS;
        }
        // SAFETY: `events` is valid and writable for EVENTS entries.
        let count = unsafe { libc::epoll_wait(self.epoll, self.events.as_mut_ptr(), EVENTS as i32, 0) };
        let mut bits = 0;
        (self.at, self.ready) = (0, 0);
        for i in 0..count.max(0) as usize {
            let event = self.events[i];
            if event.u64 >> 32 == 0 {
                bits |= 1 << event.u64;
            } else {
                self.events[self.ready] = event;
                self.ready += 1;
                bits |= READY_FLOWS;
            }
        }
        bits
    }

    /// Fills rows `from` to `to` - 1, which own slots, from the flows that `poll` found ready. Returns how many.
    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> i32 {
        let mut row = from;
        while row < to && self.at < self.ready {
            let (flags, data) = (self.events[self.at].events, self.events[self.at].u64);
            self.at += 1;
            let index = data as u32;
            if self.flow(index).is_some_and(|flow| u64::from(flow.generation) == data >> 32) {
                if flags & libc::EPOLLERR as u32 != 0 {
                    self.hand_on_errors(index);
                }
                row += self.read(index, block, arena, row, (to - row).min(MESSAGES));
            }
        }
        (row - from) as i32
    }

    /// Reads up to `room` datagrams of a flow into the rows from `row` on. Returns how many became rows.
    fn read(&mut self, index: u32, block: &mut Block, arena: &mut Arena, row: usize, room: usize) -> usize {
        let Some(&mut Flow { key, fd, used_loopback, .. }) = self.flow(index) else { return 0 };
        let is_ipv6 = key.source.is_ipv6;
        let header = UDP_BYTES + if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        const SPILL: usize = ANSWER_BYTES_MAX + 1;
        let Messages { names, controls, headers, vectors } = &mut self.receiving;
        for i in 0..room {
            let Some(packet) = arena.pointer(block.offset[row + i], self.mtu) else { return 0 };
            // SAFETY: a packet has more bytes than its headers, which the MTU's least value guarantees.
            let payload = unsafe { packet.add(header) };
            vectors[2 * i] = libc::iovec { iov_base: payload.cast(), iov_len: self.mtu - header };
            vectors[2 * i + 1] =
                libc::iovec { iov_base: self.spill[i * SPILL..].as_mut_ptr().cast(), iov_len: SPILL };
            let message = &mut headers[i].msg_hdr;
            message.msg_name = (&raw mut names[i]).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
            message.msg_iov = &raw mut vectors[2 * i];
            message.msg_iovlen = 2;
            message.msg_control = (&raw mut controls[i]).cast();
            message.msg_controllen = CONTROL_BYTES;
        }
        let (flags, forever) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
        // SAFETY: every header was just pointed at live memory of the lengths it states.
        let got = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), room as u32, flags, forever) };
        let mut filled = 0;
        for i in 0..got.max(0) as usize {
            let (bytes, message) =
                (self.receiving.headers[i].msg_len as usize, self.receiving.headers[i].msg_hdr);
            if let Some(count) = overflowed(&message) {
                self.count_overflow(index, count);
            }
            let (from, from_port) = read_name(&self.receiving.names[i], is_ipv6);
            // Everyone outside may answer (endpoint-independent filtering); programs of this host only when asked.
            if !used_loopback && is_loopback(is_ipv6, &from) {
                continue;
            }
            let total = header + bytes;
            if total > self.mtu {
                self.keep_large(
                    i,
                    &from,
                    from_port,
                    &key,
                    arena.slice(block.offset[row + i], self.mtu),
                    bytes,
                );
                continue;
            }
            // Rows that were passed over stay behind those that are filled, with their slots.
            block.slot.swap(row + filled, row + i);
            block.offset.swap(row + filled, row + i);
            let Some(packet) = arena.slice(block.offset[row + filled], total) else { continue };
            write_headers(packet, &from, from_port, &key);
            block.length[row + filled] = total as u32;
            block.next[row + filled] = TO_TUNNEL;
            filled += 1;
        }
        filled
    }

    fn count_overflow(&mut self, index: u32, count: u32) {
        let Some(flow) = self.flow(index) else { return };
        let more = count.wrapping_sub(std::mem::replace(&mut flow.overflowed, count));
        self.lost = self.lost.saturating_add(more);
    }

    /// Makes a whole packet of a datagram of which `start` has the first part, behind room for headers.
    fn keep_large(
        &mut self,
        message: usize,
        from: &[u8; 16],
        from_port: u16,
        to: &Key,
        start: Option<&mut [u8]>,
        bytes: usize,
    ) {
        let Some(start) = start else { return };
        if bytes > ANSWER_BYTES_MAX {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let header = UDP_BYTES + if to.source.is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        let spilled = message * (ANSWER_BYTES_MAX + 1);
        let mut packet = start.to_vec();
        packet.extend_from_slice(&self.spill[spilled..spilled + header + bytes - start.len()]);
        write_headers(&mut packet, from, from_port, to);
        self.keep(packet);
    }

    fn expire(&mut self, now_ms: u32) {
        for index in 0..self.flows.len() as u32 {
            let timeout_ms = self.timeout_ms;
            let idle = self.flow(index).map(|flow| now_ms.wrapping_sub(flow.last_sent_ms));
            if idle.is_some_and(|idle| idle >= timeout_ms) {
                self.end(index);
            }
        }
    }
}

/// Whether an address lies in the first `bits` of a prefix, IPv4 mapped in both.
pub fn lies_in(address: u128, prefix: u128, bits: u32) -> bool {
    bits == 0 || (address ^ prefix) >> (128 - bits.min(128)) == 0
}

/// The destination of a whole inner packet, IPv4 mapped.
pub fn destination(packet: &[u8]) -> u128 {
    match packet {
        [first, ..] if first >> 4 == 4 && packet.len() >= IPV4_BYTES => {
            u128::from(Ipv4Addr::from_octets(packet[16..20].try_into().unwrap_or_default()).to_ipv6_mapped())
        }
        _ => packet.get(24..40).and_then(|bytes| bytes.try_into().ok()).map_or(0, u128::from_be_bytes),
    }
}

/// Reads what `ox_flows_forget` and `ox_tcp_forget` are given; None for what is no prefix.
///
/// # Safety
/// `address` is null or valid for 16 bytes.
pub unsafe fn read_prefix(address: *const u8, bits: u32) -> Option<u128> {
    if address.is_null() || bits > 128 {
        return None;
    }
    // SAFETY: the caller gives 16 bytes.
    Some(u128::from_be_bytes(unsafe { address.cast::<[u8; 16]>().read_unaligned() }))
}

impl Source {
    fn mapped(&self) -> u128 {
        if self.is_ipv6 {
            return u128::from_be_bytes(self.address);
        }
        let [a, b, c, d, ..] = self.address;
        u128::from(Ipv4Addr::new(a, b, c, d).to_ipv6_mapped())
    }
}

impl Flows {
    /// Ends the flows of every source in the prefix, with all that waits for it.
    fn forget(&mut self, prefix: u128, bits: u32) {
        for index in 0..self.flows.len() as u32 {
            if self.flow(index).is_some_and(|flow| lies_in(flow.key.source.mapped(), prefix, bits)) {
                self.end(index);
            }
        }
        self.large.retain(|packet| !lies_in(destination(packet), prefix, bits));
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        for flow in self.flows.iter().flatten() {
            mark_port(flow.key.source.is_ipv6, flow.outer_port, false);
            close(flow.fd);
        }
        close(self.epoll);
    }
}

thread_local! {
    static FLOWS: RefCell<Table<Flows>> = const { RefCell::new(Table::new()) };
}

/// Runs `act` on a set of flows, or returns -EINVAL for a wrong handle. A panic costs the set and its flows, -EIO, and not
/// the relay.
fn with_flows(handle: u32, act: impl FnOnce(&mut Flows) -> i32) -> i32 {
    FLOWS.with_borrow_mut(|flows| flows.guarded(handle, act))
}

/// How many descriptors flows of one kind may take: of those that the process may have (RLIMIT_NOFILE) a quarter is
/// for the rest, and UDP and TCP share the others. 1 or more.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flow_limit() -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and writable.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (limit.rlim_cur.min(DESCRIPTORS_MAX) * 3 / 8).max(1) as i32
}

/// Makes a set of flows. `options` is the inner MTU in bytes (576 to 1936), the most flows (1 to 65536), the idle
/// milliseconds after which a flow ends, what rows become (sent, malformed, without a flow, refused by the system), and what
/// rows are that go to another client's port outside.
/// Returns its handle.
///
/// # Safety
/// `options` is valid for eight u32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_open(options: *const u32) -> i32 {
    if options.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives eight; an ArrayBuffer need not be aligned for us.
    let [mtu, max_flows, timeout_ms, done, malformed, full, failed, hairpin] =
        unsafe { options.cast::<[u32; 8]>().read_unaligned() };
    if !(576..=PACKET_BYTES_MAX as u32).contains(&mtu) || !(1..=65536).contains(&max_flows) {
        return -libc::EINVAL;
    }
    let outcomes = Outcomes {
        done: done as u8,
        malformed: malformed as u8,
        full: full as u8,
        failed: failed as u8,
        hairpin: hairpin as u8,
    };
    match Flows::new(mtu as usize, max_flows as usize, timeout_ms, outcomes) {
        Ok(set) => FLOWS.with_borrow_mut(|flows| flows.insert(set)),
        Err(reason) => -reason,
    }
}

/// Closes every flow and forgets the set.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_close(handle: u32) -> i32 {
    FLOWS.with_borrow_mut(|flows| flows.release(handle))
}

/// A descriptor that polls readable when a flow has something, or a descriptor that is watched.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_descriptor(handle: u32) -> i32 {
    with_flows(handle, |flows| flows.epoll)
}

/// Lets somebody else's descriptor wake the set's own. Returns the bit by which `ox_flows_poll` tells that it is
/// readable; 16 may be watched.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_watch(handle: u32, fd: i32) -> i32 {
    with_flows(handle, |flows| {
        if flows.watched == WATCHED_MAX {
            return -libc::ENOSPC;
        }
        let place = FIRST_WATCHED + flows.watched;
        let refused = flows.watch(fd, u64::from(place));
        if refused < 0 {
            return refused;
        }
        flows.watched += 1;
        1 << place
    })
}

/// Live flows.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_count(handle: u32) -> i32 {
    with_flows(handle, |flows| flows.by_key.len() as i32)
}

/// Ends the flows that have sent nothing for their time. `now_ms` wraps.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_expire(handle: u32, now_ms: u32) -> i32 {
    with_flows(handle, |flows| {
        flows.expire(now_ms);
        0
    })
}

/// Sends the burst's TO_EXIT rows that are UDP without fragments and extension headers; each gets the outcome that
/// `ox_flows_open` was told. Returns how often the system had no socket to give, and in bit 16 whether `ox_flows_large` has
/// something, an error about a row.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_send(handle: u32, burst: u32, count: u32, now_ms: u32) -> i32 {
    with_flows(handle, |flows| {
        with_burst(burst, |block, arena| {
            let starved = flows.send(block, arena, (count as usize).min(BURST_CAPACITY), now_ms);
            starved | i32::from(!flows.large.is_empty()) << 16
        })
    })
}

/// Sends one whole inner packet of `length` bytes that came from a peer's row, its UDP header at `segment`. Returns its
/// outcome.
///
/// # Safety
/// `packet` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_send_one(
    handle: u32,
    packet: *const u8,
    length: u32,
    segment: u32,
    peer: u32,
    now_ms: u32,
) -> i32 {
    if packet.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `length` bytes.
    let packet = unsafe { std::slice::from_raw_parts(packet, length as usize) };
    with_flows(handle, |flows| i32::from(flows.send_one(packet, segment as usize, peer, now_ms)))
}

/// What is ready: bit 0 when a flow is, and those that `ox_flows_watch` gave out.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_poll(handle: u32) -> i32 {
    with_flows(handle, |flows| flows.poll() as i32)
}

/// Fills rows `from` to `to` - 1, which own slots, as TO_TUNNEL rows from the flows that the last `ox_flows_poll` found
/// ready. Returns the rows filled; what is beyond stays for the next poll.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_flows(handle, |flows| {
        with_burst(burst, |block, arena| {
            let (from, to) = (from as usize, (to as usize).min(BURST_CAPACITY));
            if from > to { -libc::EINVAL } else { flows.receive(block, arena, from, to) }
        })
    })
}

/// Writes the next answer that exceeds the MTU, a whole packet, to `out`. Returns its bytes, or 0 when none waits.
///
/// # Safety
/// `out` is valid for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_large(handle: u32, out: *mut u8, room: u32) -> i32 {
    if out.is_null() || (room as usize) < ANSWER_BYTES_MAX + IPV6_BYTES + UDP_BYTES {
        return -libc::EINVAL;
    }
    with_flows(handle, |flows| {
        let Some(packet) = flows.large.pop_front() else { return 0 };
        // SAFETY: no packet is longer than what `room` was just compared with.
        unsafe { out.copy_from_nonoverlapping(packet.as_ptr(), packet.len()) };
        packet.len() as i32
    })
}

/// Datagrams from outside that were lost since the last call, too long or too many.
#[unsafe(no_mangle)]
pub extern "C" fn ox_flows_lost(handle: u32) -> i32 {
    with_flows(handle, |flows| std::mem::take(&mut flows.lost).min(i32::MAX as u32) as i32)
}

/// Ends the flows of every inner source in a prefix, 16 bytes with IPv4 mapped and 0 to 128 bits.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_forget(handle: u32, address: *const u8, bits: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(prefix) = (unsafe { read_prefix(address, bits) }) else { return -libc::EINVAL };
    with_flows(handle, |flows| {
        flows.forget(prefix, bits);
        0
    })
}
