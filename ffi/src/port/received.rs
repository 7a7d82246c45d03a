//! What a UDP socket brought, on its way into rows: who sent it, to which address and under which ECN, and the datagrams
//! that UDP_GRO put together taken apart again. Invariant: a datagram that fits no slot is counted and refused, not cut,
//! and no row refers to the message's memory.

use crate::layout::{Arena, Block, PACKET_BYTES_MAX, TO_PARSE};
use crate::sys::control::messages;
use crate::sys::name::{Name, UNKNOWN, mapped, words_of};

/// The largest UDP payload, rounded up: what UDP_GRO may put together.
pub const MESSAGE_BYTES: usize = 65536;
/// Room for every control message that a port's socket asks for.
pub const CONTROL_BYTES: usize = 128;
pub const ECN_MASK: u8 = 3;

// Of linux/udp.h; the libc crate has them for few targets.
pub const SOL_UDP: i32 = 17;
pub const UDP_SEGMENT: i32 = 103;
pub const UDP_GRO: i32 = 104;

/// What is known of a received message.
pub struct Origin {
    address: [u32; 4],
    port: u16,
    /// The address that it came to; zeros when the kernel does not say.
    local: [u32; 4],
    /// Size of the datagrams that UDP_GRO put together; 0 when there is one.
    segment: usize,
    ecn: u8,
}

impl Origin {
    /// From the name, and from the control messages that the kernel has written.
    pub fn read(name: &Name, control: &[u8]) -> Self {
        let (address, port) = name.words();
        let mut origin = Self { address, port, local: UNKNOWN, segment: 0, ecn: 0 };
        for message in messages(control) {
            match (message.level, message.kind) {
                (SOL_UDP, UDP_GRO) => {
                    origin.segment = message.read::<i32>().unwrap_or(0).max(0) as usize;
                }
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    origin.ecn = message.data.first().map_or(0, |byte| byte & ECN_MASK);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // ipi_spec_dst is an address of this host even when the datagram was for all hosts.
                    let info = message.read::<libc::in_pktinfo>();
                    origin.local =
                        info.map_or(UNKNOWN, |info| mapped(info.ipi_spec_dst.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = message.read::<libc::in6_pktinfo>();
                    origin.local = info.map_or(UNKNOWN, |info| words_of(info.ipi6_addr.s6_addr));
                }
                _ => {}
            }
        }
        origin
    }

    // Why by copy: the 24 ns of 1200 bytes are 2 to 3 % of a hop at the very most, and they bring the bytes into the cache,
    // which the cipher would otherwise wait for. Rows that point into the message instead would own no headroom and no
    // tail: a longer header for the next peer (OxTunnel's 6 to 9 bytes in, WireGuard's 16 out), a report in front of a
    // packet or an ICMP error would overwrite the sealed tail of the row before, and one waiting row would keep 64 KB.
    /// Copies the message's datagrams from byte `at` on into the rows from `row` to `to` - 1, which own slots. Returns
    /// the byte and the row that come next, and how many fitted no slot.
    pub fn deliver(
        &self,
        message: &[u8],
        mut at: usize,
        block: &mut Block,
        arena: &mut Arena,
        mut row: usize,
        to: usize,
    ) -> (usize, usize, u32) {
        let size = if self.segment == 0 { message.len() } else { self.segment };
        let mut refused = 0;
        loop {
            let length = size.min(message.len() - at);
            match arena.slice(block.offset[row], length) {
                Some(target) if length <= PACKET_BYTES_MAX => {
                    target.copy_from_slice(&message[at..at + length]);
                    block.length[row] = length as u32;
                    block.address[row] = self.address;
                    block.port[row] = self.port;
                    block.local[row] = self.local;
                    block.ecn[row] = self.ecn;
                    block.next[row] = TO_PARSE;
                    row += 1;
                }
                _ => refused += 1,
            }
            at += length;
            if at >= message.len() || row == to {
                return (at, row, refused);
            }
        }
    }
}
