//! TCP dialled into the tunnel, for a client that has no privilege: connections of the host's programs that begin here,
//! in smoltcp, and leave as inner packets. A call is known by its local port, and each has an interface of its own, as in
//! tcp.rs. Invariant: buffers are bounded, a full one holds its writer back, and nothing arrives for a call but what its
//! peer sent. Accepts no connection.

use crate::layout::{TO_EXIT, Table, with_burst};
use crate::tcp::{FLAG_RST, Inner, Key, OUTBOX_MAX, Outbox, Wire, interface, now_us, parse, refuse, seed};
use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, Ipv4Address, Ipv6Address};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// RFC 6335 §6: the dynamic ports.
const PORT_FIRST: u16 = 49152;
const CALLS_MAX: usize = 2048;
const BUFFER_BYTES: usize = 512 * 1024;
const BUFFER_BYTES_OF_MANY: usize = 64 * 1024;
const MANY_CALLS: usize = 64;
/// Unacknowledged data, a SYN included, that nobody answers ends the call.
const PEER_SILENT: Duration = Duration::from_secs(60);
const WAIT_MAX_US: i64 = 1_000_000;

/// What has become of a call, bits.
const OPEN: u32 = 1;
const READABLE: u32 = 2;
const WRITABLE: u32 = 4;
const ENDED: u32 = 8;
const OVER: u32 = 16;

struct Call {
    key: Key,
    inner: Box<Inner>,
    /// What it was when last looked at; a change is news. Whoever waits has seen all that was there before.
    told: u32,
    /// The far end's FIN has come, whatever the state machine has come to since.
    has_ended: bool,
    is_news: bool,
    /// Nobody here wants it any more; it stays until the far end has all that was sent.
    is_released: bool,
    due_us: Option<i64>,
}

struct Dialler {
    mtu: usize,
    addresses: Vec<IpAddress>,
    calls: HashMap<u16, Call>,
    due: BTreeSet<(i64, u16)>,
    news: Vec<u16>,
    outbox: Outbox,
    held: Vec<u16>,
    port: u16,
}

fn address_of(words: &[u32]) -> IpAddress {
    if words[0] == 0 && words[1] == 0 && words[2] == 0xffff {
        return IpAddress::Ipv4(Ipv4Address::from(words[3]));
    }
    let mut bytes = [0u8; 16];
    for (i, word) in words.iter().enumerate().take(4) {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
    }
    IpAddress::Ipv6(Ipv6Address::from(bytes))
}

impl Call {
    fn socket(&mut self) -> &mut Socket<'static> {
        let handle = self.inner.handle;
        self.inner.sockets.get_mut::<Socket>(handle)
    }

    fn state(&mut self) -> u32 {
        let has_ended = self.has_ended;
        let socket = self.socket();
        let has_ended = has_ended
            || matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        let mut state = 0;
        if socket.may_send() || socket.may_recv() {
            state |= OPEN;
        }
        if socket.can_recv() {
            state |= READABLE;
        } else if has_ended {
            state |= ENDED;
        }
        // Room worth a call: a full buffer that frees a packet at a time would wake its writer for each.
        if socket.can_send() && socket.send_queue() <= socket.send_capacity() / 4 * 3 {
            state |= WRITABLE;
        }
        if socket.state() == State::Closed && state & READABLE == 0 {
            state |= OVER;
        }
        self.has_ended = has_ended;
        state
    }
}

impl Dialler {
    /// Starts a call to an address of four words. Returns its local port.
    fn dial(&mut self, remote: IpAddress, port: u16, now_us: i64) -> i32 {
        let local = self.addresses.iter().copied().find(|address| address.version() == remote.version());
        let Some(local) = local else { return -libc::ENETUNREACH };
        if !remote.is_unicast() || port == 0 {
            return -libc::EINVAL;
        }
        if self.calls.len() >= CALLS_MAX {
            return -libc::EMFILE;
        }
        loop {
            self.port = if self.port == u16::MAX { PORT_FIRST } else { self.port + 1 };
            if !self.calls.contains_key(&self.port) {
                break;
            }
        }
        // As the splice sees a flow: from the far end to us.
        let key = Key { source: remote, destination: local, source_port: port, destination_port: self.port };
        let bytes = if self.calls.len() < MANY_CALLS { BUFFER_BYTES } else { BUFFER_BYTES_OF_MANY };
        let mut socket = Socket::new(SocketBuffer::new(vec![0; bytes]), SocketBuffer::new(vec![0; bytes]));
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(PEER_SILENT));
        let now = Instant::from_micros(now_us);
        let mut wire = Wire { arrived: None, outbox: &mut self.outbox, mtu: self.mtu };
        let mut interface = interface(&key, &mut wire, now);
        if socket.connect(interface.context(), (remote, port), (local, self.port)).is_err() {
            return -libc::EINVAL;
        }
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        let inner = Box::new(Inner { interface, sockets, handle });
        let call =
            Call { key, inner, told: 0, has_ended: false, is_news: false, is_released: false, due_us: None };
        self.calls.insert(self.port, call);
        let port = self.port;
        self.attend(port, now_us);
        i32::from(port)
    }

    /// Takes a packet. False when it belongs to no call.
    fn ingest(&mut self, packet: &[u8], now_us: i64) -> bool {
        let Some(segment) = parse(packet) else { return false };
        let port = segment.key.destination_port;
        let now = Instant::from_micros(now_us);
        match self.calls.get_mut(&port) {
            Some(call) if call.key == segment.key => {
                let mut wire = Wire { arrived: Some(packet), outbox: &mut self.outbox, mtu: self.mtu };
                call.inner.interface.poll_ingress_single(now, &mut wire, &mut call.inner.sockets);
                self.attend(port, now_us);
            }
            // A late segment of a call that is over gets its reset, as a closed port's would.
            _ if self.addresses.contains(&segment.key.destination) && segment.flags & FLAG_RST == 0 => {
                refuse(&segment.key, packet, &mut self.outbox, self.mtu, now);
            }
            _ => {}
        }
        true
    }

    /// Sends what is due, notes news and when the call wants attention again.
    fn attend(&mut self, port: u16, now_us: i64) {
        let Some(call) = self.calls.get_mut(&port) else { return };
        let now = Instant::from_micros(now_us);
        let mut wire = Wire { arrived: None, outbox: &mut self.outbox, mtu: self.mtu };
        call.inner.emit(&mut wire, now);
        if wire.outbox.packets.len() >= OUTBOX_MAX {
            self.held.push(port);
        }
        if call.is_released && matches!(call.socket().state(), State::Closed | State::TimeWait) {
            self.forget(port);
            return;
        }
        let state = call.state();
        if state != call.told && !call.is_news {
            call.is_news = true;
            self.news.push(port);
        }
        call.told = state;
        let due =
            call.inner.interface.poll_at(now, &call.inner.sockets).map(|at| at.total_micros().max(now_us));
        self.schedule(port, due);
    }

    fn schedule(&mut self, port: u16, due_us: Option<i64>) {
        let Some(call) = self.calls.get_mut(&port) else { return };
        if let Some(before) = call.due_us {
            self.due.remove(&(before, port));
        }
        call.due_us = due_us;
        if let Some(at) = due_us {
            self.due.insert((at, port));
        }
    }

    fn turn(&mut self, now_us: i64) {
        if self.outbox.packets.len() < OUTBOX_MAX / 2 {
            for port in std::mem::take(&mut self.held) {
                self.attend(port, now_us);
            }
        }
        while let Some(&(at, port)) = self.due.first() {
            if at > now_us || self.outbox.packets.len() >= OUTBOX_MAX {
                break;
            }
            self.schedule(port, None);
            self.attend(port, now_us);
            // Whatever asks for the same moment again gets it at the next turn.
            if self.calls.get(&port).and_then(|call| call.due_us).is_some_and(|again| again <= now_us) {
                self.schedule(port, Some(now_us + 1000));
            }
        }
    }

    /// Sends a call's packets no larger than `mtu` bytes from now on; what was lost for its size is sent again in time.
    fn shrink(&mut self, port: u16, mtu: usize, now_us: i64) -> i32 {
        let Some(call) = self.calls.get_mut(&port) else { return -libc::EINVAL };
        let mut wire = Wire { arrived: None, outbox: &mut self.outbox, mtu: mtu.min(self.mtu) };
        call.inner.interface = interface(&call.key, &mut wire, Instant::from_micros(now_us));
        self.attend(port, now_us);
        0
    }

    fn release(&mut self, port: u16, now_us: i64) -> i32 {
        let Some(call) = self.calls.get_mut(&port) else { return -libc::EINVAL };
        call.is_released = true;
        // Both sides have ended: what is still on its way may arrive. Otherwise it is broken off.
        if !matches!(call.socket().state(), State::LastAck | State::Closing) {
            call.socket().abort();
        }
        self.attend(port, now_us);
        0
    }

    fn forget(&mut self, port: u16) {
        self.schedule(port, None);
        self.calls.remove(&port);
    }

    fn next_ms(&self, now_us: i64) -> i32 {
        if !self.held.is_empty() {
            return 0;
        }
        let wait_us = self.due.first().map_or(WAIT_MAX_US, |&(at, _)| (at - now_us).clamp(0, WAIT_MAX_US));
        (wait_us as i32 + 999) / 1000
    }
}

thread_local! {
    static DIALLERS: RefCell<Table<Dialler>> = const { RefCell::new(Table::new()) };
}

/// Runs `act` on a dialler, or returns -EINVAL for a wrong handle. A panic in the TCP stack costs the dialler, -EIO.
fn with_dialler(handle: u32, act: impl FnOnce(&mut Dialler) -> i32) -> i32 {
    DIALLERS.with_borrow_mut(|diallers| {
        let Some(dialler) = diallers.get(handle) else { return -libc::EINVAL };
        // The dialler is dropped after a panic, so nobody sees it half changed.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(dialler)));
        result.unwrap_or_else(|_| {
            diallers.release(handle);
            -libc::EIO
        })
    })
}

/// Makes a dialler for inner packets of up to `mtu` bytes (576 to 1952) that calls from `count` addresses (0 to 2) of four
/// host-order words each, IPv4 as ::ffff:a.b.c.d. Returns its handle.
///
/// # Safety
/// `addresses` is valid for 4 * `count` u32s, aligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_dial_open(mtu: u32, addresses: *const u32, count: u32) -> i32 {
    if addresses.is_null() || !addresses.is_aligned() || count > 2 || !(576..=1952).contains(&mtu) {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives that many words.
    let words = unsafe { std::slice::from_raw_parts(addresses, 4 * count as usize) };
    let dialler = Dialler {
        mtu: mtu as usize,
        addresses: words.chunks_exact(4).map(address_of).collect(),
        calls: HashMap::new(),
        due: BTreeSet::new(),
        news: Vec::new(),
        outbox: Outbox::default(),
        held: Vec::new(),
        port: PORT_FIRST + (seed() % u64::from(u16::MAX - PORT_FIRST)) as u16,
    };
    DIALLERS.with_borrow_mut(|diallers| diallers.insert(dialler))
}

/// Forgets the dialler and its calls.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_close(handle: u32) -> i32 {
    DIALLERS.with_borrow_mut(|diallers| diallers.release(handle))
}

/// Begins a call to an address of four words. Returns its local port, by which it is known until it is released; or
/// -ENETUNREACH without an address of that family, -EMFILE when too many are open.
///
/// # Safety
/// `address` is valid for four u32s, aligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_dial_call(handle: u32, address: *const u32, port: u32) -> i32 {
    if address.is_null() || !address.is_aligned() || port > 65535 {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives four words.
    let words = unsafe { std::slice::from_raw_parts(address, 4) };
    with_dialler(handle, |dialler| dialler.dial(address_of(words), port as u16, now_us()))
}

/// What has become of a call, bits: 1 open, 2 something to read, 4 room to write, 8 the far end has ended, 16 it is over.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_state(handle: u32, call: u32) -> i32 {
    with_dialler(handle, |dialler| match dialler.calls.get_mut(&(call as u16)) {
        Some(call) => call.state() as i32,
        None => -libc::EINVAL,
    })
}

/// Copies up to `length` bytes that arrived. Returns how many, 0 when there are none now.
///
/// # Safety
/// `to` is valid and writable for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_dial_read(handle: u32, call: u32, to: *mut u8, length: u32) -> i32 {
    if to.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `length` bytes.
    let room = unsafe { std::slice::from_raw_parts_mut(to, length as usize) };
    with_dialler(handle, |dialler| {
        let Some(found) = dialler.calls.get_mut(&(call as u16)) else { return -libc::EINVAL };
        let count = found.socket().recv_slice(room).unwrap_or(0);
        if count > 0 {
            dialler.attend(call as u16, now_us()); // the window has opened
        }
        count as i32
    })
}

/// Takes up to `length` bytes to send. Returns how many, 0 when there is no room now.
///
/// # Safety
/// `from` is valid for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_dial_write(handle: u32, call: u32, from: *const u8, length: u32) -> i32 {
    if from.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `length` bytes.
    let data = unsafe { std::slice::from_raw_parts(from, length as usize) };
    with_dialler(handle, |dialler| {
        let Some(found) = dialler.calls.get_mut(&(call as u16)) else { return -libc::EINVAL };
        let count = found.socket().send_slice(data).unwrap_or(0);
        dialler.attend(call as u16, now_us());
        count as i32
    })
}

/// Ends our direction: a FIN behind what is still to be sent.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_finish(handle: u32, call: u32) -> i32 {
    with_dialler(handle, |dialler| {
        let Some(found) = dialler.calls.get_mut(&(call as u16)) else { return -libc::EINVAL };
        found.socket().close();
        dialler.attend(call as u16, now_us());
        0
    })
}

/// Keeps the packets of a call to `mtu` bytes, 576 or more: a router on its way takes no larger ones.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_shrink(handle: u32, call: u32, mtu: u32) -> i32 {
    if mtu < 576 {
        return -libc::EINVAL;
    }
    with_dialler(handle, |dialler| dialler.shrink(call as u16, mtu as usize, now_us()))
}

/// Forgets a call. When both sides have ended it, what was sent still arrives; otherwise it is reset.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_release(handle: u32, call: u32) -> i32 {
    with_dialler(handle, |dialler| dialler.release(call as u16, now_us()))
}

/// Writes the ports of up to `room` calls that have news, each once. Returns how many.
///
/// # Safety
/// `to` is valid and writable for `room` u16s, aligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_dial_news(handle: u32, to: *mut u16, room: u32) -> i32 {
    if to.is_null() || !to.is_aligned() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives `room` u16s.
    let to = unsafe { std::slice::from_raw_parts_mut(to, room as usize) };
    with_dialler(handle, |dialler| {
        let count = dialler.news.len().min(to.len());
        for (slot, port) in to.iter_mut().zip(dialler.news.drain(..count)) {
            *slot = port;
            if let Some(call) = dialler.calls.get_mut(&port) {
                call.is_news = false;
            }
        }
        count as i32
    })
}

/// Takes the TCP packets among the burst's TO_EXIT rows: their `next` becomes `done`. Returns the rows taken.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_send(handle: u32, burst: u32, count: u32, done: u32) -> i32 {
    with_dialler(handle, |dialler| {
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
                if dialler.ingest(packet, now) {
                    block.next[row] = done as u8;
                    taken += 1;
                }
            }
            taken
        })
    })
}

/// Does what is due. Returns the packets that wait for the tunnel.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_turn(handle: u32) -> i32 {
    with_dialler(handle, |dialler| {
        dialler.turn(now_us());
        dialler.outbox.packets.len() as i32
    })
}

/// Milliseconds until `ox_dial_turn` is due though nothing arrives, 0 to 1000.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_next_ms(handle: u32) -> i32 {
    with_dialler(handle, |dialler| dialler.next_ms(now_us()))
}

/// Fills rows `from` to `to` - 1, which own slots, with waiting packets as TO_TUNNEL rows. Returns the rows filled.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_dialler(handle, |dialler| {
        with_burst(burst, |block, arena| dialler.outbox.fill(block, arena, from as usize, to as usize))
    })
}
