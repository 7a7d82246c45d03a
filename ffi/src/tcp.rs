//! Inner TCP ended here and spliced to ordinary sockets, for the exit that has no privilege. Each flow has a smoltcp
//! interface of its own, so that a packet costs one look-up however many flows there are. Invariant: a client gets
//! its SYN-ACK only after the far end has accepted; each direction holds at most one buffer, and a full one closes
//! the sender's window; an end that one side sees (FIN or RST) reaches the other as the same.

use crate::flows::{destination, lies_in, read_prefix};
use crate::icmp;
use crate::layout::{Arena, Block, TO_EXIT, TO_TUNNEL, Table, with_burst};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};

const PROTOCOL_TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;
pub const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;
/// Packets for clients that wait to be taken. A full queue holds the flows back; it loses nothing.
pub const OUTBOX_MAX: usize = 2048;
/// Unacknowledged data that nobody answers ends the flow.
const PEER_SILENT: Duration = Duration::from_secs(120);
/// RFC 5382 REQ-5: an idle established connection is kept for at least 2 h 4 min.
const IDLE_US: i64 = 7_440_000_000;
/// One of both directions has ended.
const HALF_CLOSED_IDLE_US: i64 = 240_000_000;
const CONNECT_US: i64 = 30_000_000;
/// A SYN-ACK that the client never acknowledges (RFC 5382 REQ-5: transitory connections).
const SWEEP_US: i64 = 1_000_000;
/// One source address may hold a quarter of all flows, as it may with UDP.
const SOURCE_SHARE: usize = 4;
const SPLICE_ROUNDS: usize = 4;
/// What epoll tells of the timer by; no flow's place and generation.
const TIMER_EVENT: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub source: IpAddress,
    pub destination: IpAddress,
    pub source_port: u16,
    pub destination_port: u16,
}

/// What the demultiplexer needs of a TCP packet.
pub struct Segment {
    pub key: Key,
    pub flags: u8,
}

/// Reads an unfragmented TCP packet without options or extension headers in its way; None for anything else.
pub fn parse(packet: &[u8]) -> Option<Segment> {
    let (source, destination, at) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let address = |at: usize| -> Option<IpAddress> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddress::Ipv4(Ipv4Address::from(bytes)))
            };
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            if header < 20 || packet.get(9) != Some(&PROTOCOL_TCP) || fragment != 0 {
                return None;
            }
            (address(12)?, address(16)?, header)
        }
        6 => {
            let address = |at: usize| -> Option<IpAddress> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddress::Ipv6(Ipv6Address::from(bytes)))
            };
            if packet.get(6) != Some(&PROTOCOL_TCP) {
                return None;
            }
            (address(8)?, address(24)?, 40)
        }
        _ => return None,
    };
    let tcp = packet.get(at..at + 20)?;
    let key = Key {
        source,
        destination,
        source_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        destination_port: u16::from_be_bytes([tcp[2], tcp[3]]),
    };
    // smoltcp refuses to be anything but one host.
    let plausible = key.source.is_unicast() && key.destination.is_unicast();
    (plausible && key.source_port != 0 && key.destination_port != 0)
        .then_some(Segment { key, flags: tcp[13] })
}

/// Packets on their way to clients, and the buffers of those that have left.
#[derive(Default)]
pub struct Outbox {
    pub packets: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Fills rows `from` to `to` - 1, which own slots, with waiting packets as TO_TUNNEL rows. Returns the rows filled.
    pub fn fill(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> i32 {
        let mut filled = 0;
        for row in from..to.min(block.next.len()) {
            let Some(packet) = self.packets.pop_front() else { break };
            if let Some(target) = arena.slice(block.offset[row], packet.len()) {
                target.copy_from_slice(&packet);
            }
            block.length[row] = packet.len() as u32;
            block.next[row] = TO_TUNNEL;
            if self.spare.len() < OUTBOX_MAX {
                self.spare.push(packet);
            }
            filled += 1;
        }
        filled
    }
}

/// A flow's network for one call: the packet that arrived, if any, and the way out.
pub struct Wire<'a> {
    pub arrived: Option<&'a [u8]>,
    pub outbox: &'a mut Outbox,
    pub mtu: usize,
}

pub struct Arrived<'a>(&'a [u8]);
pub struct Leaving<'a>(&'a mut Outbox);

impl phy::RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, act: F) -> R {
        act(self.0)
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, act: F) -> R {
        let mut packet = self.0.spare.pop().unwrap_or_default();
        packet.clear();
        packet.resize(length, 0);
        let result = act(&mut packet);
        allow_fragments(&mut packet);
        self.0.packets.push_back(packet);
        result
    }
}

/// Takes back smoltcp's DF, for it heeds no news of a smaller path: a tunnel whose path shrinks may cut the packet.
fn allow_fragments(packet: &mut [u8]) {
    if packet.len() < 20 || packet[0] >> 4 != 4 || packet[6] & 0x40 == 0 {
        return;
    }
    packet[6] &= !0x40;
    // RFC 1624: the word falls by 0x4000, so the sum's complement rises.
    let sum = u32::from(u16::from_be_bytes([packet[10], packet[11]])) + 0x4000;
    packet[10..12].copy_from_slice(&((sum + (sum >> 16)) as u16).to_be_bytes());
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Arrived<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Leaving<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        // Not held back by a full outbox: the answer is one packet, and dropping here would cost a retransmission.
        Some((Arrived(self.arrived.take()?), Leaving(self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        (self.outbox.packets.len() < OUTBOX_MAX).then_some(Leaving(self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// The client's half of a flow.
pub struct Inner {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub handle: SocketHandle,
}

impl Inner {
    /// Sends everything that is due: a poll of smoltcp sends one packet.
    pub fn emit(&mut self, wire: &mut Wire, now: Instant) {
        while self.interface.poll_egress(now, wire, &mut self.sockets) != PollResult::None {}
    }
}

enum Stage {
    /// The far end has not accepted yet; the client's SYN waits for its answer.
    Connecting {
        syn: Vec<u8>,
    },
    Open(Box<Inner>),
}

struct Flow {
    key: Key,
    generation: u32,
    fd: i32,
    stage: Stage,
    /// Edge-triggered: true from the event until the call that would block.
    readable: bool,
    writable: bool,
    /// The far end has sent its FIN.
    far_ended: bool,
    /// The client has sent its FIN, and it was passed on.
    near_ended: bool,
    active_us: i64,
    due_us: Option<i64>,
}

/// All flows of one exit.
struct Splice {
    mtu: usize,
    max_flows: usize,
    /// Has every flow's socket, and the timer.
    epoll: i32,
    timer: i32,
    /// When the timer fires, no later than something is due; i64::MAX while it is not set.
    armed_us: i64,
    flows: Vec<Option<Flow>>,
    free: Vec<usize>,
    by_key: HashMap<Key, usize>,
    of_source: HashMap<IpAddress, usize>,
    due: BTreeSet<(i64, usize)>,
    outbox: Outbox,
    /// Flows that the full outbox held back.
    held: Vec<(usize, u32)>,
    generation: u32,
    swept_us: i64,
}

pub fn now_us() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is valid for its length. A failure leaves zeros, which is weaker and not unsound.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes)
}

/// Closes the descriptor; with `reset`, so that the far end sees an RST instead of a FIN.
fn close(fd: i32, reset: bool) {
    if reset {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: `linger` is valid for its size; the kernel copies it.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
    }
    // SAFETY: the flow owns `fd` and forgets it with this call.
    unsafe { libc::close(fd) };
}

fn is_ipv6(key: &Key) -> bool {
    matches!(key.destination, IpAddress::Ipv6(_))
}

/// What a packet's TTL or hop limit leaves it behind this exit, 1 or more.
fn hops_of(packet: &[u8]) -> i32 {
    let place = if packet[0] >> 4 == 6 { 7 } else { 8 };
    i32::from(packet[place].max(2) - 1)
}

/// Has a socket's packets begin with so many hops; -1 for as many as the system likes.
fn set_hops(fd: i32, is_ipv6: bool, hops: i32) {
    let (level, name) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL)
    };
    // SAFETY: `hops` is valid for its size; the kernel copies it.
    unsafe { libc::setsockopt(fd, level, name, (&raw const hops).cast(), size_of::<i32>() as u32) };
}

/// A nonblocking socket on its way to the key's destination by `hops` at most, or the errno that kept it from starting.
fn dial(key: &Key, hops: i32) -> Result<i32, i32> {
    let family = match key.destination {
        IpAddress::Ipv4(_) => libc::AF_INET,
        IpAddress::Ipv6(_) => libc::AF_INET6,
    };
    // SAFETY: no pointer crosses.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(errno());
    }
    let one: i32 = 1;
    // SAFETY: `one` is valid for its size; the kernel copies it. What is written at once leaves at once.
    unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const one).cast(),
            size_of::<i32>() as u32,
        )
    };
    // A router's word about the SYN is kept, so that it can be handed on as it was.
    icmp::keep_errors(fd, is_ipv6(key), true);
    set_hops(fd, is_ipv6(key), hops);
    let result = match key.destination {
        IpAddress::Ipv4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: key.destination_port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `name` is valid for its size; the kernel copies it.
            unsafe { libc::connect(fd, (&raw const name).cast(), size_of::<libc::sockaddr_in>() as u32) }
        }
        IpAddress::Ipv6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: key.destination_port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.octets() },
                sin6_scope_id: 0,
            };
            // SAFETY: as above.
            unsafe { libc::connect(fd, (&raw const name).cast(), size_of::<libc::sockaddr_in6>() as u32) }
        }
    };
    if result == 0 {
        return Ok(fd);
    }
    let reason = errno();
    if reason == libc::EINPROGRESS {
        return Ok(fd);
    }
    close(fd, false);
    Err(reason)
}

/// The error that a connecting socket has come to, 0 for none.
fn connect_error(fd: i32) -> i32 {
    let mut value: i32 = 0;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: both pointers are valid for what the option writes, one i32.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &mut length)
    };
    if result < 0 { errno() } else { value }
}

pub fn interface(key: &Key, wire: &mut Wire, now: Instant) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed();
    let mut interface = Interface::new(config, wire, now);
    // The flow's far end is the interface's own address, and everything else is behind it.
    let bits = match key.destination {
        IpAddress::Ipv4(_) => 32,
        IpAddress::Ipv6(_) => 128,
    };
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        let _ = addresses.push(IpCidr::new(key.destination, bits));
    });
    let _ = match key.destination {
        IpAddress::Ipv4(address) => interface.routes_mut().add_default_ipv4_route(address).map(|_| ()),
        IpAddress::Ipv6(address) => interface.routes_mut().add_default_ipv6_route(address).map(|_| ()),
    };
    interface
}

/// Answers a segment that belongs to nothing, as a closed port does: a SYN gets its RST.
pub fn refuse(key: &Key, packet: &[u8], outbox: &mut Outbox, mtu: usize, now: Instant) {
    let mut wire = Wire { arrived: Some(packet), outbox, mtu };
    let mut sockets = SocketSet::new(Vec::new());
    interface(key, &mut wire, now).poll_ingress_single(now, &mut wire, &mut sockets);
}

impl Flow {
    /// Whether anything is left that could still happen on the client's side.
    fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Connecting { .. } => false,
            Stage::Open(inner) => inner.sockets.get::<Socket>(inner.handle).state() == State::Closed,
        }
    }

    /// Moves what can be moved between both ends. Returns false when the far end broke the connection.
    fn splice(&mut self) -> bool {
        let Stage::Open(inner) = &mut self.stage else { return true };
        let socket = inner.sockets.get_mut::<Socket>(inner.handle);
        for _ in 0..SPLICE_ROUNDS {
            let mut moved = false;
            let mut failed = false;
            while self.writable && socket.can_recv() && !failed {
                let fd = self.fd;
                let (mut blocked, mut broken) = (false, false);
                let _ = socket.recv(|data| {
                    // SAFETY: `data` is valid for its length; the kernel only reads it.
                    let sent = unsafe {
                        libc::send(
                            fd,
                            data.as_ptr().cast(),
                            data.len(),
                            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                        )
                    };
                    if sent >= 0 {
                        return (sent as usize, ());
                    }
                    match errno() {
                        libc::EAGAIN => blocked = true,
                        libc::EINTR => {}
                        _ => broken = true,
                    }
                    (0, ())
                });
                self.writable = !blocked;
                failed = broken;
                moved |= !blocked && !broken;
            }
            while self.readable && !self.far_ended && socket.can_send() && !failed {
                let fd = self.fd;
                let (mut blocked, mut ended, mut broken) = (false, false, false);
                let _ = socket.send(|room| {
                    if room.is_empty() {
                        blocked = true;
                        return (0, ());
                    }
                    // SAFETY: `room` is valid and writable for its length.
                    let got =
                        unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
                    match got {
                        0 => ended = true,
                        1.. => return (got as usize, ()),
                        _ => match errno() {
                            libc::EAGAIN => {
                                self.readable = false;
                                blocked = true;
                            }
                            libc::EINTR => {}
                            _ => broken = true,
                        },
                    }
                    (0, ())
                });
                failed = broken;
                if ended {
                    self.far_ended = true;
                    socket.close(); // a FIN behind what is still to be sent
                }
                moved |= !blocked && !broken;
                if blocked {
                    break;
                }
            }
            if failed {
                return false;
            }
            if !moved {
                break;
            }
        }
        let client_ended =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if client_ended && !socket.can_recv() && !self.near_ended {
            self.near_ended = true;
            // SAFETY: no pointer crosses; the flow owns the descriptor.
            unsafe { libc::shutdown(self.fd, libc::SHUT_WR) };
        }
        true
    }
}

impl Splice {
    fn new(mtu: usize, max_flows: usize) -> Result<Self, i32> {
        // SAFETY: no pointer crosses.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(errno());
        }
        // SAFETY: as above.
        let timer =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        // Edge-triggered, so that nobody has to read it.
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: TIMER_EVENT };
        // SAFETY: `event` is valid; the kernel copies it. A timer that is -1 is refused.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, timer, &mut event) } < 0 {
            let reason = errno();
            close(timer, false);
            close(epoll, false);
            return Err(reason);
        }
        Ok(Self {
            mtu,
            max_flows,
            epoll,
            timer,
            armed_us: i64::MAX,
            flows: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            of_source: HashMap::new(),
            due: BTreeSet::new(),
            outbox: Outbox::default(),
            held: Vec::new(),
            generation: 0,
            swept_us: now_us(),
        })
    }

    /// Bytes for each direction of a new flow: less as flows grow in number, so that memory stays bounded.
    fn buffer_bytes(&self) -> usize {
        match self.by_key.len() {
            0..256 => 512 * 1024,
            256..1024 => 128 * 1024,
            _ => 32 * 1024,
        }
    }

    /// Takes a packet. True when it was dealt with; false when it is not TCP or belongs to nothing.
    fn ingest(&mut self, packet: &[u8], now_us: i64) -> Taken {
        let Some(Segment { key, flags }) = parse(packet) else { return Taken::No };
        if let Some(&index) = self.by_key.get(&key) {
            let flow = self.flows[index].as_mut().expect("by_key names live flows");
            flow.active_us = now_us;
            if let Stage::Open(inner) = &mut flow.stage {
                let mut wire = Wire { arrived: Some(packet), outbox: &mut self.outbox, mtu: self.mtu };
                inner.interface.poll_ingress_single(
                    Instant::from_micros(now_us),
                    &mut wire,
                    &mut inner.sockets,
                );
                self.attend(index, now_us);
            } else if flags & FLAG_RST != 0 {
                self.end(index, true);
            }
            return Taken::Yes;
        }
        if flags & (FLAG_SYN | FLAG_ACK | FLAG_RST) != FLAG_SYN {
            return Taken::No;
        }
        let held = self.of_source.get(&key.source).copied().unwrap_or(0);
        if self.by_key.len() >= self.max_flows || held >= self.max_flows.div_ceil(SOURCE_SHARE) {
            return Taken::Full;
        }
        match dial(&key, hops_of(packet)) {
            Ok(fd) => self.begin(key, fd, packet, now_us),
            Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Taken::Full,
            Err(reason) => {
                let report = icmp::kind_of(is_ipv6(&key), reason).map(|kind| (kind, None));
                self.answer(&key, packet, reason, report, now_us);
                Taken::Yes
            }
        }
    }

    fn begin(&mut self, key: Key, fd: i32, syn: &[u8], now_us: i64) -> Taken {
        self.generation = self.generation.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        let generation = self.generation;
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32,
            u64: u64::from(generation) << 32 | index as u64,
        };
        // SAFETY: `event` is valid; the kernel copies it.
        if unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } < 0 {
            close(fd, true);
            self.free.push(index);
            return Taken::Full;
        }
        self.flows[index] = Some(Flow {
            key,
            generation,
            fd,
            stage: Stage::Connecting { syn: syn.to_vec() },
            readable: false,
            writable: false,
            far_ended: false,
            near_ended: false,
            active_us: now_us,
            due_us: None,
        });
        self.by_key.insert(key, index);
        *self.of_source.entry(key.source).or_insert(0) += 1;
        self.schedule(index, Some(now_us + CONNECT_US));
        Taken::Yes
    }

    /// The far end has accepted or refused: the client's SYN gets its answer.
    fn connected(&mut self, index: usize, now_us: i64) {
        let bytes = self.buffer_bytes();
        let flow = self.flows[index].as_mut().expect("a live flow");
        let Stage::Connecting { syn } = &mut flow.stage else { return };
        let syn = std::mem::take(syn);
        let now = Instant::from_micros(now_us);
        let (key, fd) = (flow.key, flow.fd);
        let reason = connect_error(fd);
        if reason != 0 {
            let told = icmp::next_report(fd, is_ipv6(&key), &mut []).map(|told| (told.kind, told.from));
            let own = icmp::kind_of(is_ipv6(&key), reason).map(|kind| (kind, None));
            self.answer(&key, &syn, reason, told.or(own), now_us);
            self.end(index, false);
            return;
        }
        // From here on ICMP breaks no connection (RFC 5461 section 4), and its hops are the system's.
        icmp::keep_errors(fd, is_ipv6(&key), false);
        set_hops(fd, is_ipv6(&key), -1);
        let mut socket = Socket::new(SocketBuffer::new(vec![0; bytes]), SocketBuffer::new(vec![0; bytes]));
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(PEER_SILENT));
        let (address, port) = (flow.key.destination, flow.key.destination_port);
        if socket.listen((address, port)).is_err() {
            self.end(index, true);
            return;
        }
        let mut wire = Wire { arrived: Some(&syn), outbox: &mut self.outbox, mtu: self.mtu };
        let mut interface = interface(&flow.key, &mut wire, now);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        interface.poll_ingress_single(now, &mut wire, &mut sockets);
        flow.stage = Stage::Open(Box::new(Inner { interface, sockets, handle }));
        flow.writable = true;
        self.attend(index, now_us);
    }

    /// Answers a SYN whose connection was not made: by a reset when the far end refused it, else by ICMP where that has a word
    /// for the reason, as the far end's network would have done.
    fn answer(
        &mut self,
        key: &Key,
        syn: &[u8],
        reason: i32,
        told: Option<(icmp::Kind, Option<[u8; 16]>)>,
        now_us: i64,
    ) {
        let told = told.filter(|_| reason != libc::ECONNREFUSED && self.outbox.packets.len() < OUTBOX_MAX);
        match told.and_then(|(kind, from)| icmp::error(kind, from.as_ref(), syn)) {
            Some(packet) => self.outbox.packets.push_back(packet),
            None => refuse(key, syn, &mut self.outbox, self.mtu, Instant::from_micros(now_us)),
        }
    }

    /// Splices, sends what is due, and notes when the flow wants attention again.
    fn attend(&mut self, index: usize, now_us: i64) {
        let Some(flow) = self.flows[index].as_mut() else { return };
        let intact = flow.splice();
        let Stage::Open(inner) = &mut flow.stage else { return };
        if !intact {
            inner.sockets.get_mut::<Socket>(inner.handle).abort();
        }
        let now = Instant::from_micros(now_us);
        let mut wire = Wire { arrived: None, outbox: &mut self.outbox, mtu: self.mtu };
        // One packet an occasion: more at once overflows receivers, and smoltcp recovers from loss slowly.
        inner.interface.poll_egress(now, &mut wire, &mut inner.sockets);
        if wire.outbox.packets.len() >= OUTBOX_MAX {
            self.held.push((index, flow.generation));
        }
        if flow.is_over() {
            let clean = flow.far_ended && flow.near_ended;
            self.end(index, !clean);
            return;
        }
        let Stage::Open(inner) = &mut flow.stage else { return };
        let due = inner.interface.poll_at(now, &inner.sockets).map(|at| at.total_micros().max(now_us));
        self.schedule(index, due);
    }

    fn schedule(&mut self, index: usize, due_us: Option<i64>) {
        let flow = self.flows[index].as_mut().expect("a live flow");
        if flow.due_us == due_us {
            return;
        }
        if let Some(before) = flow.due_us {
            self.due.remove(&(before, index));
        }
        flow.due_us = due_us;
        if let Some(at) = due_us {
            self.due.insert((at, index));
        }
    }

    fn end(&mut self, index: usize, reset: bool) {
        self.schedule(index, None);
        let Some(flow) = self.flows[index].take() else { return };
        close(flow.fd, reset);
        self.by_key.remove(&flow.key);
        if let Some(count) = self.of_source.get_mut(&flow.key.source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&flow.key.source);
            }
        }
        self.free.push(index);
    }

    /// Takes events of the far ends and what time brings.
    fn turn(&mut self, now_us: i64) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: `events` is valid and writable for 256 entries.
        let count = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), events.len() as i32, 0) };
        for event in events.iter().take(count.max(0) as usize) {
            let (flags, data) = (event.events as i32, event.u64);
            if data == TIMER_EVENT {
                self.armed_us = i64::MAX;
                continue;
            }
            let (index, generation) = (data as u32 as usize, (data >> 32) as u32);
            let Some(flow) = self.flows.get_mut(index).and_then(Option::as_mut) else { continue };
            if flow.generation != generation {
                continue;
            }
            flow.active_us = now_us;
            flow.readable |=
                flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
            flow.writable |= flags & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) != 0;
            if matches!(flow.stage, Stage::Connecting { .. }) {
                self.connected(index, now_us);
            } else {
                self.attend(index, now_us);
            }
        }
        if self.outbox.packets.len() < OUTBOX_MAX / 2 {
            for (index, generation) in std::mem::take(&mut self.held) {
                let alive = self.flows[index].as_ref().is_some_and(|flow| flow.generation == generation);
                if alive {
                    self.attend(index, now_us);
                }
            }
        }
        while let Some(&(at, index)) = self.due.first() {
            if at > now_us || self.outbox.packets.len() >= OUTBOX_MAX {
                break;
            }
            let flow = self.flows[index].as_ref().expect("due names live flows");
            if let Stage::Connecting { syn } = &flow.stage {
                let (key, syn) = (flow.key, syn.clone());
                let told = icmp::kind_of(is_ipv6(&key), libc::ETIMEDOUT).map(|kind| (kind, None));
                self.answer(&key, &syn, libc::ETIMEDOUT, told, now_us);
                self.end(index, true);
            } else {
                self.schedule(index, None);
                self.attend(index, now_us);
                // Whatever asks for the same moment again gets it at the next turn.
                if self.flows[index]
                    .as_ref()
                    .and_then(|flow| flow.due_us)
                    .is_some_and(|again| again <= now_us)
                {
                    self.schedule(index, Some(now_us + 1000));
                }
            }
        }
        if now_us - self.swept_us >= SWEEP_US {
            self.swept_us = now_us;
            self.sweep(now_us);
        }
    }

    /// Ends what nobody has used for long.
    fn sweep(&mut self, now_us: i64) {
        for index in 0..self.flows.len() {
            let Some(flow) = self.flows[index].as_mut() else { continue };
            let half = flow.far_ended || flow.near_ended;
            let limit = if half { HALF_CLOSED_IDLE_US } else { IDLE_US };
            if now_us - flow.active_us < limit {
                continue;
            }
            if let Stage::Open(inner) = &mut flow.stage {
                inner.sockets.get_mut::<Socket>(inner.handle).abort();
                self.attend(index, now_us);
            }
        }
    }

    /// Sets the timer where something is due before it fires.
    fn arm(&mut self) {
        let Some(&(due_us, _)) = self.due.first() else { return };
        if due_us >= self.armed_us {
            return;
        }
        let time = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: due_us / 1_000_000, tv_nsec: due_us % 1_000_000 * 1000 },
        };
        // SAFETY: `time` is valid; the kernel copies it.
        unsafe { libc::timerfd_settime(self.timer, libc::TFD_TIMER_ABSTIME, &time, std::ptr::null_mut()) };
        self.armed_us = due_us;
    }
}

enum Taken {
    Yes,
    No,
    Full,
}

impl Drop for Splice {
    fn drop(&mut self) {
        for flow in self.flows.iter().flatten() {
            close(flow.fd, true);
        }
        close(self.timer, false);
        close(self.epoll, false);
    }
}

thread_local! {
    static SPLICES: RefCell<Table<Splice>> = const { RefCell::new(Table::new()) };
}

/// Runs `act` on a splice, or returns -EINVAL for a wrong handle. A panic in the TCP stack costs the splice and its
/// flows, -EIO, and not the relay.
fn with_splice(handle: u32, act: impl FnOnce(&mut Splice) -> i32) -> i32 {
    SPLICES.with_borrow_mut(|splices| {
        let Some(splice) = splices.get(handle) else { return -libc::EINVAL };
        // The splice is dropped after a panic, so nobody sees it half changed.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(splice)));
        result.unwrap_or_else(|_| {
            splices.release(handle);
            -libc::EIO
        })
    })
}

/// Makes a splice for inner packets of up to `mtu` bytes (576 to 1952) and 1 to 65536 flows. Returns its handle.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_open(mtu: u32, max_flows: u32) -> i32 {
    if !(576..=1952).contains(&mtu) || !(1..=65536).contains(&max_flows) {
        return -libc::EINVAL;
    }
    match Splice::new(mtu as usize, max_flows as usize) {
        Ok(splice) => SPLICES.with_borrow_mut(|splices| splices.insert(splice)),
        Err(reason) => -reason,
    }
}

/// Resets every flow and forgets the splice.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_close(handle: u32) -> i32 {
    SPLICES.with_borrow_mut(|splices| splices.release(handle))
}

/// A descriptor that polls readable when the far end of some flow has something, or time has come for something.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_descriptor(handle: u32) -> i32 {
    with_splice(handle, |splice| splice.epoll)
}

/// Live flows.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_flows(handle: u32) -> i32 {
    with_splice(handle, |splice| splice.by_key.len() as i32)
}

/// Takes the TCP packets among the burst's TO_EXIT rows: such a row's `next` becomes `done`, or `full` when a flow
/// more cannot be had. Rows that are no TCP, or belong to no flow and begin none, stay. Returns the rows taken.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_send(handle: u32, burst: u32, count: u32, done: u32, full: u32) -> i32 {
    with_splice(handle, |splice| {
        with_burst(burst, |block, arena| {
            let now = now_us();
            let mut taken = 0;
            for row in 0..(count as usize).min(block.next.len()) {
                if block.next[row] != TO_EXIT {
                    continue;
                }
                let Some(packet) = arena.slice(block.offset[row], block.length[row] as usize) else {
                    continue;
                };
                match splice.ingest(packet, now) {
                    Taken::No => continue,
                    Taken::Yes => block.next[row] = done as u8,
                    Taken::Full => block.next[row] = full as u8,
                }
                taken += 1;
            }
            splice.arm();
            taken
        })
    })
}

/// Takes what happened outside and what is due. Returns the packets that wait for clients.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_turn(handle: u32) -> i32 {
    with_splice(handle, |splice| {
        splice.turn(now_us());
        splice.arm();
        splice.outbox.packets.len() as i32
    })
}

/// Fills rows `from` to `to` - 1, which own slots, with waiting packets as TO_TUNNEL rows. Returns the rows filled.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_splice(handle, |splice| {
        with_burst(burst, |block, arena| splice.outbox.fill(block, arena, from as usize, to as usize))
    })
}

/// Resets, outside, the flows of every inner source in a prefix, 16 bytes with IPv4 mapped and 0 to 128 bits; nothing more of
/// them goes inside.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_tcp_forget(handle: u32, address: *const u8, bits: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(prefix) = (unsafe { read_prefix(address, bits) }) else { return -libc::EINVAL };
    with_splice(handle, |splice| {
        for index in 0..splice.flows.len() {
            if splice.flows[index]
                .as_ref()
                .is_some_and(|flow| lies_in(flow.key.mapped_source(), prefix, bits))
            {
                splice.end(index, true);
            }
        }
        splice.outbox.packets.retain(|packet| !lies_in(destination(packet), prefix, bits));
        splice.arm();
        0
    })
}

impl Key {
    fn mapped_source(&self) -> u128 {
        match self.source {
            IpAddress::Ipv4(address) => u128::from(address.to_ipv6_mapped()),
            IpAddress::Ipv6(address) => u128::from(address),
        }
    }
}
