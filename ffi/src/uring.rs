//! A UDP port by io_uring: one multishot RECVMSG fills provided buffers as datagrams arrive, and a burst leaves as
//! SENDMSGs that one call submits. The ring is also what a thread waits in, for the port and for others' descriptors.
//! Invariant: the kernel writes only into buffers that this port owns, which outlive the request; when `send` returns,
//! every send has completed; and `wait` does not sleep while something is readable that it has been told to watch.
//! Speaks the raw ABI of linux/io_uring.h, because distributions' headers and liburing are older than their kernels.
//!
//! A TUN device's packets come through the ring too, by READ_MULTISHOT (Linux 6.7): a wake with one packet costs 1.9 µs
//! so, with readv(2) after a poll in the ring 2.7; 32 packets 25 and 31 µs; four super-packets of 13 KB 12.0 and 13.2;
//! one of 63 KB 11.1 both; 16 of them 128 and 124 (`deno task bench:tun`, medians, a busy machine of two cores).

use crate::layout::{Arena, BURST_CAPACITY, Block};
use crate::sys::errno;
use crate::udp::{CONTROL_BYTES, DATAGRAM_BYTES_MAX, MESSAGE_BYTES, Origin, Port, Socket, send};
use std::collections::VecDeque;
use std::mem::{ManuallyDrop, offset_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

// linux/io_uring.h
const IORING_OP_POLL_ADD: u8 = 6;
const IORING_OP_SENDMSG: u8 = 9;
const IORING_OP_RECVMSG: u8 = 10;
const IORING_OP_ASYNC_CANCEL: u8 = 14;
const IORING_OP_READ_MULTISHOT: u8 = 49;
const IORING_SETUP_CQSIZE: u32 = 1 << 3;
const IORING_SETUP_SUBMIT_ALL: u32 = 1 << 7;
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
const IORING_SETUP_TASKRUN_FLAG: u32 = 1 << 9;
const IORING_SETUP_SINGLE_ISSUER: u32 = 1 << 12;
const IORING_SETUP_DEFER_TASKRUN: u32 = 1 << 13;
const IORING_FEAT_SINGLE_MMAP: u32 = 1 << 0;
const IORING_FEAT_NODROP: u32 = 1 << 1;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_ENTER_EXT_ARG: u32 = 1 << 3;
const IORING_SQ_CQ_OVERFLOW: u32 = 1 << 1;
const IORING_SQ_TASKRUN: u32 = 1 << 2;
const IORING_REGISTER_PBUF_RING: u32 = 22;
const IORING_RECV_MULTISHOT: u16 = 1 << 1;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_CQE_F_BUFFER: u32 = 1;
const IORING_CQE_F_MORE: u32 = 2;
const IOSQE_BUFFER_SELECT: u8 = 1 << 5;

#[repr(C)]
struct SqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_addr: u64,
}

#[repr(C)]
struct CqOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    cqes: u32,
    flags: u32,
    reserved: u32,
    user_addr: u64,
}

/// struct io_uring_params
#[repr(C)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    sq_off: SqOffsets,
    cq_off: CqOffsets,
}

/// struct io_uring_sqe, by the names of the fields used here.
#[repr(C)]
struct Sqe {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    msg_flags: u32,
    user_data: u64,
    buf_group: u16,
    personality: u16,
    splice_fd_in: i32,
    padding: [u64; 2],
}

/// struct io_uring_cqe
#[repr(C)]
#[derive(Clone, Copy)]
struct Cqe {
    user_data: u64,
    res: i32,
    flags: u32,
}

/// struct io_uring_buf; the ring's tail lies over the first one's `reserved`.
#[repr(C)]
struct ProvidedBuffer {
    addr: u64,
    len: u32,
    id: u16,
    reserved: u16,
}

/// struct io_uring_buf_reg
#[repr(C)]
struct BufferRegistration {
    ring_addr: u64,
    ring_entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

/// struct io_uring_getevents_arg
#[repr(C)]
struct WaitArguments {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    time: u64,
}

const _: () = assert!(size_of::<WaitArguments>() == 24);
const _: () = assert!(size_of::<Params>() == 120 && size_of::<Sqe>() == 64 && size_of::<Cqe>() == 16);
const _: () = assert!(size_of::<ProvidedBuffer>() == 16 && size_of::<BufferRegistration>() == 40);

/// Memory from mmap(2), page-aligned and zero at first.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Anonymous memory, or a ring's when `fd` is one; an errno when there is none.
    fn new(bytes: usize, fd: Option<&OwnedFd>, offset: i64) -> Result<Self, i32> {
        let (raw, flags) = match fd {
            Some(fd) => (fd.as_raw_fd(), libc::MAP_SHARED | libc::MAP_POPULATE),
            None => (-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, raw, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(errno());
        }
        NonNull::new(start.cast()).map(|start| Self { start, bytes }).ok_or(libc::ENOMEM)
    }

    /// Where a `T` lies, `offset` bytes in: whole, and aligned if its offset is.
    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.bytes);
        // SAFETY: the whole T was just seen to be inside.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }

    /// A word that the kernel reads or writes too.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: inside the mapping and aligned, as everything that the kernel lays out there; shared, so atomic.
        unsafe { &*self.at::<AtomicU32>(offset as usize) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is whole and nobody refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Queues for submissions and completions. Only the thread that made it may submit.
struct Ring {
    fd: OwnedFd,
    queues: Mapping,
    sqes: Mapping,
    sq: SqOffsets,
    cq: CqOffsets,
    sq_mask: u32,
    cq_mask: u32,
    /// Whether the kernel works for us only in `enter`.
    deferred: bool,
    /// Entries written and not yet submitted.
    unsubmitted: u32,
}

impl Ring {
    /// Both sizes are powers of two. With `deferred` the kernel works for us only when asked in `enter`, if it can
    /// (Linux 6.1); otherwise in any system call of ours. Errors are errno values.
    fn new(submissions: u32, completions: u32, deferred: bool) -> Result<Self, i32> {
        match Self::with_flags(submissions, completions, deferred) {
            Err(libc::EINVAL) if deferred => Self::with_flags(submissions, completions, false),
            result => result,
        }
    }

    fn with_flags(submissions: u32, completions: u32, deferred: bool) -> Result<Self, i32> {
        let task_work = IORING_SETUP_TASKRUN_FLAG
            | if deferred {
                IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
            } else {
                IORING_SETUP_COOP_TASKRUN
            };
        // SAFETY: all zero bytes are valid parameters.
        let mut params: Params = unsafe { zeroed() };
        params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | task_work;
        params.cq_entries = completions;
        // SAFETY: `params` is a whole io_uring_params that the kernel reads and writes.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, submissions, &raw mut params) } as i32;
        if fd < 0 {
            return Err(errno());
        }
        // SAFETY: the kernel has just given us this descriptor.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let wanted = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP;
        if params.features & wanted != wanted {
            return Err(libc::ENOSYS);
        }
        let sq_end = params.sq_off.array as usize + params.sq_entries as usize * size_of::<u32>();
        let cq_end = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<Cqe>();
        let queues = Mapping::new(sq_end.max(cq_end), Some(&fd), 0)?;
        let sqes = Mapping::new(params.sq_entries as usize * size_of::<Sqe>(), Some(&fd), IORING_OFF_SQES)?;
        // Entry i of the queue is always submission i.
        for i in 0..params.sq_entries {
            queues.word(params.sq_off.array + 4 * i).store(i, Ordering::Relaxed);
        }
        let sq_mask = queues.word(params.sq_off.ring_mask).load(Ordering::Relaxed);
        let cq_mask = queues.word(params.cq_off.ring_mask).load(Ordering::Relaxed);
        Ok(Self {
            fd,
            queues,
            sqes,
            sq: params.sq_off,
            cq: params.cq_off,
            sq_mask,
            cq_mask,
            deferred,
            unsubmitted: 0,
        })
    }

    /// Writes an entry; the caller submits before there are more than the queue has.
    fn push(&mut self, sqe: Sqe) {
        assert!(self.unsubmitted <= self.sq_mask);
        let tail = self.queues.word(self.sq.tail);
        let at = tail.load(Ordering::Relaxed);
        let entry = self.sqes.at::<Sqe>((at & self.sq_mask) as usize * size_of::<Sqe>());
        // SAFETY: the entry lies in the mapping, and the kernel has consumed what was there before: everything written
        // is submitted, or taken back, before as many entries again are written.
        unsafe { entry.write(sqe) };
        tail.store(at.wrapping_add(1), Ordering::Release);
        self.unsubmitted += 1;
    }

    /// Submits what was written, lets the kernel do what it has deferred, and waits for `completions`. Returns how many
    /// entries were taken, and 0 or the errno for which no more were: those are then taken back.
    fn enter(&mut self, completions: u32) -> (u32, i32) {
        let written = self.unsubmitted;
        loop {
            // SAFETY: the entries written point at memory that their writers keep until they have completed.
            let taken = unsafe {
                libc::syscall(
                    libc::SYS_io_uring_enter,
                    self.fd.as_raw_fd(),
                    self.unsubmitted,
                    completions,
                    IORING_ENTER_GETEVENTS,
                    std::ptr::null::<u8>(),
                    0,
                )
            };
            if taken >= 0 {
                self.unsubmitted -= (taken as u32).min(self.unsubmitted);
                if self.unsubmitted == 0 {
                    return (written, 0);
                }
                continue;
            }
            let reason = errno();
            if reason != libc::EINTR {
                return (written - self.take_back(), reason);
            }
        }
    }

    /// Takes back what was written and not submitted. Returns how many entries that was.
    fn take_back(&mut self) -> u32 {
        let head = self.queues.word(self.sq.head).load(Ordering::Acquire);
        self.queues.word(self.sq.tail).store(head, Ordering::Release);
        std::mem::take(&mut self.unsubmitted)
    }

    /// Submits what was written, lets the kernel do what it has deferred, and then waits until there is a completion, a
    /// signal, or so many microseconds are over. Returns how many entries were taken: the first ones, the others are
    /// taken back.
    fn wait(&mut self, timeout_us: u32) -> u32 {
        let time = libc::timespec {
            tv_sec: i64::from(timeout_us / 1_000_000),
            tv_nsec: i64::from(timeout_us % 1_000_000) * 1000,
        };
        let arguments =
            WaitArguments { sigmask: 0, sigmask_bytes: 8, min_wait_us: 0, time: &raw const time as u64 };
        // SAFETY: arguments and time live through the call, and the entries written point at no memory.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                self.unsubmitted,
                u32::from(timeout_us > 0),
                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                &raw const arguments,
                size_of::<WaitArguments>(),
            )
        };
        let taken = (taken.max(0) as u32).min(self.unsubmitted);
        self.unsubmitted -= taken;
        if self.unsubmitted > 0 {
            self.take_back();
        }
        taken
    }

    /// Whether `enter` would bring completions that are not in the queue yet.
    fn has_work(&self) -> bool {
        self.queues.word(self.sq.flags).load(Ordering::Acquire) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)
            != 0
    }

    /// The oldest completion.
    fn first(&self) -> Option<Cqe> {
        let head = self.queues.word(self.cq.head).load(Ordering::Relaxed);
        if head == self.queues.word(self.cq.tail).load(Ordering::Acquire) {
            return None;
        }
        let at = self.cq.cqes as usize + (head & self.cq_mask) as usize * size_of::<Cqe>();
        // SAFETY: the kernel wrote the entry before it moved the tail, and leaves it until the head moves.
        Some(unsafe { self.queues.at::<Cqe>(at).read() })
    }

    /// Gives the oldest completion's place back.
    fn advance(&mut self) {
        let head = self.queues.word(self.cq.head);
        head.store(head.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

/// struct io_uring_recvmsg_out, before name, control messages and payload in a buffer.
#[repr(C)]
struct Received {
    name_bytes: u32,
    control_bytes: u32,
    payload_bytes: u32,
    flags: u32,
}

const NAME_AT: usize = size_of::<Received>();
const CONTROL_AT: usize = NAME_AT + size_of::<libc::sockaddr_in6>();
const PAYLOAD_AT: usize = CONTROL_AT + CONTROL_BYTES;
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

/// Buffers that the kernel takes for what arrives, and the ring in which it finds them.
struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    bytes: usize,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, bytes: usize) -> Result<Self, i32> {
        let ring = Mapping::new(usize::from(count) * size_of::<ProvidedBuffer>(), None, 0)?;
        let memory = Mapping::new(usize::from(count) * bytes, None, 0)?;
        let mut buffers = Self { ring, memory, count, bytes, tail: 0 };
        (0..count).for_each(|id| buffers.give(id));
        buffers.publish();
        Ok(buffers)
    }

    /// Lets the kernel have a buffer (again), once published.
    fn give(&mut self, id: u16) {
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

    fn publish(&mut self) {
        let tail = self.ring.at::<AtomicU16>(offset_of!(ProvidedBuffer, reserved));
        // SAFETY: the tail lies in the mapping, aligned.
        unsafe { (*tail).store(self.tail, Ordering::Release) };
    }

    /// Lets requests in this ring take from them by the group's number.
    fn register(&self, ring: &Ring, group: u16) -> Result<(), i32> {
        let registration = BufferRegistration {
            ring_addr: self.ring.start.as_ptr() as u64,
            ring_entries: u32::from(self.count),
            group,
            flags: 0,
            reserved: [0; 3],
        };
        // SAFETY: the kernel copies the registration, and pins the pages that it names.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring.fd.as_raw_fd(),
                IORING_REGISTER_PBUF_RING,
                &raw const registration,
                1,
            )
        };
        if registered < 0 { Err(errno()) } else { Ok(()) }
    }

    /// The first `length` bytes of a buffer that the kernel has filled and that was not given back.
    fn filled(&self, id: u16, length: usize) -> &[u8] {
        let start = self.memory.at::<u8>(usize::from(id % self.count) * self.bytes);
        // SAFETY: inside the mapping, and the kernel writes no more to it.
        unsafe { std::slice::from_raw_parts(start, length.min(self.bytes)) }
    }
}

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

fn blank() -> Sqe {
    // SAFETY: all zero bytes are a valid entry.
    unsafe { zeroed() }
}

impl UringPort {
    /// Errors are errno values: ENOSYS or EPERM where io_uring is missing or forbidden, EINVAL where it is too old.
    pub fn open(socket: Socket, deferred: bool) -> Result<Self, i32> {
        let (count, payload) = if socket.segments {
            (LARGE_BUFFERS, MESSAGE_BYTES)
        } else {
            (SMALL_BUFFERS, DATAGRAM_BYTES_MAX)
        };
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
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
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

    /// Ends all requests and waits for their ends: after that the kernel writes into no buffer. What they watch or read
    /// it would else keep open until the ring has gone, which takes its time: a socket's port or a device's name would
    /// stay taken.
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

/// What a buffer holds; None when it holds no whole message.
fn read_message(bytes: &[u8]) -> Option<(Origin, &[u8])> {
    let payload = bytes.get(PAYLOAD_AT..)?;
    // SAFETY: a whole Received and, behind it, a whole name lie there, and every bit pattern is one of each.
    let (received, name) = unsafe {
        let start = bytes.as_ptr();
        (
            start.cast::<Received>().read_unaligned(),
            start.add(NAME_AT).cast::<libc::sockaddr_in6>().read_unaligned(),
        )
    };
    if received.flags & libc::MSG_TRUNC as u32 != 0 {
        return None;
    }
    let control_bytes = (received.control_bytes as usize).min(CONTROL_BYTES);
    Some((Origin::read(&name, &bytes[CONTROL_AT..CONTROL_AT + control_bytes]), payload))
}

impl Port for UringPort {
    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn descriptor(&self) -> i32 {
        // A ring with deferred work polls readable but wakes nobody who already waits in poll(2) (seen on Linux 6.18);
        // but then its datagrams stay in the socket until `receive`. Without, they may be completions before.
        if self.receiving.deferred { self.socket.raw_fd() } else { self.receiving.fd.as_raw_fd() }
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

    fn send(&mut self, messages: usize) {
        let fd = self.socket.raw_fd();
        for message in 0..messages {
            self.sending.push(Sqe {
                opcode: IORING_OP_SENDMSG,
                fd,
                addr: &raw const self.socket.headers[message].msg_hdr as u64,
                len: 1,
                // So it completes as it is submitted, be it with EAGAIN.
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
                libc::EAGAIN | libc::ENOBUFS if overtaken == Some(socket.group[message]) => {
                    socket.lose(message);
                    results[message] = 0;
                }
                reason if reason <= 0 => overtaken = Some(socket.group[message]),
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
                reason = send(socket.raw_fd(), &socket.headers[message].msg_hdr);
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
