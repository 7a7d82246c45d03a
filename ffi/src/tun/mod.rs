//! A TUN device's queue: super-packets (offload.rs) in both directions, so that the kernel routes bulk traffic 64 KB at a
//! time; cut by cut.rs, joined by join.rs. Invariant: one call moves a whole burst and never waits; what the device or the
//! kernel refuses costs that packet only. The descriptor, made with IFF_VNET_HDR and O_NONBLOCK, and the device's addresses,
//! routes and rules are the caller's.

pub mod cut;
pub mod join;
pub mod offload;
#[cfg(test)]
mod offload_test;

use crate::layout::{Arena, BURST_CAPACITY, Block, PACKET_BYTES_MAX, TO_EXIT, TO_TUNNEL, Table, with_burst};
use crate::port::{DeviceReader, with_port};
use crate::tun::cut::SuperPacket;
use crate::tun::join::{Group, HEADERS_BYTES_MAX, Joiner, SEGMENTS_MAX, packet_of};
use crate::tun::offload::{OffloadHeader, complete_checksum};
use std::cell::RefCell;
use std::io::{Error, IoSlice};

// Of linux/if_tun.h.
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO: u32 = 0x02 | 0x04;
/// For both versions of IP; since Linux 6.2.
const TUN_F_USO: u32 = 0x20 | 0x40;

const OFFLOAD_BYTES: usize = size_of::<OffloadHeader>();
/// Room for the largest super-packet behind the part that fits a slot.
const SPILL_BYTES: usize = 65536 + 64;

struct Tun {
    fd: i32,
    /// The port that reads the device ahead; without one, readv(2) reads.
    port: Option<u32>,
    /// TUN_F_ bits that the kernel accepted. TUN_F_USO tells that it takes joined UDP too.
    offloads: u32,
    /// The super-packet that is being cut, and the index of its next packet.
    staging: Vec<u8>,
    cutting: Option<(SuperPacket, usize)>,
    staged: usize,
    joiner: Joiner,
}

impl Tun {
    fn open(fd: i32) -> Self {
        let wanted = [TUN_F_CSUM | TUN_F_TSO | TUN_F_USO, TUN_F_CSUM | TUN_F_TSO, TUN_F_CSUM];
        let accepted = wanted.into_iter().find(|&offloads| {
            // SAFETY: TUNSETOFFLOAD takes its argument by value.
            unsafe { libc::ioctl(fd, TUNSETOFFLOAD, libc::c_ulong::from(offloads)) == 0 }
        });
        Self {
            fd,
            port: None,
            offloads: accepted.unwrap_or(0),
            staging: vec![0; PACKET_BYTES_MAX + SPILL_BYTES],
            cutting: None,
            staged: 0,
            joiner: Joiner::new(),
        }
    }

    /// Fills rows `from` to `to` - 1, which own slots, and returns how many.
    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> i32 {
        let mut row = from;
        let mut reads_left = BURST_CAPACITY; // ends it too when the device brings nothing but refuse
        while row < to {
            let Some(slot) = arena.slice(block.offset[row], PACKET_BYTES_MAX) else { return -libc::EINVAL };
            let length = if let Some((packet, index)) = self.cutting {
                self.cutting = (index + 1 < packet.count()).then_some((packet, index + 1));
                packet.cut(&self.staging[..self.staged], index, slot)
            } else {
                if reads_left == 0 {
                    break;
                }
                reads_left -= 1;
                match self.read(slot) {
                    Ok(0) => continue,
                    Ok(length) => length,
                    // Nothing there (EAGAIN), or the device is down or gone, which its flags tell.
                    Err(_) => break,
                }
            };
            block.length[row] = length as u32;
            block.next[row] = TO_TUNNEL;
            row += 1;
        }
        (row - from) as i32
    }

    /// The same from what a port has read ahead.
    fn receive_by(
        &mut self,
        port: &mut dyn DeviceReader,
        block: &mut Block,
        arena: &mut Arena,
        from: usize,
        to: usize,
    ) -> i32 {
        let mut row = from;
        let mut messages_left = BURST_CAPACITY;
        while row < to {
            let Some(slot) = arena.slice(block.offset[row], PACKET_BYTES_MAX) else { return -libc::EINVAL };
            if self.cutting.is_none() && messages_left == 0 {
                break;
            }
            let Some(message) = port.device_message() else { break };
            let length = if let Some((packet, index)) = self.cutting {
                self.cutting = (index + 1 < packet.count()).then_some((packet, index + 1));
                packet.cut(&message[OFFLOAD_BYTES..], index, slot)
            } else {
                messages_left -= 1;
                self.take(message, slot)
            };
            if self.cutting.is_none() {
                port.end_device_message();
            }
            if length == 0 {
                continue;
            }
            block.length[row] = length as u32;
            block.next[row] = TO_TUNNEL;
            row += 1;
        }
        (row - from) as i32
    }

    /// Copies a packet into the slot, or begins to cut a super-packet. Returns the packet's bytes; 0 for a super-packet or
    /// a refused packet.
    fn take(&mut self, message: &[u8], slot: &mut [u8]) -> usize {
        let Some((header, packet)) = message.split_at_checked(OFFLOAD_BYTES) else { return 0 };
        // SAFETY: the header's bytes are there, and any are a valid OffloadHeader.
        let offload = unsafe { header.as_ptr().cast::<OffloadHeader>().read_unaligned() };
        if SuperPacket::is_announced(&offload) {
            self.cutting = SuperPacket::parse(&offload, packet).map(|packet| (packet, 0));
            return 0;
        }
        let length = packet.len();
        if length > PACKET_BYTES_MAX {
            return 0;
        }
        slot[..length].copy_from_slice(packet);
        if complete_checksum(&offload, &mut slot[..length]) { length } else { 0 }
    }

    /// Reads what comes next: a packet straight into the slot, or a super-packet into the staging buffer. Returns the
    /// packet's bytes; 0 for a super-packet or a refused packet.
    fn read(&mut self, slot: &mut [u8]) -> Result<usize, Error> {
        let mut offload = OffloadHeader::default();
        let (_, spill) = self.staging.split_at_mut(PACKET_BYTES_MAX);
        let vectors = [
            libc::iovec { iov_base: (&raw mut offload).cast(), iov_len: OFFLOAD_BYTES },
            libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: PACKET_BYTES_MAX },
            libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() },
        ];
        // SAFETY: the vectors describe memory that is borrowed here, and any bytes are a valid OffloadHeader.
        let got = unsafe { libc::readv(self.fd, vectors.as_ptr(), 3) };
        if got < 0 {
            return Err(Error::last_os_error());
        }
        let Some(length) = (got as usize).checked_sub(OFFLOAD_BYTES) else { return Ok(0) };
        if SuperPacket::is_announced(&offload) {
            let start = length.min(PACKET_BYTES_MAX);
            self.staging[..start].copy_from_slice(&slot[..start]);
            self.staged = length;
            self.cutting = SuperPacket::parse(&offload, &self.staging[..length]).map(|packet| (packet, 0));
        } else if length <= PACKET_BYTES_MAX && complete_checksum(&offload, &mut slot[..length]) {
            return Ok(length);
        }
        Ok(0)
    }

    /// Writes the TO_EXIT rows, joined where they can be, and marks each `done` or `failed`. Returns how many failed.
    fn send(&mut self, block: &mut Block, arena: &Arena, count: usize, done: u8, failed: u8) -> i32 {
        let Self { fd, joiner, .. } = self;
        let joins_udp = self.offloads & TUN_F_USO != 0;
        joiner.join(block, arena, count, TO_EXIT, joins_udp);
        let mut failures = 0;
        for group in &joiner.groups {
            if group.rows > 1 && write_joined(*fd, joiner, group, block, arena) {
                joiner.rows(group).for_each(|row| block.next[row] = done);
                continue;
            }
            // One packet, or a super-packet that the kernel would not have: then the packets of it that it will.
            for row in joiner.rows(group) {
                let written = packet_of(block, arena, row).is_some_and(|packet| {
                    write(*fd, &[IoSlice::new(&[0; OFFLOAD_BYTES]), IoSlice::new(packet)])
                });
                block.next[row] = if written { done } else { failed };
                failures += i32::from(!written);
            }
        }
        failures
    }
}

/// Writes one packet or super-packet. Returns whether the kernel took it.
fn write(fd: i32, slices: &[IoSlice]) -> bool {
    // SAFETY: an IoSlice has the layout of an iovec, and what it describes is borrowed.
    unsafe { libc::writev(fd, slices.as_ptr().cast(), slices.len() as i32) >= 0 }
}

/// Writes a group as one super-packet, its payloads from where they are. Returns whether the kernel took it.
fn write_joined(fd: i32, joiner: &Joiner, group: &Group, block: &Block, arena: &Arena) -> bool {
    let mut slices = [IoSlice::new(&[]); 2 + SEGMENTS_MAX];
    let (mut first, mut last): (&[u8], &[u8]) = (&[], &[]);
    for (i, row) in joiner.rows(group).enumerate() {
        // Joining has read it, so it is there.
        last = packet_of(block, arena, row).unwrap_or(&[]);
        first = if i == 0 { last } else { first };
        slices[2 + i] = IoSlice::new(&last[group.header()..]);
    }
    let mut scratch = [0; HEADERS_BYTES_MAX];
    let (offload, header) = group.headers(first, last, &mut scratch);
    // SAFETY: an OffloadHeader is 10 bytes without padding.
    let offload = unsafe { std::slice::from_raw_parts((&raw const offload).cast(), OFFLOAD_BYTES) };
    slices[0] = IoSlice::new(offload);
    slices[1] = IoSlice::new(&scratch[..header]);
    write(fd, &slices[..2 + usize::from(group.rows)])
}

thread_local! {
    static TUNS: RefCell<Table<Tun>> = const { RefCell::new(Table::new()) };
}

fn with_tun(handle: u32, act: impl FnOnce(&mut Tun) -> i32) -> i32 {
    TUNS.with_borrow_mut(|tuns| tuns.get(handle).map_or(-libc::EINVAL, act))
}

/// Takes the descriptor of a TUN device into use, and the offloads that its kernel has. Returns the handle.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tun_open(fd: i32) -> i32 {
    TUNS.with_borrow_mut(|tuns| tuns.insert(Tun::open(fd)))
}

/// From here on this port reads the device ahead, until the port is closed. Returns 0, or -errno where it cannot (-ENOTSUP:
/// no port of that kind, or Linux before 6.7); then nothing has changed.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tun_read_by(handle: u32, port: u32) -> i32 {
    with_tun(handle, |tun| {
        let refused = with_port(port, |port| {
            port.device_reader().map_or(-libc::ENOTSUP, |reader| reader.read_device(tun.fd))
        });
        if refused == 0 {
            tun.port = Some(port);
        }
        refused
    })
}

/// Forgets the descriptor, which stays open.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tun_close(handle: u32) -> i32 {
    TUNS.with_borrow_mut(|tuns| tuns.release(handle))
}

/// Fills rows `from` to `to` - 1, which own slots and begin at their packet's start, with packets of up to `max` bytes,
/// as TO_TUNNEL rows. Returns the rows filled; what the device has beyond stays for the next call.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tun_receive(handle: u32, burst: u32, from: u32, to: u32, max: u32) -> i32 {
    with_tun(handle, |tun| {
        with_burst(burst, |block, arena| {
            let (from, to) = (from as usize, (to as usize).min(BURST_CAPACITY));
            if from > to || max as usize != PACKET_BYTES_MAX {
                return -libc::EINVAL;
            }
            match tun.port {
                Some(port) => with_port(port, |port| {
                    let reader = port.device_reader();
                    reader.map_or(-libc::ENOTSUP, |reader| tun.receive_by(reader, block, arena, from, to))
                }),
                None => tun.receive(block, arena, from, to),
            }
        })
    })
}

/// Writes the TO_EXIT rows and marks each `done` or `failed`. Returns how many failed.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tun_send(handle: u32, burst: u32, count: u32, done: u32, failed: u32) -> i32 {
    with_tun(handle, |tun| {
        with_burst(burst, |block, arena| {
            tun.send(block, arena, (count as usize).min(BURST_CAPACITY), done as u8, failed as u8)
        })
    })
}
