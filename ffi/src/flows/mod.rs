//! The userspace exit's UDP: one socket per inner source address and port, so that mapping and filtering are
//! endpoint-independent (RFC 4787 REQ-1, REQ-8), all of them behind one epoll descriptor that others join. Here are the
//! calls of the C ABI; set.rs has the flows, send.rs and receive.rs move datagrams. Invariant: an answer goes only to the
//! inner source that owns the socket it came to. Never waits; puts no fragments together and makes none.

pub mod datagram;
pub mod errors;
pub mod pins;
pub mod ports;
pub mod receive;
pub mod send;
pub mod set;

use crate::flows::set::{ANSWER_BYTES_MAX, Flows, Outcomes};
use crate::layout::{BURST_CAPACITY, PACKET_BYTES_MAX, Table, with_burst};
use crate::packet::{IPV6_BYTES, UDP_BYTES, read_prefix};

use std::cell::RefCell;

/// Of three quarters of the descriptors that the process may have, UDP and TCP get half each.
const DESCRIPTORS_MAX: u64 = 1 << 20;
// Bits of what `ox_flows_poll` returns: 0 is the flows' own.
const FIRST_WATCHED: u32 = 1;
const WATCHED_MAX: u32 = 16;

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

/// Gives an inner source, 16 bytes with IPv4 mapped and a port, a port outside by which strangers reach it, too, until it is
/// taken back or the source is forgotten. Returns 0, or -EADDRINUSE for a port that is another's.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_pin(handle: u32, address: *const u8, port: u32, outer_port: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(source) = (unsafe { read_prefix(address, 128) }) else { return -libc::EINVAL };
    if !(1..=65535).contains(&port) || !(1..=65535).contains(&outer_port) {
        return -libc::EINVAL;
    }
    with_flows(handle, |flows| match flows.pin(pins::key_of(source, port as u16), outer_port as u16) {
        Ok(()) => 0,
        Err(reason) => -reason,
    })
}

/// Takes back what `ox_flows_pin` gave a source.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_flows_unpin(handle: u32, address: *const u8, port: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(source) = (unsafe { read_prefix(address, 128) }) else { return -libc::EINVAL };
    with_flows(handle, |flows| {
        flows.unpin(pins::key_of(source, port as u16));
        0
    })
}
