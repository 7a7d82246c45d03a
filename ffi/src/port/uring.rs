//! A UDP port by io_uring: one multishot RECVMSG fills provided buffers as datagrams arrive, and a burst leaves as
//! SENDMSGs that one call submits. The ring is also what a thread waits in, for the port and for others' descriptors.
//! Invariant: the kernel writes only into buffers that this port owns, which outlive the request; when `send` returns,
//! every send has completed; and `wait` does not sleep while something is readable that it has been told to watch.
//! A TUN device is read through the ring too, by READ_MULTISHOT (Linux 6.7): a wake with one packet costs 1.9 µs and with
//! 32 packets 25, by readv(2) after a poll in the ring 2.7 and 31 (`deno task bench:tun`, medians).

use crate::layout::{Arena, BURST_CAPACITY, Block, PACKET_BYTES_MAX};
use crate::port::buffers::{Buffers, PAYLOAD_AT, read_message};
use crate::port::received::{CONTROL_BYTES, MESSAGE_BYTES};
use crate::port::ring::{
    Cqe, IORING_CQE_F_BUFFER, IORING_CQE_F_MORE, IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD,
    IORING_OP_READ_MULTISHOT, IORING_OP_RECVMSG, IORING_OP_SENDMSG, IORING_RECV_MULTISHOT,
    IOSQE_BUFFER_SELECT, Ring, Sqe, blank,
};
use crate::port::udp::{Crossing, Socket, transmit};
use crate::port::{About, DeviceReader, Port, Waiter};
use crate::sys::name::Name;
use std::collections::VecDeque;
use std::mem::{ManuallyDrop, zeroed};

/// Buffers when each may hold up to 64 datagrams, and when each holds one.
const LARGE_BUFFERS: u16 = 32;
const SMALL_BUFFERS: u16 = 256;
/// Buffers for a TUN device, each for a super-packet with its offload header. They are used in turn: twice as many take
/// 2 µs less for 32 packets, and 2 more for a super-packet, which then lies outside the cache.
const DEVICE_BUFFERS: u16 = 16;
const DEVICE_BUFFER_BYTES: usize = 65536 + 64;
/// Others' descriptors that one port may watch.
const WATCHED_MAX: usize = 8;
/// Entries for the requests to receive, to watch and to cancel.
const REQUESTS: u32 = 16;
/// Requests by their `user_data`; those that watch come from WATCH on, in their order.
const RECEIVE: u64 = 1;
const READ: u64 = 2;
const WATCH: u64 = 16;
/// What cancels a request is that request's and this.
const CANCEL: u64 = 1 << 32;
/// Bits of what `wait` returns; those that are watched come behind.
const READY_PORT: i32 = 1;
const READY_DEVICE: i32 = 2;
const READY_WATCHED: i32 = 4;

/// Somebody else's descriptor.
struct Watched {
    fd: i32,
    /// Whether the request that watches it is with the kernel. Without, it counts as readable.
    armed: bool,
}

/// A TUN device whose packets the kernel reads into buffers of ours.
struct Device {
    fd: i32,
    buffers: ManuallyDrop<Buffers>,
    armed: bool,
    /// Buffers that are filled, and with how much, the oldest first.
    filled: VecDeque<(u16, usize)>,
}

pub struct UringPort {
    // Two rings, so that the completions of sends are never among what waits to be received.
    receiving: Ring,
    sending: Ring,
    socket: Socket,
    buffers: ManuallyDrop<Buffers>,
    /// Whether the multishot request is with the kernel.
    armed: bool,
    /// Buffers that are filled, and with how much, the oldest first.
    filled: VecDeque<(u16, usize)>,
    /// The byte of the oldest one's payload that the next row takes.
    at: usize,
    device: Option<Device>,
    watched: Vec<Watched>,
    results: [i32; BURST_CAPACITY],
}

impl UringPort {
    /// Errors are errno values: ENOSYS or EPERM where io_uring is missing or forbidden, EINVAL where it is too old.
    pub fn open(socket: Socket, deferred: bool) -> Result<Self, i32> {
        let (count, payload) =
            if socket.segments { (LARGE_BUFFERS, MESSAGE_BYTES) } else { (SMALL_BUFFERS, PACKET_BYTES_MAX) };
        let sending = Ring::new(BURST_CAPACITY as u32, BURST_CAPACITY as u32, deferred)?;
        // A completion for each buffer, a device's too, and room for what ends requests.
        let completions = (u32::from(count) + u32::from(DEVICE_BUFFERS)).next_power_of_two() + 4 * REQUESTS;
        let receiving = Ring::new(REQUESTS, completions.next_power_of_two(), deferred)?;
        let buffers = Buffers::new(count, (PAYLOAD_AT + payload).next_multiple_of(64))?;
        buffers.register(&receiving, 0)?;
        let mut port = Self {
            receiving,
            sending,
            socket,
            buffers: ManuallyDrop::new(buffers),
            armed: false,
            filled: VecDeque::with_capacity(usize::from(count)),
            at: 0,
            device: None,
            watched: Vec::new(),
            results: [0; BURST_CAPACITY],
        };
        match port.arm() {
            0 => {}
            reason => return Err(reason),
        }
        // A kernel that does not know multishot RECVMSG says so at once.
        match port.receiving.first() {
            Some(Cqe { res, .. }) if res < 0 => Err(-res),
            _ => Ok(port),
        }
    }

    /// Asks for what is there and for whatever arrives from here on. Returns 0 or an errno.
    fn arm(&mut self) -> i32 {
        // SAFETY: all zero bytes are a valid msghdr.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_namelen = Name::BYTES;
        header.msg_controllen = CONTROL_BYTES;
        self.receiving.push(Sqe {
            opcode: IORING_OP_RECVMSG,
            flags: IOSQE_BUFFER_SELECT,
            ioprio: IORING_RECV_MULTISHOT,
            fd: self.socket.raw_fd(),
            // The kernel copies the header as it takes the entry, which is before `enter` returns.
            addr: &raw const header as u64,
            len: 1,
            user_data: RECEIVE,
            ..blank()
        });
        let (taken, reason) = self.receiving.enter(0);
        self.armed = taken == 1;
        reason
    }

    /// Takes rows from the oldest buffer, and gives it back when nothing is left in it. Returns the row that comes next.
    fn take(&mut self, block: &mut Block, arena: &mut Arena, row: usize, to: usize) -> usize {
        let Some(&(id, length)) = self.filled.front() else { return row };
        let (mut is_whole, mut next) = (true, row);
        match read_message(self.buffers.filled(id, length)) {
            Some((origin, payload)) => {
                let (at, after, refused) = origin.deliver(payload, self.at, block, arena, row, to);
                (is_whole, next) = (at >= payload.len(), after);
                self.at = if is_whole { 0 } else { at };
                self.socket.refused += refused;
            }
            None => self.socket.refused += 1,
        }
        if is_whole {
            self.buffers.give(id);
            self.filled.pop_front();
        }
        next
    }

    /// Empties the queue of completions, each to where it belongs. A buffer is in one of the lists at most once, so they
    /// stay within their capacity.
    fn collect(&mut self) {
        while let Some(Cqe { user_data, res, flags }) = self.receiving.first() {
            self.receiving.advance();
            if user_data >= CANCEL {
                if res == -libc::ENOENT {
                    self.disarm(user_data - CANCEL);
                }
                continue;
            }
            if flags & IORING_CQE_F_MORE == 0 {
                self.disarm(user_data);
            }
            // Without a buffer it says only that the request has ended: for want of buffers, or for an error.
            if flags & IORING_CQE_F_BUFFER == 0 {
                continue;
            }
            let filled = ((flags >> 16) as u16, res.max(0) as usize);
            match &mut self.device {
                Some(device) if user_data == READ => device.filled.push_back(filled),
                _ => self.filled.push_back(filled),
            }
        }
    }

    /// Notes that a request is no longer with the kernel.
    fn disarm(&mut self, request: u64) {
        match request {
            RECEIVE => self.armed = false,
            READ => {
                if let Some(device) = &mut self.device {
                    device.armed = false;
                }
            }
            _ => {
                let place = request.wrapping_sub(WATCH) as usize;
                if let Some(watched) = self.watched.get_mut(place) {
                    watched.armed = false;
                }
            }
        }
    }

    /// Asks for what the device has and for whatever it gets from here on.
    fn arm_device(&mut self) {
        let Some(Device { fd, armed, .. }) = &mut self.device else { return };
        self.receiving.push(Sqe {
            opcode: IORING_OP_READ_MULTISHOT,
            flags: IOSQE_BUFFER_SELECT,
            fd: *fd,
            // A device has no offset.
            off: u64::MAX,
            user_data: READ,
            buf_group: 1,
            ..blank()
        });
        *armed = self.receiving.enter(0).0 == 1;
    }

    /// Ends all requests and waits for their ends: after that the kernel writes into no buffer. Else it would keep what
    /// they watch or read open until the ring has gone, some time later: a socket's port or a device's name stays taken.
    fn cancel(&mut self) {
        let mut requests = [0; 2 + WATCHED_MAX];
        let mut left = self.armed_requests(&mut requests);
        for &request in &requests[..left] {
            self.receiving.push(Sqe {
                opcode: IORING_OP_ASYNC_CANCEL,
                addr: request,
                user_data: CANCEL + request,
                ..blank()
            });
        }
        while left > 0 {
            let reason = self.receiving.enter(1).1;
            self.collect();
            left = self.armed_requests(&mut requests);
            if reason != 0 {
                return;
            }
        }
    }

    /// Writes what is with the kernel. Returns how many.
    fn armed_requests(&self, requests: &mut [u64; 2 + WATCHED_MAX]) -> usize {
        let reads = self.device.as_ref().is_some_and(|device| device.armed);
        let own = [(RECEIVE, self.armed), (READ, reads)].into_iter();
        let others = self.watched.iter().zip(WATCH..).map(|(watched, request)| (request, watched.armed));
        let mut count = 0;
        for (request, _) in own.chain(others).filter(|(_, armed)| *armed) {
            requests[count] = request;
            count += 1;
        }
        count
    }

    /// What is ready without asking the kernel.
    fn ready(&self) -> i32 {
        let mut ready = if !self.armed || !self.filled.is_empty() { READY_PORT } else { 0 };
        if self.device.as_ref().is_some_and(|device| !device.armed || !device.filled.is_empty()) {
            ready |= READY_DEVICE;
        }
        ready
    }
}

impl Port for UringPort {
    fn about(&self) -> About {
        // A ring with deferred work polls readable but wakes nobody who already waits in poll(2) (seen on Linux 6.18);
        // but then its datagrams stay in the socket until `receive`. Without, they may be completions before.
        let waits_for = if self.receiving.deferred { self.socket.raw_fd() } else { self.receiving.raw_fd() };
        self.socket.about(waits_for)
    }

    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> usize {
        let mut row = from;
        // A bound for the case that the request ends in an error again and again.
        let mut asks = BURST_CAPACITY;
        while row < to {
            if !self.filled.is_empty() {
                row = self.take(block, arena, row, to);
                continue;
            }
            self.buffers.publish();
            self.collect();
            if !self.filled.is_empty() {
                continue;
            }
            if asks == 0 || self.armed && !self.receiving.has_work() {
                break;
            }
            asks -= 1;
            let reason = if self.armed { self.receiving.enter(0).1 } else { self.arm() };
            if reason != 0 {
                break;
            }
        }
        self.buffers.publish();
        // Even if there was no row to fill: only an armed request makes the descriptor poll readable.
        if !self.armed && self.filled.is_empty() {
            self.arm();
        }
        row
    }

    fn transmit(&mut self, block: &mut Block, arena: &mut Arena, count: usize, done: u8) {
        transmit(self, block, arena, count, done);
    }

    fn take_refused(&mut self) -> u32 {
        self.socket.take_refused()
    }

    fn waiter(&mut self) -> Option<&mut dyn Waiter> {
        Some(self)
    }

    fn device_reader(&mut self) -> Option<&mut dyn DeviceReader> {
        Some(self)
    }
}

impl DeviceReader for UringPort {
    fn read_device(&mut self, fd: i32) -> i32 {
        if self.device.is_some() {
            return -libc::EBUSY;
        }
        let buffers = match Buffers::new(DEVICE_BUFFERS, DEVICE_BUFFER_BYTES) {
            Ok(buffers) => buffers,
            Err(reason) => return -reason,
        };
        if let Err(reason) = buffers.register(&self.receiving, 1) {
            return -reason;
        }
        let filled = VecDeque::with_capacity(usize::from(DEVICE_BUFFERS));
        self.device = Some(Device { fd, buffers: ManuallyDrop::new(buffers), armed: false, filled });
        self.arm_device();
        // A kernel or a descriptor that cannot do it says so at once.
        self.collect();
        if self.device.as_ref().is_some_and(|device| device.armed) {
            return 0;
        }
        // The buffers stay registered, and so stay.
        self.device = None;
        -libc::ENOTSUP
    }

    fn device_message(&mut self) -> Option<&[u8]> {
        if self.device.as_ref()?.filled.is_empty() {
            self.collect();
        }
        let Device { filled, armed, .. } = self.device.as_ref()?;
        if filled.is_empty() {
            if !armed {
                self.arm_device();
            } else if self.receiving.has_work() {
                self.receiving.enter(0);
            }
            self.collect();
        }
        let Device { filled, buffers, .. } = self.device.as_ref()?;
        filled.front().map(|&(id, length)| buffers.filled(id, length))
    }

    fn end_device_message(&mut self) {
        let Some(Device { filled, buffers, .. }) = &mut self.device else { return };
        if let Some((id, _)) = filled.pop_front() {
            buffers.give(id);
            buffers.publish();
        }
    }
}

impl Waiter for UringPort {
    fn watch(&mut self, fd: i32) -> i32 {
        if self.device.as_ref().is_some_and(|device| device.fd == fd) {
            return READY_DEVICE;
        }
        if self.watched.len() == WATCHED_MAX {
            return -libc::ENOSPC;
        }
        self.watched.push(Watched { fd, armed: false });
        READY_WATCHED << (self.watched.len() - 1)
    }

    fn wait(&mut self, timeout_us: u32) -> i32 {
        self.collect();
        let timeout_us = if self.ready() == 0 { timeout_us } else { 0 };
        let mut asked = 0;
        for (place, &Watched { fd, armed }) in self.watched.iter().enumerate() {
            if armed {
                continue;
            }
            asked += 1;
            // Of one shot, and anew after each: then the kernel looks as it takes it whether there is something to read,
            // so what was left unread last time shows again. A multishot request would tell only what comes.
            self.receiving.push(Sqe {
                opcode: IORING_OP_POLL_ADD,
                fd,
                msg_flags: libc::POLLIN as u32,
                user_data: WATCH + place as u64,
                ..blank()
            });
        }
        // Who looks again and again, with nothing new, is not made to pay for a system call.
        if asked > 0 || timeout_us > 0 || self.receiving.has_work() {
            let taken = self.receiving.wait(timeout_us) as usize;
            self.watched
                .iter_mut()
                .filter(|watched| !watched.armed)
                .take(taken)
                .for_each(|watched| watched.armed = true);
        }
        self.collect();
        let mut ready = self.ready();
        for (place, watched) in self.watched.iter().enumerate() {
            ready |= if watched.armed { 0 } else { READY_WATCHED << place };
        }
        ready
    }
}

impl Crossing for UringPort {
    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn send(&mut self, messages: usize) {
        let fd = self.socket.raw_fd();
        for message in 0..messages {
            self.sending.push(Sqe {
                opcode: IORING_OP_SENDMSG,
                fd,
                addr: &raw const self.socket.outgoing.headers[message].msg_hdr as u64,
                len: 1,
                // Then a send completes as it is submitted, at worst with EAGAIN.
                msg_flags: (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32,
                user_data: message as u64,
                ..blank()
            });
        }
        // What the kernel does not take at all is tried again below, like what finds the queue full.
        self.results[..messages].fill(-libc::EAGAIN);
        let mut pending = self.sending.enter(messages as u32).0;
        while pending > 0 {
            let Some(Cqe { user_data, res, .. }) = self.sending.first() else {
                self.sending.enter(pending);
                continue;
            };
            self.results[user_data as usize % BURST_CAPACITY] = res;
            self.sending.advance();
            pending -= 1;
        }
        if self.results[..messages].iter().any(|result| *result < 0) {
            self.handle_refusals(messages);
        }
    }
}

impl UringPort {
    /// Tries once more what found a full queue, unless something later has already gone to the same destination; and
    /// what was refused for another reason in single datagrams.
    fn handle_refusals(&mut self, messages: usize) {
        let Self { socket, results, .. } = self;
        let mut overtaken = None;
        for message in (0..messages).rev() {
            match -results[message] {
                libc::EAGAIN | libc::ENOBUFS if overtaken == Some(socket.outgoing.group[message]) => {
                    socket.lose(message);
                    results[message] = 0;
                }
                reason if reason <= 0 => overtaken = Some(socket.outgoing.group[message]),
                _ => {}
            }
        }
        let mut waited = false;
        for (message, result) in results[..messages].iter().enumerate() {
            let mut reason = -result;
            if matches!(reason, libc::EAGAIN | libc::ENOBUFS) {
                if !waited {
                    waited = true;
                    socket.wait_for_room();
                }
                reason = socket.send(&socket.outgoing.headers[message].msg_hdr);
            }
            match reason {
                ..=0 => {}
                libc::EAGAIN | libc::ENOBUFS => socket.lose(message),
                _ => socket.retry_singly(message, reason),
            }
        }
    }
}

impl Drop for UringPort {
    fn drop(&mut self) {
        self.cancel();
        // While a request may run its buffers must stay: then they leak.
        if let Some(device) = self.device.as_mut().filter(|device| !device.armed) {
            // SAFETY: dropped once, here, and used no more.
            unsafe { ManuallyDrop::drop(&mut device.buffers) };
        }
        if !self.armed {
            // SAFETY: the same.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}
