//! Inner UDP packets out: the rows of a burst sorted to their flows, runs of equal size as one message, and what the system
//! refuses told to the sender. Invariant: packets of one flow keep their order, and a refused datagram costs itself only.

use crate::flows::datagram::{parse, plain_segment};
use crate::flows::ports::is_flow_port;
use crate::flows::set::{Arrived, CONTROL_BYTES, Flows, Messages, NO_FLOW, NOBODY};
use crate::layout::{Arena, BURST_CAPACITY, Block, TO_EXIT};
use crate::packet::hops_of;
use crate::sys::control::{Control, space_of};
use crate::sys::name::Name;
use crate::sys::{errno, send_message};
use std::mem::zeroed;

/// Datagrams in one message; UDP_MAX_SEGMENTS of the oldest kernels that cut them.
const SEGMENTS_MAX: usize = 64;
/// A run's payload stays below the largest IPv4 packet.
const RUN_BYTES_MAX: usize = 65000;

// Of linux/udp.h; the libc crate has them for few targets.
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

/// Writes the control messages of a datagram: the hops that it begins with, and the size of segments where it has several.
fn write_control(
    header: &mut libc::msghdr,
    control: &mut Control<CONTROL_BYTES>,
    is_ipv6: bool,
    hops: u8,
    segment: Option<u16>,
) {
    let (level, kind) =
        if is_ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    // The hops come first, so that a run that must go out singly keeps them.
    let mut used = control.push(0, level, kind, i32::from(hops));
    if let Some(size) = segment {
        used = control.push(used, SOL_UDP, UDP_SEGMENT, size);
    }
    header.msg_control = (&raw mut *control).cast();
    header.msg_controllen = used;
}

impl Flows {
    /// Sends the TO_EXIT rows that are plain UDP; the others stay. Returns how many flows found no socket at first.
    pub fn send(&mut self, block: &mut Block, arena: &mut Arena, count: usize, now_ms: u32) -> i32 {
        self.starved = 0;
        let mut touched = [NO_FLOW; BURST_CAPACITY];
        let mut flows = 0;
        for row in 0..count {
            let is_hairpin = block.next[row] == self.outcomes.hairpin;
            if block.next[row] != TO_EXIT && !is_hairpin {
                continue;
            }
            let (offset, length) = (block.offset[row], block.length[row]);
            let Some(packet) = arena.slice(offset, length as usize) else { continue };
            let Some(segment) = plain_segment(packet) else { continue };
            let hops = hops_of(packet);
            let Some(datagram) = parse(packet, segment) else {
                block.next[row] = self.outcomes.malformed;
                continue;
            };
            // Whatever else listens on this host is no client's.
            if is_hairpin && !is_flow_port(datagram.key.source.is_ipv6, datagram.to_port) {
                continue;
            }
            self.arrived[row] = Arrived { offset, length, hops };
            // It stays so when its flow gives way to a later row's.
            block.next[row] = self.outcomes.full;
            let Some(index) = self.admit(&datagram, block.peer[row], now_ms) else { continue };
            // From here on the row describes the payload, and its address columns where that goes.
            block.offset[row] += datagram.payload as u32;
            block.length[row] = datagram.bytes as u32;
            for (word, bytes) in block.address[row].iter_mut().zip(datagram.to.as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*bytes);
            }
            block.port[row] = datagram.to_port;
            self.following[row] = NOBODY;
            let Some(flow) = self.flow(index) else { continue };
            let tail = std::mem::replace(&mut flow.tail, row as u16);
            if flow.head == NOBODY {
                flow.head = row as u16;
                touched[flows] = index;
                flows += 1;
            } else {
                self.following[usize::from(tail)] = row as u16;
            }
        }
        for &index in &touched[..flows] {
            self.flush(index, block, arena);
        }
        self.starved
    }

    /// Sends the rows that wait at a flow, runs of equal size to one destination as one message.
    fn flush(&mut self, index: u32, block: &mut Block, arena: &Arena) {
        let Some(flow) = self.flow(index) else { return };
        let (fd, is_ipv6) = (flow.fd, flow.key.source.is_ipv6);
        let mut row = std::mem::replace(&mut flow.head, NOBODY);
        flow.tail = NOBODY;
        let mut first_rows = [NOBODY; BURST_CAPACITY];
        let (mut messages, mut vectors) = (0, 0);
        while row != NOBODY {
            let first = usize::from(row);
            let (next, run) = self.take_run(first, vectors, block, arena);
            row = next;
            if run == 0 {
                continue;
            }
            self.write_header(messages, is_ipv6, block, first, vectors, run);
            vectors += run;
            first_rows[messages] = first as u16;
            messages += 1;
        }
        self.send_messages(index, fd, &first_rows[..messages], block, arena);
    }

    /// Points vectors from `start` on at the datagrams of the run that begins with row `first`, and marks its rows as sent.
    /// Returns the row after it and the datagrams of the run.
    fn take_run(&mut self, first: usize, start: usize, block: &mut Block, arena: &Arena) -> (u16, usize) {
        let size = block.length[first] as usize;
        let (mut row, mut bytes, mut run) = (first as u16, 0, 0);
        while row != NOBODY && run < SEGMENTS_MAX {
            let at = usize::from(row);
            let length = block.length[at] as usize;
            let fits = run == 0
                || self.segments
                    && length > 0
                    && length <= size
                    && bytes + length <= RUN_BYTES_MAX
                    && block.port[at] == block.port[first]
                    && self.arrived[at].hops == self.arrived[first].hops
                    && block.address[at] == block.address[first];
            if !fits {
                break;
            }
            row = self.following[at];
            block.next[at] = self.outcomes.done;
            let Some(data) = arena.pointer(block.offset[at], length) else { break };
            self.sending.vectors[start + run] = libc::iovec { iov_base: data.cast(), iov_len: length };
            run += 1;
            bytes += length;
            if length < size {
                break; // only a run's last may be shorter
            }
        }
        (row, run)
    }

    /// The header of a message whose `run` datagrams have the vectors from `start` on and go where row `first` does.
    fn write_header(
        &mut self,
        message: usize,
        is_ipv6: bool,
        block: &Block,
        first: usize,
        start: usize,
        run: usize,
    ) {
        let Messages { names, controls, headers, vectors } = &mut self.sending;
        let mut address = [0; 16];
        for (bytes, word) in address.as_chunks_mut::<4>().0.iter_mut().zip(block.address[first]) {
            *bytes = word.to_ne_bytes();
        }
        let header = &mut headers[message].msg_hdr;
        header.msg_namelen = names[message].set(is_ipv6, &address, block.port[first]);
        header.msg_name = names[message].as_mut_ptr().cast();
        header.msg_iov = &raw mut vectors[start];
        header.msg_iovlen = run;
        let segment = if run > 1 { Some(block.length[first] as u16) } else { None };
        write_control(header, &mut controls[message], is_ipv6, self.arrived[first].hops, segment);
    }

    /// Sends the first messages, of which each begins with the row beside it; what the system refuses is judged one by one.
    fn send_messages(&mut self, index: u32, fd: i32, first_rows: &[u16], block: &mut Block, arena: &Arena) {
        let messages = first_rows.len();
        let (mut sent, mut is_again) = (0, false);
        while sent < messages {
            // SAFETY: the headers from `sent` on were just pointed at live memory of the lengths they state.
            let taken = unsafe {
                libc::sendmmsg(
                    fd,
                    self.sending.headers[sent..].as_mut_ptr(),
                    (messages - sent) as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if taken > 0 {
                sent += taken as usize;
                is_again = false;
                continue;
            }
            let reason = errno();
            if reason == libc::EINTR {
                continue;
            }
            // What a router said of an earlier datagram fails the next one, which may well arrive.
            if self.hand_on_errors(index) && !std::mem::replace(&mut is_again, true) {
                continue;
            }
            is_again = false;
            if reason == libc::EAGAIN {
                // No room in the socket: what follows would find none either.
                while sent < messages {
                    self.refuse(sent, first_rows[sent], block);
                    sent += 1;
                }
                break;
            }
            self.send_singly(fd, sent, first_rows[sent], block, arena, reason);
            sent += 1;
        }
    }

    fn refuse(&mut self, message: usize, first: u16, block: &mut Block) {
        let mut row = first;
        for _ in 0..self.sending.headers[message].msg_hdr.msg_iovlen {
            block.next[usize::from(row)] = self.outcomes.failed;
            row = self.following[usize::from(row)];
        }
    }

    /// The rows of a message that the kernel would not have as a whole, for `reason`.
    fn send_singly(
        &mut self,
        fd: i32,
        message: usize,
        first: u16,
        block: &mut Block,
        arena: &Arena,
        reason: i32,
    ) {
        let mut header = self.sending.headers[message].msg_hdr;
        let (vectors, run) = (header.msg_iov, header.msg_iovlen);
        let mut row = usize::from(first);
        if run == 1 {
            self.fail(row, block, arena, reason);
            return;
        }
        // Their hops come first; the size of segments behind them goes.
        header.msg_controllen = space_of::<i32>();
        header.msg_iovlen = 1;
        for i in 0..run {
            // SAFETY: the run has `run` vectors in a row.
            header.msg_iov = unsafe { vectors.add(i) };
            // SAFETY: as in `flush`.
            let reason = unsafe { send_message(fd, &header) };
            if reason != 0 {
                self.fail(row, block, arena, reason);
            }
            row = usize::from(self.following[row]);
        }
    }

    /// The system would not send a row's datagram: its sender hears why.
    fn fail(&mut self, row: usize, block: &mut Block, arena: &Arena, reason: i32) {
        block.next[row] = self.outcomes.failed;
        let Arrived { offset, length, .. } = self.arrived[row];
        let Some(start) = arena.pointer(offset, length as usize) else { return };
        // SAFETY: `pointer` checked the range, and nothing writes there meanwhile.
        let packet = unsafe { std::slice::from_raw_parts(start, length as usize) };
        self.report(reason, packet);
    }

    /// Sends one whole packet that lies outside the arena, its UDP header at `segment`. Returns what became of it.
    pub fn send_one(&mut self, packet: &[u8], segment: usize, peer: u32, now_ms: u32) -> u8 {
        let Some(datagram) = parse(packet, segment) else { return self.outcomes.malformed };
        let Some(index) = self.admit(&datagram, peer, now_ms) else { return self.outcomes.full };
        let Some(fd) = self.flow(index).map(|flow| flow.fd) else { return self.outcomes.full };
        let payload = &packet[datagram.payload..datagram.payload + datagram.bytes];
        let (mut name, mut control) = (Name::EMPTY, Control::EMPTY);
        // SAFETY: all zero bytes are a valid msghdr.
        let mut header: libc::msghdr = unsafe { zeroed() };
        let mut vector = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        let is_ipv6 = datagram.key.source.is_ipv6;
        header.msg_namelen = name.set(is_ipv6, &datagram.to, datagram.to_port);
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        write_control(&mut header, &mut control, is_ipv6, hops_of(packet), None);
        for _ in 0..2 {
            // SAFETY: the header points at live memory of the lengths that it states.
            let reason = unsafe { send_message(fd, &header) };
            if reason == 0 {
                return self.outcomes.done;
            }
            if !self.hand_on_errors(index) {
                self.report(reason, packet);
                break;
            }
        }
        self.outcomes.failed
    }
}
