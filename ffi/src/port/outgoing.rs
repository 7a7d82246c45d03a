//! An outgoing burst as messages for sendmmsg(2) or SENDMSG: rows grouped by destination and source, runs of equal size as
//! one message for UDP_SEGMENT. Invariant: datagrams to one destination keep their order, and every pointer of a message
//! leads into this memory or the burst's arena. Sends nothing: udp.rs and the ports do.

use crate::layout::{Arena, BURST_CAPACITY, Block, TO_TRANSMIT};
use crate::port::received::{CONTROL_BYTES, ECN_MASK, SOL_UDP, UDP_SEGMENT};
use crate::sys::control::Control;
use crate::sys::name::{MAPPED, Name, UNKNOWN, bytes_of};
use std::mem::zeroed;

/// UDP_MAX_SEGMENTS of the oldest kernels that have UDP_SEGMENT.
const SEGMENTS_MAX: usize = 64;
/// A run's payload stays below the largest IPv4 packet.
const RUN_BYTES_MAX: usize = 65000;
/// This bit of the first byte makes a datagram OxTunnel's, which finds out what each path takes and so must not be cut
/// into fragments by this host. WireGuard's may be: it does not look.
const OXTUNNEL: u8 = 0x40;
const GROUPS: usize = 2 * BURST_CAPACITY;
const NOBODY: u16 = u16::MAX;

/// How messages are made.
#[derive(Clone, Copy)]
pub struct Way {
    /// Of the socket.
    pub is_ipv6: bool,
    /// Whether several datagrams may go as one message.
    pub segments: bool,
    /// Whether messages are made of OxTunnel's datagrams, or of WireGuard's.
    pub is_oxtunnel: bool,
}

/// The messages of the burst that is being sent.
pub struct Outgoing {
    /// Rows of one destination are a list, in their order: heads by group, then row to row.
    group_of: [u16; GROUPS],
    head: [u16; BURST_CAPACITY],
    tail: [u16; BURST_CAPACITY],
    following: [u16; BURST_CAPACITY],
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_BYTES>>,
    /// Control bytes of a message whose datagrams go out one by one.
    single_control: [usize; BURST_CAPACITY],
    /// The group that each message belongs to.
    pub group: [u16; BURST_CAPACITY],
    /// The messages; with how much of each went out, for sendmmsg.
    pub headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

impl Outgoing {
    pub fn new() -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (header, vector) = unsafe { (zeroed(), zeroed()) };
        Self {
            group_of: [NOBODY; GROUPS],
            head: [NOBODY; BURST_CAPACITY],
            tail: [NOBODY; BURST_CAPACITY],
            following: [NOBODY; BURST_CAPACITY],
            names: vec![Name::EMPTY; BURST_CAPACITY],
            controls: vec![Control::EMPTY; BURST_CAPACITY],
            single_control: [0; BURST_CAPACITY],
            group: [NOBODY; BURST_CAPACITY],
            headers: vec![header; BURST_CAPACITY],
            vectors: vec![vector; BURST_CAPACITY],
        }
    }

    /// Sorts the rows to transmit into lists by destination and source. Returns the number of lists.
    pub fn sort(&mut self, block: &Block, count: usize) -> usize {
        self.group_of.fill(NOBODY);
        let mut groups = 0;
        for row in 0..count {
            if block.next[row] != TO_TRANSMIT {
                continue;
            }
            let (address, port, local) = (&block.address[row], block.port[row], &block.local[row]);
            let mut slot = (address[0] ^ address[1].rotate_left(7) ^ address[2].rotate_left(13))
                .wrapping_add(address[3])
                .wrapping_add(u32::from(port) << 16 | u32::from(port))
                .wrapping_mul(0x9e37_79b1) as usize
                >> 16
                & (GROUPS - 1);
            self.following[row] = NOBODY;
            loop {
                let group = self.group_of[slot];
                if group == NOBODY {
                    self.group_of[slot] = groups as u16;
                    self.head[groups] = row as u16;
                    self.tail[groups] = row as u16;
                    groups += 1;
                    break;
                }
                let first = self.head[group as usize] as usize;
                if block.address[first] == *address
                    && block.port[first] == port
                    && block.local[first] == *local
                {
                    self.following[self.tail[group as usize] as usize] = row as u16;
                    self.tail[group as usize] = row as u16;
                    break;
                }
                slot = (slot + 1) & (GROUPS - 1);
            }
        }
        groups
    }

    /// Makes messages of the sorted rows whose destinations speak the protocol that `way` names, and marks the rows
    /// `done`. Returns the number of messages; their headers point into the arena.
    pub fn prepare(&mut self, block: &mut Block, arena: &Arena, groups: usize, way: Way, done: u8) -> usize {
        let mut messages = 0;
        let mut vectors = 0;
        for group in 0..groups {
            let mut row = self.head[group];
            // SAFETY: the pointer is valid for one byte. An end speaks one protocol but for a moment.
            let byte = arena.pointer(block.offset[row as usize], 1).map_or(0, |byte| unsafe { *byte });
            if (byte & OXTUNNEL != 0) != way.is_oxtunnel {
                continue;
            }
            while row != NOBODY {
                let first = row as usize;
                let size = block.length[first] as usize;
                let (mut bytes, mut run, start) = (0, 0, vectors);
                // A run: equal sizes, of which the last may be shorter, and one ECN.
                while row != NOBODY && run < SEGMENTS_MAX {
                    let at = row as usize;
                    let length = block.length[at] as usize;
                    let fits = run == 0
                        || way.segments
                            && length > 0
                            && length <= size
                            && bytes + length <= RUN_BYTES_MAX
                            && block.ecn[at] == block.ecn[first];
                    if !fits {
                        break;
                    }
                    row = self.following[at];
                    block.next[at] = done;
                    let Some(data) = arena.pointer(block.offset[at], length) else { continue };
                    self.vectors[vectors] = libc::iovec { iov_base: data.cast(), iov_len: length };
                    vectors += 1;
                    run += 1;
                    bytes += length;
                    if length < size {
                        break;
                    }
                }
                if run == 0 {
                    continue;
                }
                self.group[messages] = group as u16;
                self.write_header(messages, block, way.is_ipv6, first, start, run);
                messages += 1;
            }
        }
        messages
    }

    /// The header of a message whose `run` datagrams have the vectors from `start` on and go where row `first` does.
    fn write_header(
        &mut self,
        message: usize,
        block: &Block,
        is_ipv6: bool,
        first: usize,
        start: usize,
        run: usize,
    ) {
        let name = &mut self.names[message];
        let (address, local, ecn) = (&block.address[first], &block.local[first], block.ecn[first]);
        let name_length = name.set_words(is_ipv6, address, block.port[first]);
        let control = &mut self.controls[message];
        let mut used = 0;
        // The segments' size comes last, so that a run that must go out singly keeps what is before it.
        if ecn != 0 {
            let value = i32::from(ecn & ECN_MASK);
            used = if address[..3] == MAPPED {
                control.push(used, libc::IPPROTO_IP, libc::IP_TOS, value)
            } else {
                control.push(used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value)
            };
        }
        if *local != UNKNOWN {
            used = if is_ipv6 {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: bytes_of(local) },
                    ipi6_ifindex: 0,
                };
                control.push(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
            } else {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: local[3].to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                control.push(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
            };
        }
        self.single_control[message] = used;
        if run > 1 {
            let size = self.vectors[start].iov_len as u16;
            used = control.push(used, SOL_UDP, UDP_SEGMENT, size);
        }
        let header = &mut self.headers[message].msg_hdr;
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = name_length;
        header.msg_iov = &raw mut self.vectors[start];
        header.msg_iovlen = run;
        header.msg_control = if used > 0 { (&raw mut *control).cast() } else { std::ptr::null_mut() };
        header.msg_controllen = used;
        header.msg_flags = 0;
    }

    /// Datagrams of a message.
    pub fn run(&self, message: usize) -> usize {
        self.headers[message].msg_hdr.msg_iovlen
    }

    /// The headers under which a message's datagrams go out one by one.
    pub fn singles(&self, message: usize) -> impl Iterator<Item = libc::msghdr> {
        let mut header = self.headers[message].msg_hdr;
        let (vectors, run) = (header.msg_iov, header.msg_iovlen);
        header.msg_controllen = self.single_control[message];
        if header.msg_controllen == 0 {
            header.msg_control = std::ptr::null_mut();
        }
        header.msg_iovlen = 1;
        (0..run).map(move |i| {
            // SAFETY: the run has `run` vectors in a row.
            header.msg_iov = unsafe { vectors.add(i) };
            header
        })
    }
}
