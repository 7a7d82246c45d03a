//! Buffers that an io_uring request fills by itself (linux/io_uring.h, provided buffer rings). Invariant: a buffer is with the
//! kernel or with its owner, never both; the memory outlives every request that may write to it, which is for the owner to
//! see to.

use crate::port::received::{CONTROL_BYTES, Origin};
use crate::port::ring::{BufferRegistration, ProvidedBuffer, Ring};
use crate::sys::mapping::Mapping;
use crate::sys::name::Name;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU16, Ordering};

/// struct io_uring_recvmsg_out, before name, control messages and payload in a buffer.
#[repr(C)]
struct Received {
    name_bytes: u32,
    control_bytes: u32,
    payload_bytes: u32,
    flags: u32,
}

const NAME_AT: usize = size_of::<Received>();
const CONTROL_AT: usize = NAME_AT + Name::BYTES as usize;
/// Where the payload of a received datagram begins in its buffer.
pub const PAYLOAD_AT: usize = CONTROL_AT + CONTROL_BYTES;
/// Buffers that the kernel takes for what arrives, and the ring in which it finds them.
pub struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    bytes: usize,
    tail: u16,
}

impl Buffers {
    pub fn new(count: u16, bytes: usize) -> Result<Self, i32> {
        let ring = Mapping::new(usize::from(count) * size_of::<ProvidedBuffer>(), None, 0)?;
        let memory = Mapping::new(usize::from(count) * bytes, None, 0)?;
        let mut buffers = Self { ring, memory, count, bytes, tail: 0 };
        (0..count).for_each(|id| buffers.give(id));
        buffers.publish();
        Ok(buffers)
    }

    /// Lets the kernel have a buffer (again), once published.
    pub fn give(&mut self, id: u16) {
        let entry = usize::from(self.tail & (self.count - 1)) * size_of::<ProvidedBuffer>();
        let addr = self.memory.at::<u8>(usize::from(id) * self.bytes) as u64;
        // SAFETY: the fields lie in the mapping, in an entry that the kernel has consumed: there are as many entries as
        // buffers. `reserved` is not written, it may be the tail.
        unsafe {
            let entry = self.ring.at::<ProvidedBuffer>(entry);
            (&raw mut (*entry).addr).write(addr);
            (&raw mut (*entry).len).write(self.bytes as u32);
            (&raw mut (*entry).id).write(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    pub fn publish(&mut self) {
        let tail = self.ring.at::<AtomicU16>(offset_of!(ProvidedBuffer, reserved));
        // SAFETY: the tail lies in the mapping, aligned.
        unsafe { (*tail).store(self.tail, Ordering::Release) };
    }

    /// Lets requests in this ring take from them by the group's number.
    pub fn register(&self, ring: &Ring, group: u16) -> Result<(), i32> {
        let registration = BufferRegistration {
            ring_addr: self.ring.at::<u8>(0) as u64,
            ring_entries: u32::from(self.count),
            group,
            flags: 0,
            reserved: [0; 3],
        };
        ring.register_buffers(&registration)
    }

    /// The first `length` bytes of a buffer that the kernel has filled and that was not given back.
    pub fn filled(&self, id: u16, length: usize) -> &[u8] {
        let start = self.memory.at::<u8>(usize::from(id % self.count) * self.bytes);
        // SAFETY: inside the mapping, and the kernel writes no more to it.
        unsafe { std::slice::from_raw_parts(start, length.min(self.bytes)) }
    }
}

/// The datagram that multishot RECVMSG put into a buffer, and who sent it; None when it is no whole message.
pub fn read_message(bytes: &[u8]) -> Option<(Origin, &[u8])> {
    let payload = bytes.get(PAYLOAD_AT..)?;
    // SAFETY: a whole Received lies there, and every bit pattern is one.
    let received = unsafe { bytes.as_ptr().cast::<Received>().read_unaligned() };
    let name = Name::from_bytes(&bytes[NAME_AT..CONTROL_AT]);
    if received.flags & libc::MSG_TRUNC as u32 != 0 {
        return None;
    }
    let control_bytes = (received.control_bytes as usize).min(CONTROL_BYTES);
    Some((Origin::read(&name, &bytes[CONTROL_AT..CONTROL_AT + control_bytes]), payload))
}
