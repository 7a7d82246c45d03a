//! A UDP port by recvmmsg and sendmmsg. Invariant: one call moves a whole burst, and the kernel holds no memory between
//! calls. Never waits, but for a moment when the queue below is full.

use crate::layout::{Arena, Block};
use crate::port::received::{CONTROL_BYTES, MESSAGE_BYTES, Origin};
use crate::port::udp::{Crossing, Socket, transmit};
use crate::port::{About, Port};
use crate::sys::control::Control;
use crate::sys::errno;
use crate::sys::name::Name;
use std::mem::zeroed;

/// Messages of one recvmmsg. With UDP_GRO each may hold up to 64 datagrams.
const MESSAGES: usize = 32;

/// Datagrams that one recvmmsg brought and that no burst has taken yet.
struct Staging {
    buffers: Vec<u8>,
    names: Vec<Name>,
    controls: Vec<Control<CONTROL_BYTES>>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    filled: usize,
    /// Whether the last recvmmsg took all that was there.
    is_drained: bool,
    /// The message, and the byte in it, that the next row takes.
    message: usize,
    at: usize,
}

pub struct MmsgPort {
    socket: Socket,
    staging: Staging,
}

impl Staging {
    fn new() -> Self {
        // SAFETY: for these C structures all zero bytes are a valid value.
        let (header, vector) = unsafe { (zeroed(), zeroed()) };
        let mut staging = Self {
            buffers: vec![0; MESSAGES * MESSAGE_BYTES],
            names: vec![Name::EMPTY; MESSAGES],
            controls: vec![Control::EMPTY; MESSAGES],
            headers: vec![header; MESSAGES],
            vectors: vec![vector; MESSAGES],
            filled: MESSAGES,
            is_drained: false,
            message: 0,
            at: 0,
        };
        // The vectors never grow, so what they hold stays where it is.
        for i in 0..MESSAGES {
            staging.vectors[i] = libc::iovec {
                iov_base: staging.buffers[i * MESSAGE_BYTES..].as_mut_ptr().cast(),
                iov_len: MESSAGE_BYTES,
            };
            let header = &mut staging.headers[i].msg_hdr;
            header.msg_name = staging.names[i].as_mut_ptr().cast();
            header.msg_iov = &raw mut staging.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut staging.controls[i]).cast();
        }
        staging.offer();
        staging
    }

    /// Restores the room in the headers of the messages that the last call filled.
    fn offer(&mut self) {
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_namelen = Name::BYTES;
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            header.msg_hdr.msg_flags = 0;
        }
        self.filled = 0;
        self.message = 0;
        self.at = 0;
    }

    /// Asks the kernel for what is there. Returns whether there was anything.
    fn refill(&mut self, fd: i32) -> bool {
        self.offer();
        let headers = self.headers.as_mut_ptr();
        // SAFETY: every header points at live memory, and `offer` has restored the lengths that it states.
        let got =
            unsafe { libc::recvmmsg(fd, headers, MESSAGES as u32, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
        self.filled = got.max(0) as usize;
        self.is_drained = self.filled < MESSAGES;
        got > 0
    }
}

impl MmsgPort {
    pub fn open(socket: Socket) -> Self {
        Self { socket, staging: Staging::new() }
    }
}

impl Port for MmsgPort {
    fn about(&self) -> About {
        self.socket.about(self.socket.raw_fd())
    }

    fn receive(&mut self, block: &mut Block, arena: &mut Arena, from: usize, to: usize) -> usize {
        let mut row = from;
        self.staging.is_drained = false;
        while row < to {
            let staging = &mut self.staging;
            if staging.message == staging.filled
                && (staging.is_drained || !staging.refill(self.socket.raw_fd()))
            {
                break;
            }
            let message = staging.message;
            let header = &staging.headers[message];
            let control = &staging.controls[message].0[..header.msg_hdr.msg_controllen.min(CONTROL_BYTES)];
            let origin = Origin::read(&staging.names[message], control);
            let start = message * MESSAGE_BYTES;
            let bytes = &staging.buffers[start..start + header.msg_len as usize];
            let (at, next, refused) = origin.deliver(bytes, staging.at, block, arena, row, to);
            let is_whole = at >= bytes.len();
            row = next;
            self.socket.refused += refused;
            staging.at = if is_whole { 0 } else { at };
            staging.message += usize::from(is_whole);
        }
        row
    }

    fn transmit(&mut self, block: &mut Block, arena: &mut Arena, count: usize, done: u8) {
        transmit(self, block, arena, count, done);
    }

    fn take_refused(&mut self) -> u32 {
        self.socket.take_refused()
    }
}

impl Crossing for MmsgPort {
    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn send(&mut self, messages: usize) {
        let socket = &mut self.socket;
        let mut at = 0;
        let mut waited = false;
        while at < messages {
            let left = &mut socket.outgoing.headers[at..messages];
            let (first, count) = (left.as_mut_ptr(), left.len() as u32);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the headers point at names, controls, vectors and arena bytes that live through the call.
            let sent = unsafe { libc::sendmmsg(socket.raw_fd(), first, count, flags) };
            if sent > 0 {
                at += sent as usize;
                continue;
            }
            match errno() {
                libc::EINTR => {}
                libc::EAGAIN | libc::ENOBUFS if !waited => {
                    waited = true;
                    socket.wait_for_room();
                }
                libc::EAGAIN | libc::ENOBUFS => {
                    (at..messages).for_each(|message| socket.lose(message));
                    return;
                }
                reason => {
                    socket.retry_singly(at, reason);
                    at += 1;
                }
            }
        }
    }
}
