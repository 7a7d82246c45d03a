//! TCP dialled into the tunnel, for a client that has no privilege: connections of the host's programs that begin here
//! and leave as inner packets. A call is known by its local port. Invariant: buffers are bounded, each and in all, a full one
//! holds its writer back, and nothing arrives for a call but what its peer sent. Accepts no connection.

use crate::connection::{Connection, LEAST_BYTES, Phase};
use crate::layout::{TO_EXIT, Table, with_burst};
use crate::segment::{Key, Parsed, parse};
use crate::stack::{Account, OUTBOX_MAX, Outbox, Purse, now_us, seed};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 6335 §6: the dynamic ports.
const PORT_FIRST: u16 = 49152;
const CALLS_MAX: usize = 2048;
/// Of all calls.
const BUFFER_BYTES: usize = 128 << 20;
/// A call without traffic gives memory back.
const SHRINK_US: i64 = 2_000_000;
const WAIT_MAX_US: i64 = 1_000_000;

/// What has become of a call, bits.
const OPEN: u32 = 1;
const READABLE: u32 = 2;
const WRITABLE: u32 = 4;
const ENDED: u32 = 8;
const OVER: u32 = 16;

struct Call {
    key: Key,
    connection: Box<Connection>,
    /// What it was when last looked at; a change is news. Whoever waits has seen all that was there before.
    told: u32,
    is_news: bool,
    /// Nobody here wants it any more; it stays until the far end has all that was sent.
    is_released: bool,
    active_us: i64,
    due_us: Option<i64>,
}

struct Dialler {
    mtu: usize,
    addresses: Vec<IpAddr>,
    calls: HashMap<u16, Call>,
    due: BTreeSet<(i64, u16)>,
    news: Vec<u16>,
    outbox: Outbox,
    held: Vec<u16>,
    /// Calls whose segments came in this burst.
    touched: Vec<u16>,
    port: u16,
    buffers: Account,
    /// The one source's, which may have all.
    source: Account,
    swept_us: i64,
}

fn address_of(words: &[u32]) -> IpAddr {
    if words[0] == 0 && words[1] == 0 && words[2] == 0xffff {
        return IpAddr::V4(Ipv4Addr::from(words[3]));
    }
    let mut bytes = [0u8; 16];
    for (i, word) in words.iter().enumerate().take(4) {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_be_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(bytes))
}

/// The calls' buffers are all one source's.
macro_rules! purse {
    ($dialler:expr) => {
        Purse { total: &mut $dialler.buffers, source: &mut $dialler.source }
    };
}

impl Call {
    fn state(&self) -> u32 {
        let Connection { rx, tx, .. } = &*self.connection;
        let phase = self.connection.phase();
        let mut state = 0;
        if phase == Phase::Open || rx.held() > 0 {
            state |= OPEN;
        }
        if rx.held() > 0 {
            state |= READABLE;
        } else if rx.has_ended() && !self.connection.is_broken() {
            state |= ENDED;
        }
        // Room worth a call: a full buffer that frees a packet at a time would wake its writer for each.
        if phase == Phase::Open && tx.room() > 0 && tx.room() >= tx.limit / 4 {
            state |= WRITABLE;
        }
        if phase == Phase::Closed && state & READABLE == 0 {
            state |= OVER;
        }
        state
    }
}

impl Dialler {
    /// Starts a call to an address of four words. Returns its local port.
    fn dial(&mut self, remote: IpAddr, port: u16, now_us: i64) -> i32 {
        let local = self.addresses.iter().copied().find(|address| address.is_ipv4() == remote.is_ipv4());
        let Some(local) = local else { return -libc::ENETUNREACH };
        if remote.is_unspecified() || remote.is_multicast() || port == 0 {
            return -libc::EINVAL;
        }
        if self.calls.len() >= CALLS_MAX || !purse!(self).has(LEAST_BYTES) {
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
        let connection = Box::new(Connection::call(key, self.mtu, &mut purse!(self), now_us));
        let call = Call {
            key,
            connection,
            told: 0,
            is_news: false,
            is_released: false,
            active_us: now_us,
            due_us: None,
        };
        self.calls.insert(self.port, call);
        let port = self.port;
        self.attend(port, now_us);
        i32::from(port)
    }

    /// Takes a packet. False when it belongs to no call.
    fn ingest(&mut self, packet: &[u8], now_us: i64) -> bool {
        let segment = match parse(packet) {
            Parsed::Segment(segment) => segment,
            Parsed::Damaged => return true,
            Parsed::Other => return false,
        };
        let port = segment.key.destination_port;
        match self.calls.get_mut(&port) {
            Some(call) if call.key == segment.key => {
                call.active_us = now_us;
                call.connection.ingest(&segment, now_us, &mut self.outbox);
                if !self.touched.contains(&port) {
                    self.touched.push(port);
                }
            }
            // A late segment of a call that is over gets its reset, as a closed port's would.
            _ if self.addresses.contains(&segment.key.destination) => self.outbox.refuse(&segment),
            _ => {}
        }
        true
    }

    /// Sends and tells what the segments of a burst brought about.
    fn attend_touched(&mut self, now_us: i64) {
        for port in std::mem::take(&mut self.touched) {
            self.attend(port, now_us);
        }
    }

    /// Sends what is due, notes news and when the call wants attention again.
    fn attend(&mut self, port: u16, now_us: i64) {
        let Some(call) = self.calls.get_mut(&port) else { return };
        call.connection.grow(&mut purse!(self), now_us);
        let mut due_us = None;
        if call.connection.emit(now_us, &mut self.outbox) {
            if self.outbox.is_full() {
                self.held.push(port);
            } else {
                due_us = Some(now_us);
            }
        }
        if call.is_released && matches!(call.connection.phase(), Phase::Closed | Phase::TimeWait) {
            self.forget(port);
            return;
        }
        let state = call.state();
        if state != call.told && !call.is_news {
            call.is_news = true;
            self.news.push(port);
        }
        call.told = state;
        let due_us = due_us.or(call.connection.due_us()).map(|at_us| at_us.max(now_us));
        self.schedule(port, due_us);
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
        if self.outbox.waiting() < OUTBOX_MAX / 2 {
            for port in std::mem::take(&mut self.held) {
                self.attend(port, now_us);
            }
        }
        while let Some(&(at, port)) = self.due.first() {
            if at > now_us || self.outbox.is_full() {
                break;
            }
            self.schedule(port, None);
            self.attend(port, now_us);
            // Whatever asks for the same moment again gets it at the next turn.
            if self.calls.get(&port).and_then(|call| call.due_us).is_some_and(|again| again <= now_us) {
                self.schedule(port, Some(now_us + 1000));
            }
        }
        if now_us - self.swept_us >= SHRINK_US {
            self.swept_us = now_us;
            let mut purse = purse!(self);
            for call in self.calls.values_mut().filter(|call| now_us - call.active_us >= SHRINK_US) {
                call.connection.shrink(&mut purse);
            }
        }
    }

    fn release(&mut self, port: u16, now_us: i64) -> i32 {
        let Some(call) = self.calls.get_mut(&port) else { return -libc::EINVAL };
        call.is_released = true;
        // Both sides have ended: what is still on its way may arrive. Otherwise it is broken off.
        let connection = &mut call.connection;
        if !connection.rx.has_ended() || !connection.tx.is_finished() {
            connection.abort(&mut self.outbox);
        }
        self.attend(port, now_us);
        0
    }

    fn forget(&mut self, port: u16) {
        self.schedule(port, None);
        if let Some(mut call) = self.calls.remove(&port) {
            call.connection.release(&mut purse!(self));
        }
    }

    /// Copies what arrived. Returns how many bytes.
    fn read(&mut self, port: u16, room: &mut [u8], now_us: i64) -> i32 {
        let Some(call) = self.calls.get_mut(&port) else { return -libc::EINVAL };
        call.active_us = now_us;
        let mut count = 0;
        while count < room.len() && call.connection.rx.held() > 0 {
            let front = call.connection.rx.front();
            let length = front.len().min(room.len() - count);
            room[count..count + length].copy_from_slice(&front[..length]);
            call.connection.consume(length);
            count += length;
        }
        if count > 0 {
            self.attend(port, now_us); // the window has opened
        }
        count as i32
    }

    /// Takes what fits. Returns how many bytes.
    fn write(&mut self, port: u16, data: &[u8], now_us: i64) -> i32 {
        let Some(call) = self.calls.get_mut(&port) else { return -libc::EINVAL };
        call.active_us = now_us;
        if call.connection.phase() != Phase::Open {
            return 0;
        }
        call.connection.grow(&mut purse!(self), now_us);
        let count = call.connection.tx.push(data);
        self.attend(port, now_us);
        count as i32
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
    DIALLERS.with_borrow_mut(|diallers| diallers.guarded(handle, act))
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
        touched: Vec::new(),
        held: Vec::new(),
        buffers: Account::new(BUFFER_BYTES),
        source: Account::new(BUFFER_BYTES),
        swept_us: now_us(),
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
/// -ENETUNREACH without an address of that family, -EMFILE when too many are open or their buffers
/// have taken all memory.
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
    with_dialler(handle, |dialler| match dialler.calls.get(&(call as u16)) {
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
    with_dialler(handle, |dialler| dialler.read(call as u16, room, now_us()))
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
    with_dialler(handle, |dialler| dialler.write(call as u16, data, now_us()))
}

/// Ends our direction: a FIN behind what is still to be sent.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_finish(handle: u32, call: u32) -> i32 {
    with_dialler(handle, |dialler| {
        let Some(found) = dialler.calls.get_mut(&(call as u16)) else { return -libc::EINVAL };
        found.connection.finish();
        dialler.attend(call as u16, now_us());
        0
    })
}

/// Forgets a call. When both sides have ended it, what was sent still arrives; otherwise it is reset.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_release(handle: u32, call: u32) -> i32 {
    with_dialler(handle, |dialler| dialler.release(call as u16, now_us()))
}

/// The call's path takes packets of `mtu` bytes (576 to 1952) at most: what was sent in greater ones is cut when it goes again.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_shrink(handle: u32, call: u32, mtu: u32) -> i32 {
    if !(576..=1952).contains(&mtu) {
        return -libc::EINVAL;
    }
    with_dialler(handle, |dialler| {
        let Some(found) = dialler.calls.get_mut(&(call as u16)) else { return -libc::EINVAL };
        found.connection.shrink_path(mtu as usize);
        dialler.attend(call as u16, now_us());
        0
    })
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
            dialler.attend_touched(now);
            taken
        })
    })
}

/// Does what is due. Returns the packets that wait for the tunnel.
#[unsafe(no_mangle)]
pub extern "C" fn ox_dial_turn(handle: u32) -> i32 {
    with_dialler(handle, |dialler| {
        dialler.turn(now_us());
        dialler.outbox.waiting() as i32
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
