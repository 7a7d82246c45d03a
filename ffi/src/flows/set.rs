//! The flows of one exit: who has how many, in which order they were last used, and which gives way. Invariant: flows are
//! bounded in all and per peer, one socket belongs to one inner source (RFC 4787 REQ-1), and only outbound packets keep a
//! flow alive (REQ-6). Moves no datagram: send.rs and receive.rs do.

use crate::flows::datagram::{Datagram, Key, is_loopback};
use crate::flows::ports::mark_port;
use crate::icmp;
use crate::layout::{BURST_CAPACITY, Owner};
use crate::packet::{destination, lies_in};
use crate::sys::control::Control;
use crate::sys::name::Name;
use crate::sys::{bind, close, errno, local_port, set_option, socket};
use std::collections::{HashMap, VecDeque};
use std::mem::zeroed;
use std::os::fd::IntoRawFd;

/// Largest datagram that an answer may have: what IPv4 has room for.
pub const ANSWER_BYTES_MAX: usize = 65507;
/// Where the part of a datagram goes on that does not fit the MTU. One byte more tells a datagram that is too long from one
/// of the greatest size.
pub const SPILL_BYTES: usize = ANSWER_BYTES_MAX + 1;
/// Datagrams that one flow may bring before the next one's turn.
pub const MESSAGES: usize = 32;
pub const EVENTS: usize = 64;
/// One peer may hold a quarter of all flows, whatever its addresses; an address of no known peer as many.
const SOURCE_SHARE: usize = 4;
/// Ports from here on are kept the same outside where they are free (RFC 4787 section 4.2.1).
const PORT_KEPT_MIN: u16 = 1024;
/// What the system's limits allow of it. Twice this is what a flow that nobody reads may hold.
const SOCKET_BUFFER_BYTES: i32 = 512 << 10;
pub const CONTROL_BYTES: usize = 64;
/// No row of a burst.
pub const NOBODY: u16 = u16::MAX;
pub const NO_FLOW: u32 = u32::MAX;

/// One socket outside for one inner source.
pub struct Flow {
    pub key: Key,
    pub owner: Owner,
    /// Never 0, and another for each flow in the same place.
    pub generation: u32,
    pub fd: i32,
    /// Its port outside.
    pub outer_port: u16,
    pub last_sent_ms: u32,
    /// Whether the client has sent to this host's loopback, which the policy must have opened.
    pub used_loopback: bool,
    /// A forward's (pins.rs): no holder's, and neither idle time nor want of room ends it.
    pub is_pinned: bool,
    /// Neighbours in the order of last use among the flows of one owner.
    pub older: u32,
    pub newer: u32,
    /// Rows of the burst at hand that leave by this flow.
    pub head: u16,
    pub tail: u16,
    /// The kernel's count of datagrams for which its buffer had no room.
    pub overflowed: u32,
}

/// What one owner holds.
pub struct Holder {
    pub flows: usize,
    pub oldest: u32,
    pub newest: u32,
}

/// Memory for the messages of one system call.
pub struct Messages {
    pub names: Vec<Name>,
    pub controls: Vec<Control<CONTROL_BYTES>>,
    pub headers: Vec<libc::mmsghdr>,
    pub vectors: Vec<libc::iovec>,
}

impl Messages {
    fn new(count: usize, vectors: usize) -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (header, vector) = unsafe { (zeroed(), zeroed()) };
        Self {
            names: vec![Name::EMPTY; count],
            controls: vec![Control::EMPTY; count],
            headers: vec![header; count],
            vectors: vec![vector; vectors],
        }
    }
}

/// What rows become, as TypeScript numbers it.
#[derive(Clone, Copy)]
pub struct Outcomes {
    pub done: u8,
    pub malformed: u8,
    pub full: u8,
    pub failed: u8,
    /// Not what a row becomes but what it is: on its way to another client's port outside (RFC 4787 REQ-9).
    pub hairpin: u8,
}

/// A row of the burst at hand as it arrived: where its packet begins, its length, and the hops that it has left.
#[derive(Clone, Copy, Default)]
pub struct Arrived {
    pub offset: u32,
    pub length: u32,
    pub hops: u8,
}

/// All flows of one exit.
pub struct Flows {
    pub epoll: i32,
    pub mtu: usize,
    pub max_flows: usize,
    pub timeout_ms: u32,
    pub outcomes: Outcomes,
    pub flows: Vec<Option<Flow>>,
    pub free: Vec<u32>,
    pub by_key: HashMap<Key, u32>,
    pub holders: HashMap<Owner, Holder>,
    pub generation: u32,
    pub watched: u32,
    pub events: [libc::epoll_event; EVENTS],
    /// Events of flows, and which of them is next.
    pub ready: usize,
    pub at: usize,
    pub receiving: Messages,
    /// Where datagrams go on that do not fit a packet of `mtu` bytes.
    pub spill: Vec<u8>,
    pub large: VecDeque<Vec<u8>>,
    pub sending: Messages,
    pub following: [u16; BURST_CAPACITY],
    pub arrived: [Arrived; BURST_CAPACITY],
    pub segments: bool,
    /// Datagrams from outside that found no room, since the count was last taken.
    pub lost: u32,
    /// Flows that the system would not give a socket, since the last burst began.
    pub starved: i32,
}

// SAFETY: the raw pointers inside lead to the vectors beside them; they are set anew before every system call.
unsafe impl Send for Flows {}

/// A socket on the same port as inside where that is free, else on any, and which. Err is the errno.
fn bind_near(is_ipv6: bool, port: u16) -> Result<(i32, u16), i32> {
    bind_first(is_ipv6, &[if port >= PORT_KEPT_MIN { port } else { 0 }, 0])
}

/// A socket on the first of these ports that no other socket has, and which. Err is the errno.
pub fn bind_first(is_ipv6: bool, ports: &[u16]) -> Result<(i32, u16), i32> {
    let fd = socket(is_ipv6, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?.into_raw_fd();
    if is_ipv6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, SOCKET_BUFFER_BYTES);
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SOCKET_BUFFER_BYTES);
    set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    icmp::keep_errors(fd, is_ipv6, true);
    let mut reason = 0;
    for &port in ports {
        let mut name = Name::EMPTY;
        let length = name.set(is_ipv6, &[0; 16], port);
        match bind(fd, &name, length) {
            Ok(()) => return Ok((fd, local_port(fd))),
            Err(refused) => reason = refused,
        }
        if reason != libc::EADDRINUSE {
            break;
        }
    }
    close(fd);
    Err(reason)
}

impl Flows {
    /// `mtu` bytes is the longest inner packet. Err is the errno.
    pub fn new(mtu: usize, max_flows: usize, timeout_ms: u32, outcomes: Outcomes) -> Result<Self, i32> {
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
            spill: vec![0; MESSAGES * SPILL_BYTES],
            large: VecDeque::new(),
            sending: Messages::new(BURST_CAPACITY, BURST_CAPACITY),
            following: [NOBODY; BURST_CAPACITY],
            arrived: [Arrived::default(); BURST_CAPACITY],
            segments: true,
            lost: 0,
            starved: 0,
        })
    }

    pub fn flow(&mut self, index: u32) -> Option<&mut Flow> {
        self.flows.get_mut(index as usize)?.as_mut()
    }

    pub fn watch(&mut self, fd: i32, data: u64) -> i32 {
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

    pub fn end(&mut self, index: u32) {
        self.unlink(index);
        let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::take) else { return };
        mark_port(flow.key.source.is_ipv6, flow.outer_port, false);
        close(flow.fd);
        self.by_key.remove(&flow.key);
        self.free.push(index);
        if flow.is_pinned {
            return;
        }
        if let Some(holder) = self.holders.get_mut(&flow.owner) {
            holder.flows -= 1;
            if holder.flows == 0 {
                self.holders.remove(&flow.owner);
            }
        }
    }

    /// The owner of most flows loses its idlest, so that one client cannot push out another's few. False when there
    /// is none. What the burst at hand has for that flow is dropped with it.
    fn make_room(&mut self) -> bool {
        let Some(holder) = self.holders.values().max_by_key(|holder| holder.flows) else { return false };
        self.end(holder.oldest);
        true
    }

    /// The flow of an inner source, which is opened for its peer where there is none; None when one more cannot be had.
    pub fn admit(&mut self, datagram: &Datagram, peer: u32, now_ms: u32) -> Option<u32> {
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
        let mut opened = bind_near(key.source.is_ipv6, key.port);
        if matches!(opened, Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
            self.starved += 1;
            if self.make_room() {
                opened = bind_near(key.source.is_ipv6, key.port);
            }
        }
        let (fd, outer_port) = opened.ok()?;
        let index = self.insert(key, owner, (fd, outer_port), false)?;
        self.link(index);
        if let Some(holder) = self.holders.get_mut(&owner) {
            holder.flows += 1;
        }
        Some(index)
    }

    /// Makes a flow of a bound socket, which is closed where it cannot be watched. Returns its place.
    pub fn insert(
        &mut self,
        key: Key,
        owner: Owner,
        (fd, outer_port): (i32, u16),
        is_pinned: bool,
    ) -> Option<u32> {
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
            is_pinned,
            older: NO_FLOW,
            newer: NO_FLOW,
            head: NOBODY,
            tail: NOBODY,
            overflowed: 0,
        });
        mark_port(key.source.is_ipv6, outer_port, true);
        self.by_key.insert(key, index);
        Some(index)
    }

    pub fn expire(&mut self, now_ms: u32) {
        for index in 0..self.flows.len() as u32 {
            let timeout_ms = self.timeout_ms;
            let flow = self.flow(index).filter(|flow| !flow.is_pinned);
            let idle = flow.map(|flow| now_ms.wrapping_sub(flow.last_sent_ms));
            if idle.is_some_and(|idle| idle >= timeout_ms) {
                self.end(index);
            }
        }
    }

    /// Ends the flows of every source in the prefix, with all that waits for it.
    pub fn forget(&mut self, prefix: u128, bits: u32) {
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
