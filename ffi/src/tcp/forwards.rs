//! Forwards of TCP: sockets that listen for a peer, whose connections are called into the tunnel. Invariant: strangers have a share
//! of their own, so that they take nothing from the peer's own connections and make nobody's give way; a connection whose
//! call the peer refuses is reset, and one from this host's loopback, too. Decides nothing about who may have a port.

use super::*;
use crate::far_socket::{accept, listen};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// What epoll tells of a listening socket by; no flow has this generation.
pub(super) const DOOR_GENERATION: u32 = u32::MAX;
/// Ports of one splice.
const DOORS_MAX: usize = 8192;
/// Connections that one port may bring before others have their turn.
const ACCEPTS: usize = 16;
/// Strangers of one peer may have this part of all flows.
const STRANGERS_SHARE: usize = 16;

pub(super) struct Door {
    socket: OwnedFd,
    is_ipv6: bool,
    outer_port: u16,
    /// Whose connections these are, IPv4 mapped.
    inner: u128,
    inner_port: u16,
}

fn address_of(mapped: u128) -> IpAddr {
    std::net::Ipv6Addr::from(mapped).to_canonical()
}

impl Splice {
    /// Listens at a port outside for a peer, in place of who had the port here. Err is the errno, EADDRINUSE for a port that is another's.
    pub(super) fn open_door(&mut self, inner: u128, inner_port: u16, outer_port: u16) -> Result<(), i32> {
        let is_ipv6 = address_of(inner).is_ipv6();
        self.close_door(is_ipv6, outer_port);
        if self.doors.iter().flatten().count() >= DOORS_MAX {
            return Err(libc::ENOSPC);
        }
        let socket = listen(is_ipv6, outer_port)?;
        let place = self.doors.iter().position(Option::is_none).unwrap_or(self.doors.len());
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: u64::from(DOOR_GENERATION) << 32 | place as u64,
        };
        // SAFETY: `event` is valid; the kernel copies it.
        if unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event) } < 0 {
            return Err(errno());
        }
        if place == self.doors.len() {
            self.doors.push(None);
        }
        self.doors[place] = Some(Door { socket, is_ipv6, outer_port, inner, inner_port });
        Ok(())
    }

    /// Closes a port and resets what came by it.
    pub(super) fn close_door(&mut self, is_ipv6: bool, outer_port: u16) {
        let is_it = |door: &Door| door.is_ipv6 == is_ipv6 && door.outer_port == outer_port;
        let Some(door) =
            self.doors.iter_mut().find(|door| door.as_ref().is_some_and(is_it)).and_then(Option::take)
        else {
            return;
        };
        for index in 0..self.flows.len() {
            let Some(flow) = self.flows[index].as_mut() else { continue };
            if flow.owner != Owner::Address(door.inner) || flow.key.source_port != door.inner_port {
                continue;
            }
            if let Stage::Open(connection) = &mut flow.stage {
                connection.abort(&mut self.outbox);
            }
            self.end(index, true);
        }
    }

    /// Closes the ports of every peer in a prefix.
    pub(super) fn close_doors_of(&mut self, prefix: u128, bits: u32) {
        for door in &mut self.doors {
            if door.as_ref().is_some_and(|door| lies_in(door.inner, prefix, bits)) {
                *door = None;
            }
        }
    }

    /// Takes connections that wait at a port.
    pub(super) fn take_strangers(&mut self, place: usize, now_us: i64) {
        for _ in 0..ACCEPTS {
            let Some(Some(door)) = self.doors.get(place) else { return };
            let owner = Owner::Address(door.inner);
            let held = self.sources.get(&owner).map_or(0, |source| source.flows);
            // Many peers' strangers together may not have more than one peer's, as in `ingest_new`.
            let crowd = held.max(self.by_key.len() / SOURCE_SHARE);
            let Some((socket, from)) = accept(door.socket.as_raw_fd(), door.is_ipv6, crowd) else { return };
            let key = Key {
                source: address_of(door.inner),
                source_port: door.inner_port,
                destination: from.ip(),
                destination_port: from.port(),
            };
            let fd = socket.into_raw_fd();
            let has_room =
                held < (self.max_flows / STRANGERS_SHARE).max(1) && self.by_key.len() < self.max_flows;
            if from.ip().is_loopback()
                || !has_room
                || !self.has_memory(owner)
                || self.by_key.contains_key(&key)
            {
                self.crowded += u32::from(!has_room);
                close_with_reset(fd);
                continue;
            }
            self.call_in(key, owner, fd, now_us);
        }
    }

    /// Calls the peer for a connection that came by one of its ports.
    fn call_in(&mut self, key: Key, owner: Owner, fd: i32, now_us: i64) {
        // Only to be watched first: a call takes memory.
        let Some(index) = self.place(key, owner, fd, Stage::Connecting { syn: Vec::new() }, now_us) else {
            return close_with_reset(fd);
        };
        let source = self.sources.get_mut(&owner).expect("a flow has a source");
        let mut purse = Purse { total: &mut self.buffers, source: &mut source.buffers };
        let connection = Connection::call(key, self.mtu, &mut purse, now_us);
        let flow = self.flows[index].as_mut().expect("a live flow");
        flow.stage = Stage::Open(Box::new(connection));
        flow.writable = true;
        self.attend(index, now_us);
    }
}
