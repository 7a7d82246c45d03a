//! Bursts and handles as the dialler knows them (../../src/layout.rs), in memory of the module's own: one burst of three columns, and a slot
//! for each of its rows. Invariant: a row's offset is that of its slot, whatever the caller writes.

use std::cell::RefCell;

pub const BURST_CAPACITY: usize = 256;
const SLOT_BYTES: usize = 2048;
// Steps of the route, as burst.ts numbers them.
pub const TO_EXIT: u8 = 7;
pub const TO_TUNNEL: u8 = 8;

/// The columns that the dialler reads and writes.
#[repr(C)]
pub struct Block {
    pub offset: [u32; BURST_CAPACITY],
    pub length: [u32; BURST_CAPACITY],
    pub next: [u8; BURST_CAPACITY],
}

/// The slots.
pub struct Arena {
    bytes: Box<[u8]>,
}

impl Arena {
    /// `length` bytes from `offset`, or None when they do not all lie in the arena.
    pub fn slice(&mut self, offset: u32, length: usize) -> Option<&mut [u8]> {
        let start = offset as usize;
        self.bytes.get_mut(start..start.checked_add(length)?)
    }
}

struct Memory {
    block: Box<Block>,
    arena: Arena,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory {
        block: Box::new(Block {
            offset: std::array::from_fn(|row| (row * SLOT_BYTES) as u32),
            length: [0; BURST_CAPACITY],
            next: [0; BURST_CAPACITY],
        }),
        arena: Arena { bytes: vec![0; BURST_CAPACITY * SLOT_BYTES].into_boxed_slice() },
    });
}

/// Runs `act` on the one burst, whatever the handle.
pub fn with_burst(_handle: u32, act: impl FnOnce(&mut Block, &mut Arena) -> i32) -> i32 {
    MEMORY.with_borrow_mut(|memory| act(&mut memory.block, &mut memory.arena))
}

/// Objects by handle, of which there are few.
pub struct Table<T> {
    rows: Vec<Option<T>>,
}

impl<T> Table<T> {
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// The new object's handle, 1 or more.
    pub fn insert(&mut self, object: T) -> i32 {
        self.rows.push(Some(object));
        self.rows.len() as i32
    }

    /// Runs `act` on an object, or returns -EINVAL for a wrong handle. A panic ends the module, and so all of them.
    pub fn guarded(&mut self, handle: u32, act: impl FnOnce(&mut T) -> i32) -> i32 {
        let object = self.rows.get_mut((handle as usize).wrapping_sub(1)).and_then(Option::as_mut);
        object.map_or(-libc::EINVAL, act)
    }

    /// Removes and drops: 0, or -EINVAL for a wrong handle.
    pub fn release(&mut self, handle: u32) -> i32 {
        let row = self.rows.get_mut((handle as usize).wrapping_sub(1));
        if row.and_then(Option::take).is_some() { 0 } else { -libc::EINVAL }
    }
}

/// Where the slots, the lengths and the steps of the rows lie, by 0, 1 and 2; a row's slot has 2048 bytes.
#[unsafe(no_mangle)]
pub extern "C" fn ox_place(what: u32) -> u32 {
    MEMORY.with_borrow_mut(|memory| match what {
        0 => memory.arena.bytes.as_mut_ptr() as u32,
        1 => memory.block.length.as_mut_ptr() as u32,
        _ => memory.block.next.as_mut_ptr() as u32,
    })
}

/// Memory of `bytes` bytes for what a call reads or writes, for good.
#[unsafe(no_mangle)]
pub extern "C" fn ox_memory(bytes: u32) -> u32 {
    Box::leak(vec![0_u64; bytes.div_ceil(8) as usize].into_boxed_slice()).as_mut_ptr() as u32
}
