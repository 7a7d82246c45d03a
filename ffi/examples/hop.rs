//! The hop of bench/hop.ts with the decisions in Rust: the same prebuilt library receives, opens, seals and sends, and
//! what src/ingress and src/egress decide about each packet between two peers is decided here, over the same columns
//! and with tables of the same shape. Invariant: nothing is allocated per packet, and a lost packet ends the program.
//! It makes no handshakes: the keys are its own. Opens the library by path, so that it builds with rustc alone:
//! `rustc --edition 2024 -O ffi/examples/hop.rs`. Usage: hop LIBRARY ALGORITHM BYTES OFFLOAD
//! MILLISECONDS prints packets and nanoseconds; with `gaps` behind it, the bursts and the microseconds from one to the
//! next: p50, p99, p99.9, longest. Long because one file is what rustc alone builds.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::{offset_of, size_of, transmute_copy};
use std::time::Instant;

const CAPACITY: usize = 256;
const SLOT_BYTES: usize = 2048;
const HEADROOM: u32 = 64;
const BURSTS_WAITING: usize = 4;
const NONE: u32 = u32::MAX;

const DONE: u8 = 0;
const TO_PARSE: u8 = 1;
const TO_OPEN: u8 = 5;
const OPENED: u8 = 6;
const TO_TUNNEL: u8 = 8;
const TO_SEAL: u8 = 9;
const TO_TRANSMIT: u8 = 10;
const DROP: u8 = 32;

const TYPE_DATA: u32 = 4;
const DATA_HEADER_BYTES: u32 = 16;
const KEEPALIVE_BYTES: u32 = 32;
const MTU: u32 = 1420;
const ROWS: usize = 4256;
const ROW_MASK: u32 = (1 << 18) - 1;
const PEERS: usize = 32768;
const REJECT_AFTER_US: f64 = 180e6;
const REKEY_AFTER_US: f64 = 120e6;
const KEEPALIVE_US: f64 = 10e6;
const REKEY_TIMEOUT_US: f64 = 5e6;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}
const RTLD_NOW: c_int = 2;

macro_rules! library {
    ($($name:ident($($parameter:ty),*);)*) => {
        /// The library's functions, as ffi/native.ts lists them.
        struct Library { $($name: unsafe extern "C" fn($($parameter),*) -> i32,)* }

        impl Library {
            fn open(path: &str) -> Self {
                let path = CString::new(path).expect("the path has no zero byte");
                // SAFETY: a C string; loading runs the library's initialisers, of which it has no odd ones.
                let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
                assert!(!library.is_null(), "{path:?} cannot be loaded");
                Self { $($name: {
                    let name = CString::new(stringify!($name)).expect("names have no zero byte");
                    // SAFETY: an open library and a C string.
                    let found = unsafe { dlsym(library, name.as_ptr()) };
                    assert!(!found.is_null(), "{name:?} is missing");
                    // SAFETY: the library exports this name with these parameters (ffi/src).
                    unsafe { transmute_copy(&found) }
                },)* }
            }
        }
    };
}

library! {
    ox_layout(*mut u32, u32);
    ox_arena_register(*mut u8, u32);
    ox_burst_register(*mut Block, u32, u32);
    ox_udp_open(*const u8, u32, u32, u32);
    ox_port_describe(u32, *mut u32);
    ox_port_receive(u32, u32, u32, u32);
    ox_port_transmit(u32, u32, u32, u32);
    ox_keys_new(u32, u32, u32);
    ox_keys_install(u32, u32, *const u8, *const u8);
    ox_seal(u32, u32, u32, u32);
    ox_open(u32, u32, u32, u32);
}

fn checked(result: i32) -> u32 {
    assert!(result >= 0, "the library refuses: errno {}", -result);
    result as u32
}

/// The columns of src/vector/burst.ts.
#[repr(C)]
struct Block {
    counter: [f64; CAPACITY],
    slot: [u32; CAPACITY],
    offset: [u32; CAPACITY],
    length: [u32; CAPACITY],
    session: [u32; CAPACITY],
    peer: [u32; CAPACITY],
    address: [[u32; 4]; CAPACITY],
    local: [[u32; 4]; CAPACITY],
    port: [u16; CAPACITY],
    next: [u8; CAPACITY],
    ecn: [u8; CAPACITY],
    header_bytes: [u8; CAPACITY],
    phase: [u8; CAPACITY],
}

/// A burst and its arena, whose slots go round as on a free stack.
struct Burst {
    block: Box<Block>,
    bytes: Vec<u8>,
    free: Vec<u32>,
    count: usize,
    handle: u32,
}

impl Burst {
    fn new(library: &Library, slots: usize) -> Self {
        // SAFETY: every bit pattern is a valid Block.
        let mut block: Box<Block> = unsafe { Box::new(std::mem::zeroed()) };
        let mut bytes = vec![0u8; slots * SLOT_BYTES];
        // SAFETY: both live, where they are, until the process ends; no Rust runs during the library's calls.
        let handle = unsafe {
            let arena = checked((library.ox_arena_register)(bytes.as_mut_ptr(), bytes.len() as u32));
            checked((library.ox_burst_register)(&mut *block, size_of::<Block>() as u32, arena))
        };
        Self { block, bytes, free: (0..slots as u32).rev().collect(), count: 0, handle }
    }

    fn grow(&mut self, length: u32, next: u8) -> bool {
        if self.count == CAPACITY {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        let (row, block) = (self.count, &mut self.block);
        block.slot[row] = slot;
        block.offset[row] = slot * SLOT_BYTES as u32 + HEADROOM;
        block.length[row] = length;
        block.next[row] = next;
        block.session[row] = NONE;
        block.peer[row] = NONE;
        block.ecn[row] = 0;
        block.local[row] = [0; 4];
        self.count += 1;
        true
    }

    fn shrink(&mut self, count: usize) {
        while self.count > count {
            self.count -= 1;
            self.free.push(self.block.slot[self.count]);
        }
    }

    /// The end of the run of rows with one session and one step that begins at `from`.
    fn run_end(&self, from: usize) -> usize {
        let (session, next) = (&self.block.session, &self.block.next);
        let mut end = from + 1;
        while end < self.count && session[end] == session[from] && next[end] == next[from] {
            end += 1;
        }
        end
    }

    fn release(&mut self) {
        for row in 0..self.count {
            self.free.push(self.block.slot[row]);
        }
        self.count = 0;
    }
}

/// A UDP port of the library.
struct Port<'a> {
    library: &'a Library,
    handle: u32,
    number: u16,
}

impl<'a> Port<'a> {
    fn new(library: &'a Library, offload: u32) -> Self {
        let host = "127.0.0.1";
        let mut about = [0u32; 8];
        // SAFETY: the host's bytes, and room for what is described.
        let handle = unsafe {
            let handle = checked((library.ox_udp_open)(host.as_ptr(), host.len() as u32, 0, offload));
            checked((library.ox_port_describe)(handle, about.as_mut_ptr()));
            handle
        };
        Self { library, handle, number: about[1] as u16 }
    }

    fn receive(&self, burst: &mut Burst) -> usize {
        let from = burst.count;
        while burst.grow(0, TO_PARSE) {}
        // SAFETY: the burst is registered.
        let filled = unsafe {
            (self.library.ox_port_receive)(self.handle, burst.handle, from as u32, burst.count as u32)
        };
        burst.shrink(from + filled.max(0) as usize);
        burst.count - from
    }

    fn transmit(&self, burst: &mut Burst) {
        // SAFETY: the burst is registered.
        unsafe {
            (self.library.ox_port_transmit)(self.handle, burst.handle, burst.count as u32, u32::from(DONE))
        };
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_u16_be(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// src/session/table.ts, as far as packets touch it.
struct Sessions {
    receiver_index: Vec<u32>,
    remote_index: Vec<u32>,
    peer: Vec<u32>,
    born_us: Vec<f64>,
    send_counter: Vec<f64>,
    initiator: Vec<bool>,
    keyed: Vec<bool>,
    highest: Vec<f64>,
    missing: Vec<f64>,
    bits: Vec<u32>,
}

const WORDS: usize = 512;

impl Sessions {
    fn new() -> Self {
        Self {
            receiver_index: vec![NONE; ROWS],
            remote_index: vec![0; ROWS],
            peer: vec![NONE; ROWS],
            born_us: vec![0.0; ROWS],
            send_counter: vec![0.0; ROWS],
            initiator: vec![false; ROWS],
            keyed: vec![false; ROWS],
            highest: vec![-1.0; ROWS],
            missing: vec![0.0; ROWS],
            bits: vec![0; ROWS * WORDS],
        }
    }

    fn find(&self, index: u32) -> u32 {
        let row = index & ROW_MASK;
        if (row as usize) < ROWS && self.receiver_index[row as usize] == index && index != NONE {
            row
        } else {
            NONE
        }
    }

    /// src/session/replay.ts (RFC 6479).
    fn accept(&mut self, row: usize, counter: f64) -> bool {
        let base = row * WORDS;
        let (new, highest) = (counter as i64, self.highest[row] as i64);
        let at = base + ((new >> 5) as usize & (WORDS - 1));
        let bit = 1 << (new & 31);
        if new == highest + 1 {
            self.highest[row] = counter;
            self.bits[at] = if bit == 1 { 1 } else { self.bits[at] | bit };
            return true;
        }
        if new > highest {
            let last = highest.div_euclid(32);
            let clear = (new.div_euclid(32) - last).min(WORDS as i64);
            for i in 1..=clear {
                self.bits[base + ((last + i) as usize & (WORDS - 1))] = 0;
            }
            self.highest[row] = counter;
            self.missing[row] += (new - highest - 1) as f64;
        } else if highest - new > (WORDS as i64 - 1) * 32 {
            return false;
        }
        if self.bits[at] & bit != 0 {
            return false;
        }
        self.bits[at] |= bit;
        if new < highest {
            self.missing[row] -= 1.0;
        }
        true
    }
}

/// The columns of src/session/peers.ts that packets touch.
struct Peers {
    address: Vec<[u32; 4]>,
    local: Vec<[u32; 4]>,
    port: Vec<u16>,
    ipv4: Vec<u32>,
    current: Vec<u32>,
    next: Vec<u32>,
    keepalive_at_us: Vec<f64>,
    silence_at_us: Vec<f64>,
    jitter_us: Vec<f64>,
    persistent_us: Vec<f64>,
    bytes_received: Vec<f64>,
    bytes_sent: Vec<f64>,
}

/// src/session/prefix_table.ts with one length in use.
struct Routes {
    keys: Vec<[u32; 4]>,
    bits: Vec<u8>,
    values: Vec<u32>,
    mask: usize,
    lengths: Vec<u8>,
}

const EMPTY: u8 = 255;

impl Routes {
    fn new() -> Self {
        Self {
            keys: vec![[0; 4]; 64],
            bits: vec![EMPTY; 64],
            values: vec![0; 64],
            mask: 63,
            lengths: vec![128],
        }
    }

    fn seek(&self, address: &[u32; 4], bits: u8) -> usize {
        let mut h = (address[0] ^ u32::from(bits)).wrapping_mul(0x9e37_79b1);
        h = (h ^ address[1] ^ (h >> 15)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ address[2] ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h = (h ^ address[3] ^ (h >> 16)).wrapping_mul(0x9e37_79b1);
        let mut at = (h ^ (h >> 15)) as usize & self.mask;
        while self.bits[at] != EMPTY && !(self.bits[at] == bits && self.keys[at] == *address) {
            at = (at + 1) & self.mask;
        }
        at
    }

    fn set(&mut self, address: [u32; 4], value: u32) {
        let at = self.seek(&address, 128);
        (self.keys[at], self.bits[at], self.values[at]) = (address, 128, value);
    }

    fn lookup(&self, words: &[u32; 4]) -> u32 {
        let shortest = if words[..3] == [0, 0, 0xffff] { 96 } else { 0 };
        for &bits in &self.lengths {
            if bits < shortest {
                break;
            }
            let mut probe = [0; 4];
            for (w, word) in probe.iter_mut().enumerate() {
                let keep = i32::from(bits) - 32 * w as i32;
                *word = match keep {
                    32.. => words[w],
                    ..=0 => 0,
                    _ => words[w] & !(u32::MAX >> keep),
                };
            }
            let place = self.seek(&probe, bits);
            if self.bits[place] != EMPTY {
                return self.values[place];
            }
        }
        NONE
    }
}

/// The IPv4 or IPv6 address of a checked packet: the source, or the destination.
fn read_address(bytes: &[u8], at: usize, destination: bool) -> [u32; 4] {
    let word = |at: usize| read_u32(bytes, at).swap_bytes();
    if bytes[at] >> 4 == 4 {
        return [0, 0, 0xffff, word(at + if destination { 16 } else { 12 })];
    }
    let from = at + if destination { 24 } else { 8 };
    [word(from), word(from + 4), word(from + 8), word(from + 12)]
}

/// The length that the packet's own header states, or 0 when it does not hold together.
fn inner_length(bytes: &[u8], at: usize, length: u32) -> u32 {
    if length < 20 {
        return 0;
    }
    let first = bytes[at];
    if first >> 4 == 4 {
        let (header, total) = (u32::from(first & 15) * 4, u32::from(read_u16_be(bytes, at + 2)));
        return if header >= 20 && total >= header && total <= length { total } else { 0 };
    }
    if first >> 4 != 6 || length < 40 {
        return 0;
    }
    let total = 40 + u32::from(read_u16_be(bytes, at + 4));
    if total <= length { total } else { 0 }
}

/// Takes one from the TTL or hop limit, checksum included; false when it has run out.
fn spend_hop(bytes: &mut [u8], at: usize) -> bool {
    let v4 = bytes[at] >> 4 == 4;
    let limit = at + if v4 { 8 } else { 7 };
    if bytes[limit] <= 1 {
        return false;
    }
    bytes[limit] -= 1;
    if v4 {
        let sum = u32::from(read_u16_be(bytes, at + 10)) + 0x100;
        let folded = (sum & 0xffff) + (sum >> 16);
        bytes[at + 10..at + 12].copy_from_slice(&(folded as u16).to_be_bytes());
    }
    true
}

/// The relay's middle: src/ingress and src/egress for packets between peers.
struct Relay {
    keys: u32,
    sessions: Sessions,
    peers: Peers,
    routes: Routes,
    own: [u32; 4],
    received: u64,
    dropped: u64,
    next_timeout_us: f64,
}

impl Relay {
    fn carry(&mut self, library: &Library, burst: &mut Burst, now_us: f64) {
        self.parse(burst, now_us);
        // SAFETY: keys and burst are registered.
        unsafe {
            checked((library.ox_open)(self.keys, burst.handle, burst.count as u32, u32::from(DROP)));
        }
        self.accept(burst, now_us);
        self.deliver(burst);
        self.steer(burst, now_us);
        self.prepare(burst, now_us);
        // SAFETY: as above.
        unsafe {
            checked((library.ox_seal)(self.keys, burst.handle, burst.count as u32, u32::from(DROP)));
        }
        for next in &mut burst.block.next[..burst.count] {
            if *next >= DROP {
                self.dropped += 1;
                *next = DONE;
            }
        }
    }

    fn parse(&mut self, burst: &mut Burst, now_us: f64) {
        let (block, sessions) = (&mut *burst.block, &self.sessions);
        let (mut run, mut run_next) = (None, DROP);
        for row in 0..burst.count {
            if block.next[row] != TO_PARSE {
                continue;
            }
            self.received += u64::from(block.length[row]);
            let at = block.offset[row] as usize;
            if block.length[row] < KEEPALIVE_BYTES || read_u32(&burst.bytes, at) != TYPE_DATA {
                block.next[row] = DROP;
                continue;
            }
            let index = read_u32(&burst.bytes, at + 4);
            let found = match run {
                Some((of, found)) if of == index => found,
                _ => {
                    let found = sessions.find(index);
                    if found == NONE || !sessions.keyed[found as usize] {
                        (run, block.next[row]) = (None, DROP);
                        continue;
                    }
                    run = Some((index, found));
                    let age_us = now_us - sessions.born_us[found as usize];
                    run_next = if age_us >= REJECT_AFTER_US { DROP } else { TO_OPEN };
                    found
                }
            };
            let high = read_u32(&burst.bytes, at + 12);
            block.session[row] = found;
            block.peer[row] = sessions.peer[found as usize];
            block.counter[row] = f64::from(high) * 4294967296.0 + f64::from(read_u32(&burst.bytes, at + 8));
            block.next[row] = if high >= 0x20_0000 { DROP } else { run_next };
        }
    }

    fn accept(&mut self, burst: &mut Burst, now_us: f64) {
        let mut from = 0;
        while from < burst.count {
            if burst.block.next[from] != OPENED {
                from += 1;
                continue;
            }
            let end = burst.run_end(from);
            self.accept_run(burst, from, end, now_us);
            from = end;
        }
    }

    fn accept_run(&mut self, burst: &mut Burst, from: usize, end: usize, now_us: f64) {
        let (block, peers) = (&mut *burst.block, &mut self.peers);
        let (session, id) = (block.session[from] as usize, block.peer[from] as usize);
        let (mut last, mut bytes) = (None, 0.0);
        for row in from..end {
            if !self.sessions.accept(session, block.counter[row]) {
                block.next[row] = DROP;
                continue;
            }
            last = Some(row);
            bytes += f64::from(block.length[row]);
            if block.length[row] == 0 {
                block.next[row] = DONE;
            }
        }
        let Some(last) = last else { return };
        peers.bytes_received[id] += bytes;
        if peers.port[id] != block.port[last] || peers.address[id] != block.address[last] {
            peers.port[id] = block.port[last];
            peers.address[id] = block.address[last];
        }
        peers.local[id] = block.local[last];
        if peers.next[id] == session as u32 {
            (peers.current[id], peers.next[id]) = (session as u32, NONE);
        }
        peers.silence_at_us[id] = f64::INFINITY;
        if bytes > 0.0 && peers.keepalive_at_us[id] == f64::INFINITY {
            peers.keepalive_at_us[id] = now_us + KEEPALIVE_US;
            self.next_timeout_us = self.next_timeout_us.min(peers.keepalive_at_us[id]);
        }
        let asks = self.sessions.initiator[session]
            && now_us - self.sessions.born_us[session] > REJECT_AFTER_US - KEEPALIVE_US - REKEY_TIMEOUT_US;
        assert!(peers.persistent_us[id] == 0.0 && !asks, "this relay makes no handshakes");
    }

    fn deliver(&mut self, burst: &mut Burst) {
        let block = &mut *burst.block;
        let mut run = None;
        for row in 0..burst.count {
            if block.next[row] != OPENED {
                continue;
            }
            let at = block.offset[row] as usize;
            let whole = inner_length(&burst.bytes, at, block.length[row]);
            block.next[row] = DROP;
            if whole == 0 {
                continue;
            }
            block.length[row] = whole;
            let source = read_address(&burst.bytes, at, false);
            let is_v4 = burst.bytes[at] >> 4 == 4;
            let is_leased = is_v4 && source[3] != 0 && source[3] == self.peers.ipv4[block.peer[row] as usize];
            let disguised = !is_v4 && source[..3] == [0, 0, 0xffff];
            if !is_leased && (disguised || self.routes.lookup(&source) != block.peer[row]) {
                continue;
            }
            let destination = read_address(&burst.bytes, at, true);
            let other = match run {
                Some((of, other)) if of == (is_v4, destination) => other,
                _ => {
                    // Where to is a peer here: no echo of its own, no policy of the outside.
                    let other = if destination == self.own { NONE } else { self.routes.lookup(&destination) };
                    run = Some(((is_v4, destination), other));
                    other
                }
            };
            if other != NONE && spend_hop(&mut burst.bytes, at) {
                block.peer[row] = other;
                block.next[row] = TO_TUNNEL;
            }
        }
    }

    fn steer(&mut self, burst: &mut Burst, now_us: f64) {
        let block = &mut *burst.block;
        let mut run = None;
        for row in 0..burst.count {
            if block.next[row] != TO_TUNNEL {
                continue;
            }
            let at = block.offset[row] as usize;
            block.length[row] = inner_length(&burst.bytes, at, block.length[row]);
            let id = block.peer[row]; // as `deliver` has found it
            if block.length[row] == 0 || block.length[row] > MTU || id == NONE {
                block.next[row] = DROP;
                continue;
            }
            let session = match run {
                Some((of, session)) if of == id => session,
                _ => {
                    let session = self.peers.current[id as usize];
                    let usable = session != NONE
                        && now_us - self.sessions.born_us[session as usize] < REJECT_AFTER_US
                        && self.sessions.send_counter[session as usize] < 9_007_199_254_732_799.0;
                    if !usable {
                        block.next[row] = DROP;
                        continue;
                    }
                    run = Some((id, session));
                    session
                }
            };
            block.session[row] = session;
            block.next[row] = TO_SEAL;
        }
    }

    fn prepare(&mut self, burst: &mut Burst, now_us: f64) {
        let mut from = 0;
        while from < burst.count {
            if burst.block.next[from] != TO_SEAL {
                from += 1;
                continue;
            }
            let end = burst.run_end(from);
            self.prepare_run(burst, from, end, now_us);
            from = end;
        }
    }

    fn prepare_run(&mut self, burst: &mut Burst, from: usize, end: usize, now_us: f64) {
        let (block, peers, sessions) = (&mut *burst.block, &mut self.peers, &mut self.sessions);
        let (id, epoch) = (block.peer[from] as usize, block.session[from] as usize);
        let (address, local, port) = (peers.address[id], peers.local[id], peers.port[id]);
        let remote_index = sessions.remote_index[epoch];
        let (mut counter, mut sent, mut is_data) = (sessions.send_counter[epoch], 0.0, false);
        for row in from..end {
            let (at, length) = (block.offset[row] as usize, block.length[row]);
            is_data |= length > 0;
            sent += f64::from(length);
            block.counter[row] = counter;
            let header = at - DATA_HEADER_BYTES as usize;
            write_u32(&mut burst.bytes, header, TYPE_DATA);
            write_u32(&mut burst.bytes, header + 4, remote_index);
            write_u32(&mut burst.bytes, header + 8, counter as u64 as u32);
            write_u32(&mut burst.bytes, header + 12, (counter as u64 >> 32) as u32);
            counter += 1.0;
            let padded = match length.next_multiple_of(16) {
                padded if padded > MTU && length <= MTU => MTU,
                padded => padded,
            };
            burst.bytes[at + length as usize..at + padded as usize].fill(0);
            block.length[row] = padded;
            (block.address[row], block.local[row], block.port[row]) = (address, local, port);
        }
        sessions.send_counter[epoch] = counter;
        peers.bytes_sent[id] += sent;
        peers.keepalive_at_us[id] = f64::INFINITY;
        if is_data && peers.silence_at_us[id] == f64::INFINITY {
            peers.silence_at_us[id] = now_us + KEEPALIVE_US + REKEY_TIMEOUT_US + peers.jitter_us[id];
            self.next_timeout_us = self.next_timeout_us.min(peers.silence_at_us[id]);
        }
        let worn = counter > 4_503_599_627_370_496.0
            || (sessions.initiator[epoch] && now_us - sessions.born_us[epoch] > REKEY_AFTER_US);
        assert!(peers.persistent_us[id] == 0.0 && !worn, "this relay makes no handshakes");
    }
}

/// A UDP packet from 10.66.0.2 to 10.66.0.3.
fn packet(bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; bytes];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 66, 0, 2, 10, 66, 0, 3]);
    packet[2..4].copy_from_slice(&(bytes as u16).to_be_bytes());
    packet[24..26].copy_from_slice(&(bytes as u16 - 20).to_be_bytes());
    packet
}

const LOOPBACK: [u32; 4] = [0, 0, 0xffff, 0x7f00_0001];
/// Rows of the relay's sessions with the two peers, whose numbers are 0 and 1.
const NEAR_ROW: usize = 0;
const FAR_ROW: usize = 1;

/// Ends the program where the library lays bursts out differently or numbers steps differently.
fn check_layout(library: &Library) {
    let mut layout = [0u32; 256];
    // SAFETY: room for that many words.
    checked(unsafe { (library.ox_layout)(layout.as_mut_ptr(), layout.len() as u32) });
    let here = [CAPACITY, offset_of!(Block, counter), offset_of!(Block, slot), offset_of!(Block, offset)];
    assert!(here.iter().zip(layout).all(|(a, b)| *a == b as usize), "the layouts differ");
    let steps = [DONE, TO_PARSE, TO_OPEN, OPENED, 7, TO_TUNNEL, TO_SEAL, TO_TRANSMIT];
    assert!((1..steps.len()).all(|i| layout[18 + i] == u32::from(steps[i])), "the steps differ");
    assert!(
        layout[14] as usize == size_of::<Block>()
            && layout[15] as usize == SLOT_BYTES
            && layout[16] == HEADROOM,
        "the layouts differ"
    );
}

/// The client's keys, and a relay with a session for each of two peers, which have these ports.
fn client_and_relay(library: &Library, algorithm: u32, ports: [u16; 2]) -> (u32, Relay) {
    let mut sessions = Sessions::new();
    for (row, peer) in [(NEAR_ROW, 0), (FAR_ROW, 1)] {
        sessions.receiver_index[row] = 0x0abc_0000 & !ROW_MASK | row as u32;
        sessions.remote_index[row] = 0x1234_5678;
        sessions.peer[row] = peer;
        sessions.keyed[row] = true;
    }
    let mut routes = Routes::new();
    routes.set([0, 0, 0xffff, 0x0a42_0002], 0);
    routes.set([0, 0, 0xffff, 0x0a42_0003], 1);
    let mut peers = Peers {
        address: vec![[0; 4]; PEERS],
        local: vec![[0; 4]; PEERS],
        port: vec![0; PEERS],
        ipv4: vec![0; PEERS],
        current: vec![NONE; PEERS],
        next: vec![NONE; PEERS],
        keepalive_at_us: vec![f64::INFINITY; PEERS],
        silence_at_us: vec![f64::INFINITY; PEERS],
        jitter_us: vec![0.0; PEERS],
        persistent_us: vec![0.0; PEERS],
        bytes_received: vec![0.0; PEERS],
        bytes_sent: vec![0.0; PEERS],
    };
    for (id, port) in ports.into_iter().enumerate() {
        (peers.address[id], peers.port[id], peers.current[id]) = (LOOPBACK, port, id as u32);
        peers.ipv4[id] = 0x0a42_0002 + id as u32;
    }
    let (near_key, far_key) = ([3u8; 32], [5u8; 32]);
    // SAFETY: 32 bytes each.
    let (client_keys, keys) = unsafe {
        let client = checked((library.ox_keys_new)(algorithm, 0, 1));
        let relay = checked((library.ox_keys_new)(algorithm, 0, ROWS as u32));
        let install = library.ox_keys_install;
        checked(install(client, 0, near_key.as_ptr(), near_key.as_ptr()));
        checked(install(relay, NEAR_ROW as u32, near_key.as_ptr(), near_key.as_ptr()));
        checked(install(relay, FAR_ROW as u32, far_key.as_ptr(), far_key.as_ptr()));
        (client, relay)
    };
    let relay = Relay {
        keys,
        sessions,
        peers,
        routes,
        own: [0, 0, 0xffff, 0x0a42_0001],
        received: 0,
        dropped: 0,
        next_timeout_us: f64::INFINITY,
    };
    (client_keys, relay)
}

/// Fills the burst with the client's next sealed datagrams to the relay's port, `sent` having been sent before.
fn fill(library: &Library, keys: u32, out: &mut Burst, packet: &[u8], to: (u32, u16), sent: u64) {
    let (bytes, padded) = (packet.len(), packet.len().next_multiple_of(16));
    let (receiver_index, port) = to;
    for row in 0..CAPACITY {
        assert!(out.grow(padded as u32, TO_SEAL), "the arena leaks");
        let at = out.block.offset[row] as usize;
        let counter = sent + row as u64;
        out.bytes[at..at + bytes].copy_from_slice(packet);
        out.bytes[at + bytes..at + padded].fill(0);
        out.block.session[row] = 0;
        out.block.counter[row] = counter as f64;
        write_u32(&mut out.bytes, at - 16, TYPE_DATA);
        write_u32(&mut out.bytes, at - 12, receiver_index);
        write_u32(&mut out.bytes, at - 8, counter as u32);
        write_u32(&mut out.bytes, at - 4, (counter >> 32) as u32);
        out.block.address[row] = LOOPBACK;
        out.block.port[row] = port;
    }
    // SAFETY: keys and burst are registered.
    unsafe { checked((library.ox_seal)(keys, out.handle, CAPACITY as u32, 0)) };
}

/// Takes all that has arrived. Returns how much that was.
fn drain(port: &mut Port, arrived: &mut Burst) -> usize {
    let mut count = 0;
    loop {
        let got = port.receive(arrived);
        arrived.release();
        if got == 0 {
            return count;
        }
        count += got;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize| arguments[i].parse::<u32>().expect("a number");
    let (algorithm, bytes, offload, run_ms) = (number(2), number(3) as usize, number(4), number(5));
    let library = &Library::open(&arguments[1]);
    check_layout(library);
    let [near, relay_port, mut far] = [(); 3].map(|()| Port::new(library, offload));
    let (client_keys, mut relay) = client_and_relay(library, algorithm, [near.number, far.number]);
    let to = (relay.sessions.receiver_index[NEAR_ROW], relay_port.number);

    let mut out = Burst::new(library, 2 * CAPACITY);
    let mut burst = Burst::new(library, 16 * CAPACITY);
    let mut arrived = Burst::new(library, 2 * CAPACITY);
    let packet = packet(bytes);
    let start = Instant::now();
    let (mut sent, mut carried, mut carried_ns) = (0u64, 0u64, 0u64);
    // Every gap of the run, in microseconds; reserved, so that none is spent on growing.
    let mut gaps = arguments.get(6).map(|_| Vec::<u32>::with_capacity(run_ms as usize * 20));
    let bursts = if gaps.is_some() { 1 } else { BURSTS_WAITING };
    let mut last_ns = 0;
    let run_ns = u128::from(run_ms) * 1_000_000;
    while if gaps.is_some() { start.elapsed().as_nanos() } else { carried_ns.into() } < run_ns {
        for _ in 0..bursts {
            fill(library, client_keys, &mut out, &packet, to, sent);
            sent += CAPACITY as u64;
            near.transmit(&mut out);
            out.release();
        }

        let began = Instant::now();
        loop {
            let now_us = start.elapsed().as_nanos() as f64 / 1000.0;
            if relay_port.receive(&mut burst) == 0 {
                break;
            }
            relay.carry(library, &mut burst, now_us);
            relay_port.transmit(&mut burst);
            burst.release();
        }
        carried_ns += began.elapsed().as_nanos() as u64;
        carried += (bursts * CAPACITY) as u64;

        let count = drain(&mut far, &mut arrived);
        assert!(count == bursts * CAPACITY && relay.dropped == 0, "packets are lost");
        if let Some(gaps) = &mut gaps {
            let now_ns = start.elapsed().as_nanos() as u64;
            gaps.push(((now_ns - last_ns) / 1000) as u32);
            last_ns = now_ns;
        }
    }
    let Some(mut gaps) = gaps else { return println!("{carried} {carried_ns}") };
    gaps.sort_unstable();
    let quantile = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    println!("{} {} {} {} {}", gaps.len(), quantile(0.5), quantile(0.99), quantile(0.999), quantile(1.0));
}
