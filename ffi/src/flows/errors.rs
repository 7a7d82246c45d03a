//! What the system and routers outside say of a flow's datagrams, as ICMP errors for their sender inside. Invariant: errors
//! wait in the same bounded queue as answers beyond the MTU, and reach only the inner source that owns the flow.

use crate::flows::set::{Flow, Flows};
use crate::icmp;
use crate::packet::{UDP_BYTES, ip_bytes, is_ipv6, write_udp_headers};

/// Answers beyond the MTU that wait to be cut into fragments, and ICMP errors.
const LARGE_MAX: usize = 64;
/// Errors of one flow that are handed on at a time.
const REPORTS_MAX: usize = 16;
/// More of a datagram than an ICMP error ever quotes.
const QUOTED_BYTES_MAX: usize = 1280;

impl Flows {
    /// Tells the sender of `packet`, a whole inner packet, why the system would not send it on, an errno.
    pub fn report(&mut self, reason: i32, packet: &[u8]) {
        let kind = icmp::kind_of(is_ipv6(packet), reason);
        if let Some(error) = kind.and_then(|kind| icmp::error(kind, None, packet)) {
            self.keep(error);
        }
    }

    /// Keeps a packet for its client until it is taken, where there is room.
    pub fn keep(&mut self, packet: Vec<u8>) {
        if self.large.len() >= LARGE_MAX {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.large.push_back(packet);
    }

    /// Hands on what the system was told about datagrams of a flow, as ICMP errors to their sender. False when it was told
    /// nothing.
    pub fn hand_on_errors(&mut self, index: u32) -> bool {
        let Some(&mut Flow { key, fd, .. }) = self.flow(index) else { return false };
        let is_ipv6 = key.source.is_ipv6;
        let header = UDP_BYTES + ip_bytes(is_ipv6);
        let mut packet = [0; QUOTED_BYTES_MAX];
        let mut told = false;
        for _ in 0..REPORTS_MAX {
            let Some(report) = icmp::next_report(fd, is_ipv6, &mut packet[header..]) else { break };
            told = true;
            let about = &mut packet[..header + report.payload];
            // As the client sent it; no checksum is known any more.
            write_udp_headers(about, is_ipv6, (&key.source.address, key.port), (&report.to, report.to_port));
            if let Some(error) = icmp::error(report.kind, report.from.as_ref(), about) {
                self.keep(error);
            }
        }
        told
    }
}
