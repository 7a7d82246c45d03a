//! io_uring's queues, by the raw ABI of linux/io_uring.h, because distributions' headers and liburing are older than their
//! kernels. Invariant: only the thread that made a ring submits to it, and what was written and not submitted is taken back
//! before its place is used again. Knows no socket; the memory that entries point at is their writers' matter.

use crate::sys::errno;
use crate::sys::mapping::Mapping;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;

// linux/io_uring.h
pub const IORING_OP_POLL_ADD: u8 = 6;
pub const IORING_OP_SENDMSG: u8 = 9;
pub const IORING_OP_RECVMSG: u8 = 10;
pub const IORING_OP_ASYNC_CANCEL: u8 = 14;
pub const IORING_OP_READ_MULTISHOT: u8 = 49;
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
pub const IORING_RECV_MULTISHOT: u16 = 1 << 1;
const IORING_OFF_SQES: i64 = 0x1000_0000;
pub const IORING_CQE_F_BUFFER: u32 = 1;
pub const IORING_CQE_F_MORE: u32 = 2;
pub const IOSQE_BUFFER_SELECT: u8 = 1 << 5;

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
pub struct Sqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    pub msg_flags: u32,
    pub user_data: u64,
    pub buf_group: u16,
    pub personality: u16,
    pub splice_fd_in: i32,
    pub padding: [u64; 2],
}

/// struct io_uring_cqe
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cqe {
    pub user_data: u64,
    pub res: i32,
    pub flags: u32,
}

/// struct io_uring_buf; the ring's tail lies over the first one's `reserved`.
#[repr(C)]
pub struct ProvidedBuffer {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
    pub reserved: u16,
}

/// struct io_uring_buf_reg
#[repr(C)]
pub struct BufferRegistration {
    pub ring_addr: u64,
    pub ring_entries: u32,
    pub group: u16,
    pub flags: u16,
    pub reserved: [u64; 3],
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

/// Queues for submissions and completions. Only the thread that made it may submit.
pub struct Ring {
    fd: OwnedFd,
    queues: Mapping,
    sqes: Mapping,
    sq: SqOffsets,
    cq: CqOffsets,
    sq_mask: u32,
    cq_mask: u32,
    /// Whether the kernel works for us only in `enter`.
    pub deferred: bool,
    /// Entries written and not yet submitted.
    unsubmitted: u32,
}

impl Ring {
    /// Both sizes are powers of two. With `deferred` the kernel works for us only when asked in `enter`, if it can
    /// (Linux 6.1); otherwise in any system call of ours. Errors are errno values.
    pub fn new(submissions: u32, completions: u32, deferred: bool) -> Result<Self, i32> {
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
    pub fn push(&mut self, sqe: Sqe) {
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
    pub fn enter(&mut self, completions: u32) -> (u32, i32) {
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
    pub fn wait(&mut self, timeout_us: u32) -> u32 {
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
    pub fn has_work(&self) -> bool {
        self.queues.word(self.sq.flags).load(Ordering::Acquire) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)
            != 0
    }

    /// The oldest completion.
    pub fn first(&self) -> Option<Cqe> {
        let head = self.queues.word(self.cq.head).load(Ordering::Relaxed);
        if head == self.queues.word(self.cq.tail).load(Ordering::Acquire) {
            return None;
        }
        let at = self.cq.cqes as usize + (head & self.cq_mask) as usize * size_of::<Cqe>();
        // SAFETY: the kernel wrote the entry before it moved the tail, and leaves it until the head moves.
        Some(unsafe { self.queues.at::<Cqe>(at).read() })
    }

    /// Gives the oldest completion's place back.
    pub fn advance(&mut self) {
        let head = self.queues.word(self.cq.head);
        head.store(head.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Lets requests in this ring take from provided buffers by their group's number. Err is the errno.
    pub fn register_buffers(&self, registration: &BufferRegistration) -> Result<(), i32> {
        // SAFETY: the kernel copies the registration, and pins the pages that it names.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.fd.as_raw_fd(),
                IORING_REGISTER_PBUF_RING,
                &raw const *registration,
                1,
            )
        };
        if registered < 0 { Err(errno()) } else { Ok(()) }
    }

    /// The ring's own descriptor.
    pub fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// An entry that asks for nothing yet.
pub fn blank() -> Sqe {
    // SAFETY: all zero bytes are a valid entry.
    unsafe { zeroed() }
}
