//! The socket of a UDP port: its options, how an outgoing burst goes through it, and what is done about what the kernel
//! refuses. Invariant: what the kernel refuses is counted and delays nobody else's datagrams. How messages cross into the
//! kernel is the matter of mmsg.rs and uring.rs.

use crate::layout::{Arena, Block};
use crate::port::About;
use crate::port::outgoing::{Outgoing, Way};
use crate::port::received::{SOL_UDP, UDP_GRO, UDP_SEGMENT};
use crate::sys::{get_option, local_port, send_message, set_option};
use std::os::fd::{AsRawFd, OwnedFd};

const SOCKET_BUFFER_BYTES: i32 = 8 << 20;

/// As large a buffer as root may have, or else as the system's limit allows.
fn grow_buffers(fd: i32) {
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if !set_option(fd, libc::SOL_SOCKET, force, SOCKET_BUFFER_BYTES) {
            set_option(fd, libc::SOL_SOCKET, plain, SOCKET_BUFFER_BYTES);
        }
    }
}

/// A bound UDP socket, and the messages of the burst that is being sent through it.
pub struct Socket {
    fd: OwnedFd,
    is_ipv6: bool,
    /// Whether UDP_GRO and UDP_SEGMENT are in use.
    pub segments: bool,
    /// Whether the socket is set to send whole (`set_whole`); unknown at first.
    is_whole: Option<bool>,
    /// Datagrams that were refused since the count was last taken.
    pub refused: u32,
    pub outgoing: Outgoing,
}

impl Socket {
    /// Prepares a bound socket, with UDP_GRO and UDP_SEGMENT where `offload` asks for them and the kernel has them.
    pub fn open(owned: OwnedFd, offload: bool) -> Self {
        let fd = owned.as_raw_fd();
        let is_ipv6 = get_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == libc::AF_INET6;
        grow_buffers(fd);
        set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
        if is_ipv6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
            // An IPv6 socket tells IPv4 addresses this way too, as ::ffff:a.b.c.d.
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
        } else {
            set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
        }
        let segments =
            offload && set_option(fd, SOL_UDP, UDP_GRO, 1) && set_option(fd, SOL_UDP, UDP_SEGMENT, 0);
        Self { fd: owned, is_ipv6, segments, is_whole: None, refused: 0, outgoing: Outgoing::new() }
    }

    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// What a port over this socket is, `descriptor` being what its readers wait for.
    pub fn about(&self, descriptor: i32) -> About {
        About {
            descriptor: Some(descriptor),
            local_port: local_port(self.raw_fd()),
            buffer_bytes: get_option(self.raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF) as u32,
            segments: self.segments,
        }
    }

    pub fn take_refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }

    /// Has what is sent from now on leave whole, with DF and whatever the system believes of the path (IP_PMTUDISC_PROBE),
    /// or as is usual (IP_PMTUDISC_WANT). There is no such option for one message.
    fn set_whole(&mut self, is_whole: bool) {
        if self.is_whole == Some(is_whole) {
            return;
        }
        let fd = self.raw_fd();
        let (v4, v6) = if is_whole {
            (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE)
        } else {
            (libc::IP_PMTUDISC_WANT, libc::IPV6_PMTUDISC_WANT)
        };
        // An IPv6 socket sends to IPv4 addresses by the first.
        set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4);
        if self.is_ipv6 {
            set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6);
        }
        self.is_whole = Some(is_whole);
    }

    /// Waits for room in the queue below, for a moment: a longer wait would be everybody's.
    pub fn wait_for_room(&self) {
        let mut entry = libc::pollfd { fd: self.raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: `entry` is valid for one pollfd.
        unsafe { libc::poll(&mut entry, 1, 1) };
    }

    /// Counts a message as lost.
    pub fn lose(&mut self, message: usize) {
        self.refused += self.outgoing.run(message) as u32;
    }

    /// Sends one message, without waiting. Returns 0 or an errno.
    pub fn send(&self, header: &libc::msghdr) -> i32 {
        // SAFETY: `prepare` made the header; names, controls, vectors and arena bytes live through the call.
        unsafe { send_message(self.raw_fd(), header) }
    }

    /// After the kernel refused a message for any other reason than a full queue: sends its datagrams one by one, if
    /// there are several, and counts what is refused again.
    pub fn retry_singly(&mut self, message: usize, reason: i32) {
        if self.outgoing.run(message) == 1 {
            self.refused += 1;
            return;
        }
        // EIO says that the device can make no segments at all.
        if reason == libc::EIO {
            self.segments = false;
        }
        let refused = self.outgoing.singles(message).filter(|header| self.send(header) != 0).count();
        self.refused += refused as u32;
    }
}

/// How a UDP port's messages cross into the kernel.
pub trait Crossing {
    fn socket(&mut self) -> &mut Socket;
    /// Sends the socket's first `messages` messages, each once; what is refused is counted. When it returns, the kernel is
    /// done with the memory that they point to.
    fn send(&mut self, messages: usize);
}

/// What `Port::transmit` is for a port whose messages cross by `port`.
pub fn transmit(port: &mut impl Crossing, block: &mut Block, arena: &Arena, count: usize, done: u8) {
    let groups = port.socket().outgoing.sort(block, count);
    for is_oxtunnel in [false, true] {
        let socket = port.socket();
        let way = Way { is_ipv6: socket.is_ipv6, segments: socket.segments, is_oxtunnel };
        let messages = socket.outgoing.prepare(block, arena, groups, way, done);
        if messages > 0 {
            socket.set_whole(is_oxtunnel);
            port.send(messages);
        }
    }
}
