//! Forwards of UDP: flows whose port outside is told, which strangers may use before their peer has sent anything. Invariant: a
//! pinned flow ends by `unpin` or with its source, never for want of room or by idle time, and a port that another program
//! has is refused and not replaced.

use crate::flows::datagram::{Key, Source};
use crate::flows::set::{Flow, Flows, bind_first};
use crate::layout::Owner;

/// The most pinned flows of a set.
const PINS_MAX: usize = 8192;

/// The key of a source whose address is given with IPv4 mapped.
pub fn key_of(address: u128, port: u16) -> Key {
    let is_ipv6 = address >> 32 != 0xffff;
    let mut bytes = address.to_be_bytes();
    if !is_ipv6 {
        bytes = ((address as u32 as u128) << 96).to_be_bytes();
    }
    Key { source: Source { is_ipv6, address: bytes }, port }
}

impl Flows {
    /// Gives a source the port outside, in place of the flow that it may have and of the forward that had the port here. Err is
    /// the errno, EADDRINUSE for a port that is another's: a program's, or by chance another source's flow's. The flows are as
    /// before then, but for what had the port here.
    pub fn pin(&mut self, key: Key, outer_port: u16) -> Result<(), i32> {
        let is_ipv6 = key.source.is_ipv6;
        let present = self.by_key.get(&key).copied();
        let own = present.and_then(|index| self.flow(index)).map(|flow| (flow.is_pinned, flow.outer_port));
        if own == Some((true, outer_port)) {
            return Ok(());
        }
        let pinned = self.flows.iter().flatten().filter(|flow| flow.is_pinned).count();
        if pinned - usize::from(own.is_some_and(|(is_pinned, _)| is_pinned)) >= PINS_MAX {
            return Err(libc::ENOSPC);
        }
        let has_port = |flow: &Flow| flow.outer_port == outer_port && flow.key.source.is_ipv6 == is_ipv6;
        let holder = self.flows.iter().position(|flow| flow.as_ref().is_some_and(has_port)).map(|at| at as u32);
        if let Some((index, flow)) = holder.and_then(|index| self.flow(index).map(|flow| (index, flow))) {
            // Strangers know who is behind it, and whoever asks for a port must not become them.
            if !flow.is_pinned && flow.key.source != key.source {
                return Err(libc::EADDRINUSE);
            }
            self.end(index);
        }
        let opened = bind_first(is_ipv6, &[outer_port])?;
        if let Some(&index) = self.by_key.get(&key) {
            self.end(index);
        }
        let owner = Owner::Address(key.source.mapped());
        self.insert(key, owner, opened, true).map(|_| ()).ok_or(libc::ENOMEM)
    }

    /// Ends a pinned flow; nothing happens to any other.
    pub fn unpin(&mut self, key: Key) {
        if let Some(&index) = self.by_key.get(&key) {
            if self.flow(index).is_some_and(|flow| flow.is_pinned) {
                self.end(index);
            }
        }
    }
}

#[test]
fn a_key_is_that_of_a_packets_source() {
    let four = key_of(u128::from(std::net::Ipv4Addr::new(10, 66, 0, 2).to_ipv6_mapped()), 7);
    assert_eq!(
        (four.source.is_ipv6, &four.source.address[..5], four.port),
        (false, &[10, 66, 0, 2, 0][..], 7)
    );
    let six = key_of(0xfd00_u128 << 112 | 2, 7);
    assert_eq!((six.source.is_ipv6, six.source.mapped()), (true, 0xfd00_u128 << 112 | 2));
}
