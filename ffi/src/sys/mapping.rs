//! Memory from mmap(2): anonymous, or shared with the kernel through a descriptor (a ring's queues). Invariant: it is
//! mapped for as long as its owner lives, and no reference into it goes beyond its end.

use crate::sys::errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// Page-aligned, and zero at first where it is anonymous.
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Anonymous memory, or a descriptor's from `offset` on. Err is the errno.
    pub fn new(bytes: usize, fd: Option<&OwnedFd>, offset: i64) -> Result<Self, i32> {
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

    /// Where a `T` lies, `offset` bytes in: whole, and aligned if its offset is. Panics beyond the end.
    pub fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.bytes);
        // SAFETY: the whole T was just seen to be inside.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }

    /// A word that the kernel reads or writes too; `offset` is a multiple of 4.
    pub fn word(&self, offset: u32) -> &AtomicU32 {
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
