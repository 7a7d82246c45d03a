//! What both users of the TCP stack share: packets on their way out, the clock, and how memory is shared out. Invariant:
//! a full outbox holds connections back and loses nothing, and no account lends more than it has. Knows no socket.

use crate::layout::{Arena, Block, TO_TUNNEL};
use crate::segment::{ACK, Header, Key, RST, Segment, write};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};

/// Packets that wait to be taken. A full queue holds connections back; it loses nothing.
pub const OUTBOX_MAX: usize = 2048;
/// Buffers kept for the next packets: what a few bursts need.
const SPARE_MAX: usize = 1024;

static AHEAD_US: AtomicI64 = AtomicI64::new(0);

/// Microseconds of the monotonic clock, and by how much a test has moved it.
pub fn now_us() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000 + ahead_us()
}

/// How far the stack's clock is ahead of the monotonic one.
pub fn ahead_us() -> i64 {
    AHEAD_US.load(Ordering::Relaxed)
}

/// Moves the TCP stack's clock forward, in seconds, for tests of what takes hours.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_shift_clock(seconds: u32) -> i32 {
    AHEAD_US.fetch_add(i64::from(seconds) * 1_000_000, Ordering::Relaxed);
    0
}

/// A number that nobody can guess: RFC 6528 asks for that in initial sequence numbers.
pub fn seed() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is valid for its length. A failure leaves zeros, which is weaker and not unsound.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes)
}

/// Packets on their way to clients, and the buffers of those that have left.
#[derive(Default)]
pub struct Outbox {
    packets: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    identification: u16,
}

impl Outbox {
    pub fn waiting(&self) -> usize {
        self.packets.len()
    }

    pub fn is_full(&self) -> bool {
        self.packets.len() >= OUTBOX_MAX
    }

    /// Adds the packet even where it is full: an answer that is dropped would only be asked for again.
    pub fn put(&mut self, flow: &Key, header: &Header, payload: (&[u8], &[u8])) {
        let mut packet = self.spare.pop().unwrap_or_default();
        self.identification = self.identification.wrapping_add(1);
        write(&mut packet, flow, header, payload, self.identification);
        self.packets.push_back(packet);
    }

    /// Adds a packet that was made elsewhere.
    pub fn put_packet(&mut self, packet: Vec<u8>) {
        self.packets.push_back(packet);
    }

    /// Drops what waits and is not to be kept.
    pub fn retain(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        self.packets.retain(|packet| keeps(packet));
    }

    /// Answers a segment that belongs to nothing, as a closed port does (RFC 9293 §3.10.7.1).
    pub fn refuse(&mut self, segment: &Segment) {
        if segment.has(RST) {
            return;
        }
        let header = if segment.has(ACK) {
            Header { seq: segment.header.ack, flags: RST, ..Header::default() }
        } else {
            let ack = segment.header.seq.wrapping_add(segment.span());
            Header { ack, flags: RST | ACK, ..Header::default() }
        };
        self.put(&segment.key, &header, (&[], &[]));
    }

    #[cfg(test)]
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

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
            if self.spare.len() < SPARE_MAX {
                self.spare.push(packet);
            }
            filled += 1;
        }
        filled
    }
}

/// Bytes of buffers that may be promised, and those that are.
#[derive(Clone, Copy)]
pub struct Account {
    pub used: usize,
    pub max: usize,
}

impl Account {
    pub fn new(max: usize) -> Self {
        Self { used: 0, max }
    }

    pub fn left(&self) -> usize {
        self.max.saturating_sub(self.used)
    }

    /// What a claim that is there may grow by: half of the account is for the least claims of those that come later.
    pub fn spare(&self) -> usize {
        self.left().saturating_sub(self.max / 2)
    }

    /// A claim has changed from `before`, which this account knows, to `after`.
    pub fn change(&mut self, before: usize, after: usize) {
        self.used = self.used - before + after;
    }
}

/// What a connection's buffers may take: of all there is, and of what its source may have.
pub struct Purse<'a> {
    pub total: &'a mut Account,
    pub source: &'a mut Account,
}

impl Purse<'_> {
    fn left(&self) -> usize {
        self.total.left().min(self.source.left())
    }

    /// What one claim may grow by.
    pub fn spare(&self) -> usize {
        self.total.spare().min(self.source.spare())
    }

    /// Whether both accounts have `bytes` left.
    pub fn has(&self, bytes: usize) -> bool {
        self.left() >= bytes
    }

    /// A claim has changed; what was claimed before is part of both accounts.
    pub fn change(&mut self, before: usize, after: usize) {
        self.total.change(before, after);
        self.source.change(before, after);
    }
}
