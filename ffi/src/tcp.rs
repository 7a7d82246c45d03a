//! Inner TCP ended here and spliced to ordinary sockets, for the exit that has no privilege: flows, who may have how many,
//! and what time does to them. Invariant: a client gets its SYN-ACK only after the far end has accepted; each direction
//! holds at most one buffer, and a full one closes the sender's window; an end that one side sees (FIN or RST) reaches the
//! other as the same; no source has more than a quarter of flows and memory. A peer's addresses are one source.

use crate::connection::{Connection, LEAST_BYTES, Phase};
use crate::far_socket::{
    Moved, close_with_reset, connect_error, dial, kernel_bytes, receive, send, set_hops,
};
use crate::icmp;
use crate::layout::{Owner, TO_EXIT, Table, with_burst};
use crate::packet::{destination, hops_of, lies_in, read_prefix};
use crate::segment::{ACK, Key, Parsed, RST, SYN, Segment, parse};
use crate::stack::{Account, OUTBOX_MAX, Outbox, Purse, ahead_us, now_us};
use crate::sys::{close, errno};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

mod doors;
mod flow;
mod forwards;
mod room;

use flow::{Flow, Stage};
use forwards::{DOOR_GENERATION, Door};

/// One of both directions has ended (RFC 5382 REQ-5: transitory connections, 4 min).
const HALF_CLOSED_IDLE_US: i64 = 240_000_000;
const CONNECT_US: i64 = 30_000_000;
/// A source may hold a quarter of all flows, as it may with UDP, and of all memory.
const SOURCE_SHARE: usize = 4;
/// Buffers of all flows, and what the system keeps for their sockets, bytes.
const BUFFER_BYTES: usize = 96 << 20;
const KERNEL_BYTES: usize = 192 << 20;
/// Read from a far end before others have their turn.
const READ_BYTES: usize = 64 * 1024;
/// A sweep looks after this number of flows, at this interval; an idle flow gives memory back after SHRINK_US.
const SWEEP_FLOWS: usize = 64;
const SWEEP_US: i64 = 10_000;
const SHRINK_US: i64 = 2_000_000;
/// What epoll tells of the timer by; no flow's place and generation.
const TIMER_EVENT: u64 = u64::MAX;

/// What a source has.
struct Source {
    flows: usize,
    buffers: Account,
    kernel: Account,
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
    /// Ports outside that are some peer's (forwards.rs).
    doors: Vec<Option<Door>>,
    free: Vec<usize>,
    by_key: HashMap<Key, usize>,
    sources: HashMap<Owner, Source>,
    buffers: Account,
    kernel: Account,
    due: BTreeSet<(i64, usize)>,
    outbox: Outbox,
    /// Flows that have more to send at once, or that the full outbox held back.
    held: Vec<(usize, u32)>,
    /// Flows whose segments came in this call.
    touched: Vec<usize>,
    scratch: Box<[u8]>,
    generation: u32,
    swept_us: i64,
    sweep_at: usize,
    searched_us: i64,
    /// Flows that may give way, the best last.
    found: Vec<(usize, u32)>,
    /// Flows that were ended or refused since there was no room.
    crowded: u32,
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
            close(timer);
            close(epoll);
            return Err(reason);
        }
        Ok(Self {
            mtu,
            max_flows,
            epoll,
            timer,
            armed_us: i64::MAX,
            flows: Vec::new(),
            doors: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            sources: HashMap::new(),
            buffers: Account::new(BUFFER_BYTES),
            kernel: Account::new(KERNEL_BYTES),
            due: BTreeSet::new(),
            outbox: Outbox::default(),
            held: Vec::new(),
            touched: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            generation: 0,
            swept_us: now_us(),
            sweep_at: 0,
            searched_us: 0,
            found: Vec::new(),
            crowded: 0,
        })
    }

    /// Takes a packet of a peer's row.
    fn ingest(&mut self, packet: &[u8], peer: u32, now_us: i64) -> Taken {
        let segment = match parse(packet) {
            Parsed::Segment(segment) => segment,
            Parsed::Damaged => return Taken::Yes,
            Parsed::Other => return Taken::No,
        };
        let Some(&index) = self.by_key.get(&segment.key) else {
            return self.ingest_new(&segment, packet, peer, now_us);
        };
        let flow = self.flows[index].as_mut().expect("by_key names live flows");
        match &mut flow.stage {
            Stage::Connecting { .. } if segment.has(RST) => self.end(index, true),
            // The same again, or its client has begun anew.
            Stage::Connecting { syn } if segment.has(SYN) => *syn = packet.to_vec(),
            Stage::Connecting { .. } => {}
            Stage::Open(connection) if connection.gives_way_to(&segment) => {
                let is_clean = connection.phase() == Phase::TimeWait;
                self.end(index, !is_clean);
                return self.ingest_new(&segment, packet, peer, now_us);
            }
            Stage::Open(connection) => {
                flow.active_us = now_us;
                connection.ingest(&segment, now_us, &mut self.outbox);
                if !flow.is_touched {
                    flow.is_touched = true;
                    self.touched.push(index);
                }
            }
        }
        Taken::Yes
    }

    /// Sends and passes on what the segments of this call brought about.
    fn attend_touched(&mut self, now_us: i64) {
        let touched = std::mem::take(&mut self.touched);
        for &index in &touched {
            if let Some(flow) = self.flows[index].as_mut() {
                flow.is_touched = false;
                self.attend(index, now_us);
            }
        }
        self.touched = touched;
        self.touched.clear();
    }

    fn ingest_new(&mut self, segment: &Segment, packet: &[u8], peer: u32, now_us: i64) -> Taken {
        if segment.header.flags & (SYN | ACK | RST) != SYN {
            return Taken::No;
        }
        let owner = Owner::of(peer, mapped(segment.key.source));
        if !self.has_memory(owner) || !self.has_room(owner) && !self.make_room(owner, now_us) {
            return self.turn_away(segment);
        }
        let flows = self.sources.get(&owner).map_or(0, |source| source.flows);
        // Many small sources together may not have more than one great one.
        let crowd = flows.max(self.by_key.len() / SOURCE_SHARE);
        match dial(&segment.key, i32::from(hops_of(packet)), crowd) {
            Ok(fd) => self.begin(segment, owner, fd, packet, now_us),
            Err(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => self.turn_away(segment),
            Err(reason) => {
                let told = icmp::kind_of(segment.key.destination.is_ipv6(), reason).map(|kind| (kind, None));
                self.answer(segment, packet, reason, told);
                Taken::Yes
            }
        }
    }

    fn begin(&mut self, syn: &Segment, owner: Owner, fd: i32, packet: &[u8], now_us: i64) -> Taken {
        let Some(index) = self.place(syn.key, owner, fd, Stage::Connecting { syn: packet.to_vec() }, now_us)
        else {
            close_with_reset(fd);
            return self.turn_away(syn);
        };
        let source = self.sources.get_mut(&owner).expect("a flow has a source");
        Purse { total: &mut self.buffers, source: &mut source.buffers }.change(0, LEAST_BYTES);
        self.schedule(index, Some(now_us + CONNECT_US));
        Taken::Yes
    }

    /// The far end has accepted or refused: the client's SYN gets its answer.
    fn connected(&mut self, index: usize, now_us: i64) {
        let flow = self.flows[index].as_mut().expect("a live flow");
        let Stage::Connecting { syn } = &mut flow.stage else { return };
        let packet = std::mem::take(syn);
        let Parsed::Segment(syn) = parse(&packet) else { return };
        let (fd, is_ipv6) = (flow.fd, syn.key.destination.is_ipv6());
        let reason = connect_error(fd);
        if reason != 0 {
            let told = icmp::next_report(fd, is_ipv6, &mut []).map(|told| (told.kind, told.from));
            let own = icmp::kind_of(is_ipv6, reason).map(|kind| (kind, None));
            self.answer(&syn, &packet, reason, told.or(own));
            self.end(index, false);
            return;
        }
        // From here on ICMP breaks no connection (RFC 5461 section 4), and its hops are the system's.
        icmp::keep_errors(fd, is_ipv6, false);
        set_hops(fd, is_ipv6, -1);
        let source = self.sources.get_mut(&flow.owner).expect("a flow has a source");
        let mut purse = Purse { total: &mut self.buffers, source: &mut source.buffers };
        purse.change(LEAST_BYTES, 0);
        flow.stage = Stage::Open(Box::new(Connection::accept(&syn, self.mtu, &mut purse, now_us)));
        flow.writable = true;
        self.attend(index, now_us);
    }

    /// Answers a SYN whose connection was not made: by a reset when the far end refused it, else by ICMP where that has a word
    /// for the reason, as the far end's network would have done.
    fn answer(
        &mut self,
        syn: &Segment,
        packet: &[u8],
        reason: i32,
        told: Option<(icmp::Kind, Option<[u8; 16]>)>,
    ) {
        let told = told.filter(|_| reason != libc::ECONNREFUSED && !self.outbox.is_full());
        match told.and_then(|(kind, from)| icmp::error(kind, from.as_ref(), packet)) {
            Some(error) => self.outbox.put_packet(error),
            None => self.outbox.refuse(syn),
        }
    }

    /// Splices, sends what is due, and notes when the flow wants attention again.
    fn attend(&mut self, index: usize, now_us: i64) {
        let Some(flow) = self.flows[index].as_mut() else { return };
        let source = self.sources.get_mut(&flow.owner).expect("a flow has a source");
        let mut purse = Purse { total: &mut self.buffers, source: &mut source.buffers };
        let is_intact = flow.splice(&mut purse, &mut self.scratch, now_us);
        let Stage::Open(connection) = &mut flow.stage else { return };
        if !is_intact {
            connection.abort(&mut self.outbox);
        }
        let has_more = connection.emit(now_us, &mut self.outbox);
        if has_more && self.outbox.is_full() {
            self.held.push((index, flow.generation));
        }
        match connection.phase() {
            Phase::Closed if connection.is_broken() => self.end(index, true),
            // What the client sent before it ended may still be on its way to the far end.
            Phase::Closed if connection.rx.held() == 0 => self.end(index, false),
            phase => {
                if phase == Phase::TimeWait && flow.near_ended && flow.fd >= 0 {
                    close(flow.fd);
                    flow.fd = -1;
                }
                let is_next = has_more && !self.outbox.is_full();
                let due_us = if is_next { Some(now_us) } else { connection.due_us() };
                let due_us = due_us.map(|at_us| at_us.max(now_us));
                self.schedule(index, due_us);
            }
        }
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
        let Some(mut flow) = self.flows[index].take() else { return };
        if flow.fd >= 0 {
            if reset {
                close_with_reset(flow.fd);
            } else {
                close(flow.fd);
            }
        }
        self.by_key.remove(&flow.key);
        let source = self.sources.get_mut(&flow.owner).expect("a flow has a source");
        let mut purse = Purse { total: &mut self.buffers, source: &mut source.buffers };
        match &mut flow.stage {
            Stage::Open(connection) => connection.release(&mut purse),
            Stage::Connecting { .. } => purse.change(LEAST_BYTES, 0),
        }
        self.kernel.change(flow.kernel_bytes, 0);
        source.kernel.change(flow.kernel_bytes, 0);
        source.flows -= 1;
        if source.flows == 0 {
            self.sources.remove(&flow.owner);
        }
        self.free.push(index);
    }

    /// Takes events of the far ends and what time brings.
    fn turn(&mut self, now_us: i64) {
        self.take_events(now_us);
        if self.outbox.waiting() < OUTBOX_MAX / 2 {
            for (index, generation) in std::mem::take(&mut self.held) {
                if self.flows[index].as_ref().is_some_and(|flow| flow.generation == generation) {
                    self.attend(index, now_us);
                }
            }
        }
        while let Some(&(at, index)) = self.due.first() {
            if at > now_us || self.outbox.is_full() {
                break;
            }
            self.take_due(index, now_us);
        }
        if now_us - self.swept_us >= SWEEP_US {
            self.swept_us = now_us;
            self.sweep(now_us);
        }
    }

    fn take_events(&mut self, now_us: i64) {
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
            if generation == DOOR_GENERATION {
                self.take_strangers(index, now_us);
                continue;
            }
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
    }

    fn take_due(&mut self, index: usize, now_us: i64) {
        let flow = self.flows[index].as_ref().expect("due names live flows");
        if let Stage::Connecting { syn } = &flow.stage {
            let packet = syn.clone();
            if let Parsed::Segment(syn) = parse(&packet) {
                let is_ipv6 = syn.key.destination.is_ipv6();
                let told = icmp::kind_of(is_ipv6, libc::ETIMEDOUT).map(|kind| (kind, None));
                self.answer(&syn, &packet, libc::ETIMEDOUT, told);
            }
            self.end(index, true);
            return;
        }
        self.schedule(index, None);
        self.attend(index, now_us);
        // Whatever asks for the same moment again gets it at the next turn.
        let again_us = self.flows[index].as_ref().and_then(|flow| flow.due_us);
        if again_us.is_some_and(|again_us| again_us <= now_us) {
            self.schedule(index, Some(now_us + 1000));
        }
    }

    /// Looks after the next few flows: ends what is half closed and unused for long, takes memory back, and counts what the
    /// system keeps for those whose one end does not read.
    fn sweep(&mut self, now_us: i64) {
        for _ in 0..SWEEP_FLOWS.min(self.flows.len()) {
            self.sweep_at = (self.sweep_at + 1) % self.flows.len();
            let index = self.sweep_at;
            let Some(flow) = self.flows[index].as_mut() else { continue };
            let idle_us = now_us - flow.active_us;
            let stalled = flow.is_stalled();
            let kernel_bytes = if stalled { kernel_bytes(flow.fd) } else { 0 };
            let source = self.sources.get_mut(&flow.owner).expect("a flow has a source");
            self.kernel.change(flow.kernel_bytes, kernel_bytes);
            source.kernel.change(flow.kernel_bytes, kernel_bytes);
            flow.kernel_bytes = kernel_bytes;
            let is_short = self.kernel.left() == 0 || source.kernel.left() == 0;
            let is_greedy = kernel_bytes > source.kernel.used / source.flows;
            let Stage::Open(connection) = &mut flow.stage else { continue };
            if connection.is_ending() && idle_us >= HALF_CLOSED_IDLE_US || is_short && is_greedy {
                connection.abort(&mut self.outbox);
                self.end(index, true);
                continue;
            }
            if idle_us >= SHRINK_US {
                connection.shrink(&mut Purse { total: &mut self.buffers, source: &mut source.buffers });
            }
        }
    }

    /// Sets the timer where something is due before it fires.
    fn arm(&mut self) {
        let Some(&(due_us, _)) = self.due.first() else { return };
        if due_us >= self.armed_us {
            return;
        }
        let at_us = (due_us - ahead_us()).max(1);
        let time = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: at_us / 1_000_000, tv_nsec: at_us % 1_000_000 * 1000 },
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
        for flow in self.flows.iter().flatten().filter(|flow| flow.fd >= 0) {
            close_with_reset(flow.fd);
        }
        close(self.timer);
        close(self.epoll);
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}
