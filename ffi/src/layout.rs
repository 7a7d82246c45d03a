//! The memory that TypeScript shares: bursts (`src/vector/burst.ts`) and arenas (`src/vector/arena.ts`), known here
//! by handles. Invariant: a handle that is not registered on the calling thread reaches no memory. Each thread has
//! its own tables, as each Worker has its own bursts; so nothing is locked and no handle races with its release.

use std::cell::RefCell;
use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicU32, Ordering};

/// Version of the whole C ABI; TypeScript refuses any other.
const ABI: u32 = 2;

/// Rows in a full burst.
pub const BURST_CAPACITY: usize = 256;
/// Bytes per arena slot.
pub const SLOT_BYTES: usize = 2048;
/// Bytes kept free in front of a packet.
pub const HEADROOM: usize = 64;
/// Bytes kept free behind a packet.
pub const TAILROOM: usize = 48;
/// The longest packet or datagram that a slot takes.
pub const PACKET_BYTES_MAX: usize = SLOT_BYTES - HEADROOM - TAILROOM;

// Steps of the route, as burst.ts numbers them.
pub const TO_PARSE: u8 = 1;
pub const TO_OPEN: u8 = 5;
pub const OPENED: u8 = 6;
pub const TO_EXIT: u8 = 7;
pub const TO_TUNNEL: u8 = 8;
pub const TO_SEAL: u8 = 9;
pub const TO_TRANSMIT: u8 = 10;
pub const TO_UNPROTECT: u8 = 15;
pub const TO_OPEN_DATAGRAM: u8 = 16;
pub const TO_SEAL_DATAGRAM: u8 = 17;

/// The columns of a burst, as BURST_LAYOUT in burst.ts lays them out. Every bit pattern is valid.
#[repr(C)]
pub struct Block {
    pub counter: [f64; BURST_CAPACITY],
    pub slot: [u32; BURST_CAPACITY],
    pub offset: [u32; BURST_CAPACITY],
    pub length: [u32; BURST_CAPACITY],
    pub session: [u32; BURST_CAPACITY],
    pub peer: [u32; BURST_CAPACITY],
    pub address: [[u32; 4]; BURST_CAPACITY],
    pub local: [[u32; 4]; BURST_CAPACITY],
    pub port: [u16; BURST_CAPACITY],
    pub next: [u8; BURST_CAPACITY],
    pub ecn: [u8; BURST_CAPACITY],
    pub header_bytes: [u8; BURST_CAPACITY],
    pub phase: [u8; BURST_CAPACITY],
}

/// What ffi/native.ts compares at load, in its order.
const LAYOUT: [usize; 29] = [
    BURST_CAPACITY,
    offset_of!(Block, counter),
    offset_of!(Block, slot),
    offset_of!(Block, offset),
    offset_of!(Block, length),
    offset_of!(Block, session),
    offset_of!(Block, peer),
    offset_of!(Block, address),
    offset_of!(Block, local),
    offset_of!(Block, port),
    offset_of!(Block, next),
    offset_of!(Block, ecn),
    offset_of!(Block, header_bytes),
    offset_of!(Block, phase),
    size_of::<Block>(),
    SLOT_BYTES,
    HEADROOM,
    TAILROOM,
    PACKET_BYTES_MAX,
    TO_PARSE as usize,
    TO_OPEN as usize,
    OPENED as usize,
    TO_EXIT as usize,
    TO_TUNNEL as usize,
    TO_SEAL as usize,
    TO_TRANSMIT as usize,
    TO_UNPROTECT as usize,
    TO_OPEN_DATAGRAM as usize,
    TO_SEAL_DATAGRAM as usize,
];

/// The bytes that packets live in. They stay where they are until the arena is released.
pub struct Arena {
    start: *mut u8,
    bytes: usize,
}

impl Arena {
    /// Where `length` bytes from `offset` begin, or None when they do not all lie in the arena.
    pub fn pointer(&self, offset: u32, length: usize) -> Option<*mut u8> {
        let offset = offset as usize;
        // SAFETY: offset is within the registered allocation, so the sum stays inside it.
        (length <= self.bytes && offset <= self.bytes - length).then(|| unsafe { self.start.add(offset) })
    }

    /// The same as a slice; the borrow keeps a second one from overlapping it.
    pub fn slice(&mut self, offset: u32, length: usize) -> Option<&mut [u8]> {
        let start = self.pointer(offset, length)?;
        // SAFETY: `pointer` checked the range. TypeScript keeps the memory alive while it is registered and does
        // not run during the call, and `&mut self` excludes a second slice.
        Some(unsafe { std::slice::from_raw_parts_mut(start, length) })
    }
}

struct Burst {
    block: *mut Block,
    arena: u32,
}

const INDEX_BITS: u32 = 12;
const SERIALS: u32 = 1 << (31 - INDEX_BITS);
static NEXT_SERIAL: AtomicU32 = AtomicU32::new(0);

/// Objects by handle. A handle is 1 to 2^31 - 1: a row and a serial number that no row has again soon, in any
/// thread, so that a stale handle finds nothing.
pub struct Table<T> {
    rows: Vec<Option<(u32, T)>>,
}

impl<T> Table<T> {
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// The new object's handle, or -ENOMEM when 4096 are registered.
    pub fn insert(&mut self, object: T) -> i32 {
        let free = self.rows.iter().position(Option::is_none);
        let row = free.unwrap_or(self.rows.len());
        if row >> INDEX_BITS != 0 {
            return -libc::ENOMEM;
        }
        let serial = 1 + NEXT_SERIAL.fetch_add(1, Ordering::Relaxed) % (SERIALS - 1);
        if row == self.rows.len() {
            self.rows.push(None);
        }
        self.rows[row] = Some((serial, object));
        (serial << INDEX_BITS | row as u32) as i32
    }

    pub fn get(&mut self, handle: u32) -> Option<&mut T> {
        let row = (handle & ((1 << INDEX_BITS) - 1)) as usize;
        let (serial, object) = self.rows.get_mut(row)?.as_mut()?;
        (*serial == handle >> INDEX_BITS).then_some(object)
    }

    /// Takes the object out. Its handle is dead from here on.
    pub fn remove(&mut self, handle: u32) -> Option<T> {
        self.get(handle)?;
        let row = (handle & ((1 << INDEX_BITS) - 1)) as usize;
        self.rows[row].take().map(|(_, object)| object)
    }

    /// Runs `act` on an object, or returns -EINVAL for a wrong handle. A panic costs that object, -EIO, and not the process.
    pub fn guarded(&mut self, handle: u32, act: impl FnOnce(&mut T) -> i32) -> i32 {
        let Some(object) = self.get(handle) else { return -libc::EINVAL };
        // The object is dropped after a panic, so nobody sees it half changed.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(object)));
        result.unwrap_or_else(|_| {
            self.release(handle);
            -libc::EIO
        })
    }

    /// Removes and drops: 0, or -EINVAL for a wrong handle.
    pub fn release(&mut self, handle: u32) -> i32 {
        if self.remove(handle).is_some() { 0 } else { -libc::EINVAL }
    }
}

#[test]
fn a_panic_costs_the_object_that_it_happened_to_and_no_other() {
    let mut table = Table::new();
    let (first, second) = (table.insert(1) as u32, table.insert(2) as u32);
    assert_eq!(table.guarded(first, |_| panic!("of a test")), -libc::EIO);
    assert_eq!(table.guarded(first, |_| 0), -libc::EINVAL);
    assert_eq!(table.guarded(second, |&mut value| value), 2);
}

thread_local! {
    static ARENAS: RefCell<Table<Arena>> = const { RefCell::new(Table::new()) };
    static BURSTS: RefCell<Table<Burst>> = const { RefCell::new(Table::new()) };
}

/// A row of no known peer.
const NO_PEER: u32 = u32::MAX;

/// Who holds a flow, where shares are counted: a peer with all its addresses, or an address of no known peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    Peer(u32),
    Address(u128),
}

impl Owner {
    /// `peer` as a burst's row has it; `address` with IPv4 mapped.
    pub fn of(peer: u32, address: u128) -> Self {
        if peer == NO_PEER { Self::Address(address) } else { Self::Peer(peer) }
    }
}

/// Runs `act` on an arena, or returns -EINVAL for a wrong handle. Not to be nested.
pub fn with_arena(handle: u32, act: impl FnOnce(&mut Arena) -> i32) -> i32 {
    ARENAS.with_borrow_mut(|arenas| arenas.get(handle).map_or(-libc::EINVAL, act))
}

/// Runs `act` on a burst and its arena, or returns -EINVAL for a wrong handle. Not to be nested.
pub fn with_burst(handle: u32, act: impl FnOnce(&mut Block, &mut Arena) -> i32) -> i32 {
    BURSTS.with_borrow_mut(|bursts| {
        let Some(burst) = bursts.get(handle) else { return -libc::EINVAL };
        // SAFETY: the block was registered with its size and alignment, TypeScript keeps it alive until it is
        // released and does not run during the call, and the tables' borrow excludes a second reference.
        with_arena(burst.arena, |arena| act(unsafe { &mut *burst.block }, arena))
    })
}

/// Version of the ABI.
#[unsafe(no_mangle)]
pub extern "C" fn ox_abi() -> u32 {
    ABI
}

/// 0 when the processor has what everything but this function may be compiled for: x86-64-v2, or on aarch64 the target's
/// own baseline, which has NEON. Else -ENOTSUP.
#[unsafe(no_mangle)]
pub extern "C" fn ox_cpu() -> i32 {
    has_baseline()
}

#[cfg(target_arch = "aarch64")]
fn has_baseline() -> i32 {
    0
}

#[cfg(target_arch = "x86_64")]
fn has_baseline() -> i32 {
    // CPUID leaf 1, ECX: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT (x86-64 psABI, table 3.1).
    const BASELINE: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
    let features = std::arch::x86_64::__cpuid(1).ecx;
    if features & BASELINE == BASELINE { 0 } else { -libc::ENOTSUP }
}

/// Writes sizes, offsets and steps as u32 words. Returns how many there are; -EINVAL when `words` is too few.
///
/// # Safety
/// `out` is valid for `words` u32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_layout(out: *mut u32, words: u32) -> i32 {
    if out.is_null() || (words as usize) < LAYOUT.len() {
        return -libc::EINVAL;
    }
    for (i, value) in LAYOUT.iter().enumerate() {
        // SAFETY: i is below `words`, and an ArrayBuffer need not be aligned for us.
        unsafe { out.add(i).write_unaligned(*value as u32) };
    }
    LAYOUT.len() as i32
}

/// Writes the 32-byte SHA-256 of the sources that this library was built from; build.rs says over what.
///
/// # Safety
/// `out` is valid for 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_source_hash(out: *mut u8) -> i32 {
    const HASH: &[u8; 32] = include_bytes!(concat!(env!("OUT_DIR"), "/source_hash"));
    if out.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives 32 bytes, and HASH is no part of them.
    unsafe { out.copy_from_nonoverlapping(HASH.as_ptr(), HASH.len()) };
    0
}

/// Lets the system back memory by pages of 2 MB where it has them: a burst touches hundreds of slots, far apart. Advice
/// only; what it is not taken for stays in pages of 4 KB.
pub fn ask_for_huge_pages(start: usize, bytes: usize) {
    const HUGE_BYTES: usize = 2 << 20;
    let first = start.next_multiple_of(HUGE_BYTES);
    let end = (start + bytes) / HUGE_BYTES * HUGE_BYTES;
    if first < end {
        // SAFETY: the range lies within the caller's memory, and this advice changes no byte of it.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
    }
}

/// Registers an arena of `bytes` bytes (a multiple of SLOT_BYTES). Returns its handle.
///
/// # Safety
/// `start` is valid for `bytes` bytes until the handle is released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_arena_register(start: *mut u8, bytes: u32) -> i32 {
    let bytes = bytes as usize;
    if start.is_null() || bytes == 0 || !bytes.is_multiple_of(SLOT_BYTES) {
        return -libc::EINVAL;
    }
    ask_for_huge_pages(start as usize, bytes);
    ARENAS.with_borrow_mut(|arenas| arenas.insert(Arena { start, bytes }))
}

/// Asks for large pages for memory that is reached into at random and not yet written; 0, or -EINVAL for none.
///
/// # Safety
/// `start` is valid for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_large_pages(start: *mut u8, bytes: u32) -> i32 {
    if start.is_null() {
        return -libc::EINVAL;
    }
    ask_for_huge_pages(start as usize, bytes as usize);
    0
}

/// Forgets an arena. Its bursts answer -EINVAL from here on.
#[unsafe(no_mangle)]
pub extern "C" fn ox_arena_release(handle: u32) -> i32 {
    ARENAS.with_borrow_mut(|arenas| arenas.release(handle))
}

/// Registers a burst: its block of `bytes` bytes, aligned for f64, and the arena that its rows lie in. Returns its
/// handle.
///
/// # Safety
/// `block` is valid for `bytes` bytes until the handle is released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_burst_register(block: *mut u8, bytes: u32, arena: u32) -> i32 {
    let block = block.cast::<Block>();
    if block.is_null() || !block.is_aligned() || bytes as usize != size_of::<Block>() {
        return -libc::EINVAL;
    }
    let known = with_arena(arena, |_| 0);
    if known != 0 { known } else { BURSTS.with_borrow_mut(|bursts| bursts.insert(Burst { block, arena })) }
}

/// Forgets a burst.
#[unsafe(no_mangle)]
pub extern "C" fn ox_burst_release(handle: u32) -> i32 {
    BURSTS.with_borrow_mut(|bursts| bursts.release(handle))
}
