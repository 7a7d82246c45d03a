//! Expanded session keys, a sending and a receiving one a row, in memory of their own: locked where the system
//! lets us, left out of core dumps, blank in a forked child, and overwritten when a row is erased and when the
//! table goes. Invariant: a state is handed out only while its row has a key. Reserves address space for all
//! rows and touches only those in use.

use crate::layout::ask_for_huge_pages;
use aws_lc_sys::OPENSSL_cleanse;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// Bytes that come into the cache together.
const LINE_BYTES: usize = 64;
/// States of at most this size lie close enough together for large pages: their rows without keys waste little.
const SMALL_STATE_BYTES: usize = 64;

/// Asks for the line of an address. Reads nothing into the program and never faults.
fn prefetch_line(address: *const u8) {
    // SAFETY: as said; neither instruction has another effect.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
}

/// Plain memory in which all bytes zero is a valid value, and that owns nothing.
///
/// # Safety
/// Both of that must hold, and the alignment must be at most a page.
pub unsafe trait State {}

/// Which key of a row.
#[derive(Clone, Copy)]
pub enum Direction {
    Send = 0,
    Receive = 1,
}

impl Direction {
    /// The one that is meant.
    pub fn of<T>(self, send: T, receive: T) -> T {
        match self {
            Direction::Send => send,
            Direction::Receive => receive,
        }
    }
}

/// Rows of key pairs with states of type `S`.
pub struct KeyMemory<S: State> {
    start: NonNull<u8>,
    bytes: usize,
    in_use: Vec<bool>,
    is_locked: bool,
    state: PhantomData<S>,
}

impl<S: State> KeyMemory<S> {
    /// Room for `rows` pairs; Err is the errno of mmap.
    pub fn new(rows: u32) -> Result<Self, i32> {
        let rows = rows as usize;
        let bytes = 2 * rows * size_of::<S>();
        // SAFETY: a fresh private mapping that refers to no memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM));
        }
        // SAFETY: these advise about the mapping just made. Locking may exceed RLIMIT_MEMLOCK, which the caller is
        // told; a kernel that knows no such advice keeps keys no worse than any other memory.
        let is_locked = unsafe {
            libc::madvise(start, bytes, libc::MADV_DONTDUMP);
            libc::madvise(start, bytes, libc::MADV_WIPEONFORK);
            libc::mlock2(start, bytes, libc::MLOCK_ONFAULT) == 0
        };
        if size_of::<S>() <= SMALL_STATE_BYTES {
            ask_for_huge_pages(start as usize, bytes);
        }
        let start = NonNull::new(start.cast()).ok_or(libc::ENOMEM)?;
        Ok(Self { start, bytes, in_use: vec![false; rows], is_locked, state: PhantomData })
    }

    /// Whether the system took the memory out of swap's reach.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    fn slot(&self, row: usize, direction: Direction) -> *mut S {
        // SAFETY: callers have checked that row is below in_use.len(), so this stays inside the mapping.
        unsafe { self.start.as_ptr().cast::<S>().add(2 * row + direction as usize) }
    }

    /// Puts a pair of states into a row. False when there is no such row.
    pub fn install(&mut self, row: u32, mut expand: impl FnMut(Direction, &mut S)) -> bool {
        let row = row as usize;
        if row >= self.in_use.len() {
            return false;
        }
        for direction in [Direction::Send, Direction::Receive] {
            // SAFETY: the slot is inside the mapping, aligned since sizes are multiples of alignments and mappings
            // begin at pages, zero or a former state (both valid), and borrowed mutably with self.
            expand(direction, unsafe { &mut *self.slot(row, direction) });
        }
        self.in_use[row] = true;
        true
    }

    /// Overwrites both states of a row that has keys; another's memory stays untouched. False when there is no such row.
    pub fn erase(&mut self, row: u32) -> bool {
        let row = row as usize;
        let Some(in_use) = self.in_use.get_mut(row) else { return false };
        if std::mem::take(in_use) {
            // SAFETY: the pair lies inside the mapping, and no reference into it outlives a borrow of self.
            unsafe { OPENSSL_cleanse(self.slot(row, Direction::Send).cast(), 2 * size_of::<S>()) };
        }
        true
    }

    /// Asks for the lines of a row's state, so that they come while others are being used. Any row may be named.
    pub fn prefetch(&self, row: u32, direction: Direction) {
        let row = row as usize;
        if row >= self.in_use.len() {
            return;
        }
        prefetch_line((&raw const self.in_use[row]).cast());
        let state = self.slot(row, direction).cast::<u8>();
        for at in (0..size_of::<S>()).step_by(LINE_BYTES) {
            prefetch_line(state.wrapping_add(at));
        }
    }

    /// The state of a row that has keys.
    pub fn get(&self, row: u32, direction: Direction) -> Option<&S> {
        let row = row as usize;
        if !*self.in_use.get(row)? {
            return None;
        }
        // SAFETY: as in `install`; the row was expanded, and self is borrowed for as long as the reference.
        Some(unsafe { &*self.slot(row, direction) })
    }
}

impl<S: State> Drop for KeyMemory<S> {
    fn drop(&mut self) {
        for row in 0..self.in_use.len() {
            self.erase(row as u32);
        }
        // SAFETY: the mapping is ours, of this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: an array of bytes.
    unsafe impl State for [u8; 32] {}

    #[test]
    fn any_row_may_be_prefetched() {
        let mut keys = KeyMemory::<[u8; 32]>::new(3).unwrap();
        assert!(keys.install(1, |_, state| state.fill(5)));
        for row in [0, 1, 2, 3, u32::MAX] {
            keys.prefetch(row, Direction::Receive);
        }
        assert_eq!(keys.get(1, Direction::Receive), Some(&[5; 32]));
        assert!(keys.get(0, Direction::Send).is_none());
    }

    #[test]
    fn erased_rows_are_zero_and_out_of_reach() {
        let mut keys = KeyMemory::<[u8; 32]>::new(3).unwrap();
        assert!(keys.install(2, |direction, state| state.fill(1 + direction as u8)));
        assert_eq!(keys.get(2, Direction::Receive), Some(&[2; 32]));
        assert!(keys.get(1, Direction::Send).is_none());
        assert!(keys.get(3, Direction::Send).is_none());
        assert!(!keys.install(3, |_, _| unreachable!()));
        assert!(keys.erase(2));
        assert!(!keys.erase(3));
        assert!(keys.get(2, Direction::Send).is_none());
        for direction in [Direction::Send, Direction::Receive] {
            // SAFETY: row 2 exists.
            assert_eq!(unsafe { keys.slot(2, direction).read() }, [0; 32]);
        }
    }
}
