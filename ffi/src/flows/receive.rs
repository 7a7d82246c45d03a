//! Answers in: datagrams of the flows that epoll says are ready become inner packets for the source that owns the flow.
//! Invariant: an answer goes only to the inner source whose socket it came to, and one beyond the MTU waits in a bounded
//! queue to be cut into fragments by the caller. Never waits.

use crate::flows::datagram::{Key, is_loopback};
use crate::flows::set::{
    ANSWER_BYTES_MAX, CONTROL_BYTES, EVENTS, Flow, Flows, MESSAGES, Messages, SPILL_BYTES,
};
use crate::layout::{Arena, Block, TO_TUNNEL};
use crate::packet::{UDP_BYTES, ip_bytes, write_udp_headers};
use crate::sys::control::messages;
use crate::sys::name::Name;

/// Bit of what `ox_flows_poll` returns; a watched descriptor's own come behind.
const READY_FLOWS: u32 = 1;

impl Flows {
    /// Asks what is ready; bits as READY_FLOWS and `ox_flows_watch` have them.
    pub fn poll(&mut self) -> u32 {
        if self.at < self.ready {
            return READY_FLOWS;
        }
        // SAFETY: `events` is valid and writable for EVENTS entries.
        let count = unsafe { libc::epoll_wait(self.epoll, self.events.as_mut_ptr(), EVENTS as i32, 0) };
        let mut bits = 0;
        (self.at, self.ready) = (0, 0);
        for i in 0..count.max(0) as usize {
            let event = self.events[i];
            if event.u64 >> 32 == 0 {
                bits |= 1 << event.u64;
            } else {
                self.events[self.ready] = event;
                self.ready += 1;
                bits |= READY_FLOWS;
            }
        }
        bits
    }

    /// Fills rows `from` to `to` - 1, which own slots, from the flows that `poll` found ready. Returns how many.
    pub fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> i32 {
        let mut row = from;
        while row < to && self.at < self.ready {
            let (flags, data) = (self.events[self.at].events, self.events[self.at].u64);
            self.at += 1;
            let index = data as u32;
            if self.flow(index).is_some_and(|flow| u64::from(flow.generation) == data >> 32) {
                if flags & libc::EPOLLERR as u32 != 0 {
                    self.hand_on_errors(index);
                }
                row += self.read(index, block, arena, row, (to - row).min(MESSAGES));
            }
        }
        (row - from) as i32
    }

    /// Points message `i` at the packet of row `row + i`, behind room for its headers, and at the spill memory behind that.
    /// False when a row's slot is not in the arena.
    fn offer(&mut self, header: usize, block: &Block, arena: &Arena, row: usize, room: usize) -> bool {
        let Messages { names, controls, headers, vectors } = &mut self.receiving;
        for i in 0..room {
            let Some(packet) = arena.pointer(block.offset[row + i], self.mtu) else { return false };
            // SAFETY: a packet has more bytes than its headers, which the MTU's least value guarantees.
            let payload = unsafe { packet.add(header) };
            vectors[2 * i] = libc::iovec { iov_base: payload.cast(), iov_len: self.mtu - header };
            let spill = self.spill[i * SPILL_BYTES..].as_mut_ptr();
            vectors[2 * i + 1] = libc::iovec { iov_base: spill.cast(), iov_len: SPILL_BYTES };
            let message = &mut headers[i].msg_hdr;
            message.msg_name = names[i].as_mut_ptr().cast();
            message.msg_namelen = Name::BYTES;
            message.msg_iov = &raw mut vectors[2 * i];
            message.msg_iovlen = 2;
            message.msg_control = (&raw mut controls[i]).cast();
            message.msg_controllen = CONTROL_BYTES;
        }
        true
    }

    /// Reads up to `room` datagrams of a flow into the rows from `row` on. Returns how many became rows.
    fn read(&mut self, index: u32, block: &mut Block, arena: &mut Arena, row: usize, room: usize) -> usize {
        let Some(&mut Flow { key, fd, used_loopback, .. }) = self.flow(index) else { return 0 };
        let is_ipv6 = key.source.is_ipv6;
        let header = UDP_BYTES + ip_bytes(is_ipv6);
        if !self.offer(header, block, arena, row, room) {
            return 0;
        }
        let (flags, forever) = (libc::MSG_DONTWAIT, std::ptr::null_mut());
        let headers = self.receiving.headers.as_mut_ptr();
        // SAFETY: `offer` pointed every header at live memory of the lengths it states.
        let got = unsafe { libc::recvmmsg(fd, headers, room as u32, flags, forever) };
        let mut filled = 0;
        for i in 0..got.max(0) as usize {
            let bytes = self.receiving.headers[i].msg_len as usize;
            if let Some(count) = self.overflowed(i) {
                self.count_overflow(index, count);
            }
            let (from, from_port) = self.receiving.names[i].get(is_ipv6);
            // Everyone outside may answer (endpoint-independent filtering); programs of this host only when asked.
            if !used_loopback && is_loopback(is_ipv6, &from) {
                continue;
            }
            let total = header + bytes;
            if total > self.mtu {
                let start = arena.slice(block.offset[row + i], self.mtu);
                self.keep_large(i, &from, from_port, &key, start, bytes);
                continue;
            }
            // Rows that were passed over stay behind those that are filled, with their slots.
            block.slot.swap(row + filled, row + i);
            block.offset.swap(row + filled, row + i);
            let Some(packet) = arena.slice(block.offset[row + filled], total) else { continue };
            write_udp_headers(packet, is_ipv6, (&from, from_port), (&key.source.address, key.port));
            block.length[row + filled] = total as u32;
            block.next[row + filled] = TO_TUNNEL;
            filled += 1;
        }
        filled
    }

    /// The kernel's count of datagrams without room that came with a message, if the socket has lost any.
    fn overflowed(&self, message: usize) -> Option<u32> {
        let written = self.receiving.headers[message].msg_hdr.msg_controllen.min(CONTROL_BYTES);
        messages(&self.receiving.controls[message].0[..written])
            .find(|message| (message.level, message.kind) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL))?
            .read()
    }

    fn count_overflow(&mut self, index: u32, count: u32) {
        let Some(flow) = self.flow(index) else { return };
        let more = count.wrapping_sub(std::mem::replace(&mut flow.overflowed, count));
        self.lost = self.lost.saturating_add(more);
    }

    /// Makes a whole packet of a datagram of which `start` has the first part, behind room for headers.
    fn keep_large(
        &mut self,
        message: usize,
        from: &[u8; 16],
        from_port: u16,
        to: &Key,
        start: Option<&mut [u8]>,
        bytes: usize,
    ) {
        let Some(start) = start else { return };
        if bytes > ANSWER_BYTES_MAX {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let is_ipv6 = to.source.is_ipv6;
        let header = UDP_BYTES + ip_bytes(is_ipv6);
        let spilled = message * SPILL_BYTES;
        let mut packet = start.to_vec();
        packet.extend_from_slice(&self.spill[spilled..spilled + header + bytes - start.len()]);
        write_udp_headers(&mut packet, is_ipv6, (from, from_port), (&to.source.address, to.port));
        self.keep(packet);
    }
}
