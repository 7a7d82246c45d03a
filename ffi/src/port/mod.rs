//! Ports: the doors through which outer datagrams come and go, in bursts, whatever carries them. Here is what every port
//! can do, the table of those that are open, and the calls of the C ABI over them. Invariant: a port marks every row that it
//! is given to send and fills only rows that own a slot; no socket, message header or ring is part of what a port is, so
//! that one over AF_XDP or DPDK fits. How ports are opened is the matter of open.rs.

pub mod bpf;
pub mod buffers;
pub mod mmsg;
pub mod open;
pub mod outgoing;
pub mod received;
pub mod ring;
pub mod steer;
pub mod udp;
pub mod uring;

use crate::layout::{Arena, BURST_CAPACITY, Block, Table, with_burst};
use std::cell::RefCell;

/// What `ox_port_describe` writes in place of a descriptor where there is none.
const NO_DESCRIPTOR: u32 = u32::MAX;

/// What a port is.
pub struct About {
    /// Polls readable when `receive` would find something; None where only looking tells.
    pub descriptor: Option<i32>,
    /// The UDP port that datagrams are addressed to.
    pub local_port: u16,
    /// What the kernel keeps of arrived datagrams for the port at most, bytes.
    pub buffer_bytes: u32,
    /// Whether the kernel or the device cuts and joins runs of datagrams.
    pub segments: bool,
}

/// A door for outer datagrams.
pub trait Port {
    fn about(&self) -> About;
    /// Fills rows `from` to `to` - 1, which own slots, with datagrams that have arrived, as TO_PARSE rows, without waiting.
    /// Returns the row after the last. A port whose memory is the arena may give a row a filled slot of its own in exchange
    /// for the row's: slot and offset columns then change together.
    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> usize;
    /// Sends the TO_TRANSMIT rows below `count` and marks them `done`. When it returns, nobody refers to their bytes.
    fn transmit(&mut self, block: &mut Block, arena: &mut Arena, count: usize, done: u8);
    /// Datagrams refused since the last call: too long for a slot, or not taken by the kernel.
    fn take_refused(&mut self) -> u32;
    /// The port's own way to wait, for one that has such; else poll(2) waits for its descriptor, or its owner looks.
    fn waiter(&mut self) -> Option<&mut dyn Waiter> {
        None
    }
    /// The port's way to read somebody else's device ahead, for one that has such.
    fn device_reader(&mut self) -> Option<&mut dyn DeviceReader> {
        None
    }
}

/// Waits, holding up the thread, for a port and for others' descriptors.
pub trait Waiter {
    /// Lets `wait` wait for somebody else's descriptor too, which stays open until the port is closed. Returns its bit in
    /// what `wait` returns, or -errno.
    fn watch(&mut self, fd: i32) -> i32;
    /// Waits `timeout_us` microseconds at most; 0 looks and does not wait. Returns what is ready to be read: bit 0 for the
    /// port, and those of `watch`; or -errno.
    fn wait(&mut self, timeout_us: u32) -> i32;
}

/// Reads the packets of a TUN device, each with its offload header, before they are asked for.
pub trait DeviceReader {
    /// Begins to read; once for a port. Returns 0, or -errno with nothing changed.
    fn read_device(&mut self, fd: i32) -> i32;
    /// The oldest packet that was read and not ended, without waiting.
    fn device_message(&mut self) -> Option<&[u8]>;
    /// Gives that packet's memory back.
    fn end_device_message(&mut self);
}

thread_local! {
    static PORTS: RefCell<Table<Box<dyn Port>>> = const { RefCell::new(Table::new()) };
}

/// Runs `act` on a port, or returns -EINVAL for a wrong handle. Not to be nested.
pub fn with_port(handle: u32, act: impl FnOnce(&mut dyn Port) -> i32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.get(handle).map_or(-libc::EINVAL, |port| act(port.as_mut())))
}

/// Takes a port into the table. Returns its handle, or -ENOMEM.
pub fn insert(port: Box<dyn Port>) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.insert(port))
}

/// Closes the port.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_close(handle: u32) -> i32 {
    PORTS.with_borrow_mut(|ports| ports.release(handle))
}

/// Writes four u32s: the descriptor that polls readable (2^32 - 1 for none), the local port, the receive buffer in bytes,
/// and 1 when segments are offloaded.
///
/// # Safety
/// `out` is valid for four u32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_port_describe(handle: u32, out: *mut u32) -> i32 {
    if out.is_null() {
        return -libc::EINVAL;
    }
    with_port(handle, |port| {
        let About { descriptor, local_port, buffer_bytes, segments } = port.about();
        let descriptor = descriptor.map_or(NO_DESCRIPTOR, |fd| fd as u32);
        let about = [descriptor, u32::from(local_port), buffer_bytes, u32::from(segments)];
        for (i, value) in about.into_iter().enumerate() {
            // SAFETY: i is below 4, and an ArrayBuffer need not be aligned for us.
            unsafe { out.add(i).write_unaligned(value) };
        }
        0
    })
}

/// Lets `ox_port_wait` wait for somebody else's descriptor too, which stays open until the port is closed. Returns its bit
/// in what that returns, -ENOSPC when there are too many (io_uring: eight), or -ENOTSUP where the port has no wait of its
/// own.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_watch(handle: u32, fd: i32) -> i32 {
    with_port(handle, |port| port.waiter().map_or(-libc::ENOTSUP, |waiter| waiter.watch(fd)))
}

/// Waits, holding up the thread, until the port or a watched descriptor is ready to be read, for `timeout_us` microseconds
/// at most; 0 looks and does not wait. Returns what is ready: bit 0 for the port, and those of `ox_port_watch`; or -ENOTSUP
/// where the port has no wait of its own.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_wait(handle: u32, timeout_us: u32) -> i32 {
    with_port(handle, |port| port.waiter().map_or(-libc::ENOTSUP, |waiter| waiter.wait(timeout_us)))
}

/// Fills rows `from` to `to` - 1, which own slots, with datagrams that have arrived, as TO_PARSE rows. Returns the rows
/// filled; datagrams beyond stay for the next call.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            let (from, to) = (from as usize, (to as usize).min(BURST_CAPACITY));
            if from > to { -libc::EINVAL } else { (port.receive(block, arena, from, to) - from) as i32 }
        })
    })
}

/// Sends the TO_TRANSMIT rows and marks them `done`. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_transmit(handle: u32, burst: u32, count: u32, done: u32) -> i32 {
    with_port(handle, |port| {
        with_burst(burst, |block, arena| {
            port.transmit(block, arena, (count as usize).min(BURST_CAPACITY), done as u8);
            0
        })
    })
}

/// Datagrams refused since the last call: too long, or not taken by the kernel.
#[unsafe(no_mangle)]
pub extern "C" fn ox_port_refused(handle: u32) -> i32 {
    with_port(handle, |port| port.take_refused() as i32)
}
