//! LZ4 blocks (lz4_Block_format) by lz4_flex in its safe variant, between buffers and within a burst's arena. Both
//! directions write within the capacity that they are given and know no length from the data. Frames and checksums
//! are not here.

use crate::layout::{Arena, SLOT_BYTES, with_burst};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::cell::RefCell;

/// Input and capacity of one call, in bytes.
const MAX_BYTES: u32 = 65_535;

thread_local! {
    // Allocated once a thread and cleared by each call.
    static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::small());
    // What a packet becomes before it is known to fit: the worst case of a slot.
    static SCRATCH: RefCell<[u8; SCRATCH_BYTES]> = const { RefCell::new([0; SCRATCH_BYTES]) };
}

/// `get_maximum_output_size` of a slot, which is not const.
const SCRATCH_BYTES: usize = SLOT_BYTES * 11 / 10 + 20;

/// Runs `act` on input and output. Its result is a length; -EINVAL for missing memory, overlap or more than 65535 bytes.
///
/// # Safety
/// `input` is valid for `length` bytes and `out` for `capacity`.
unsafe fn between(
    input: *const u8,
    length: u32,
    out: *mut u8,
    capacity: u32,
    act: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, i32>,
) -> i32 {
    let (from, to) = (input as usize, out as usize);
    let is_apart = from + length as usize <= to || to + capacity as usize <= from;
    let is_missing = (input.is_null() && length > 0) || (out.is_null() && capacity > 0);
    if is_missing || !is_apart || length > MAX_BYTES || capacity > MAX_BYTES {
        return -libc::EINVAL;
    }
    // An empty buffer crosses as a null pointer.
    let input = if length == 0 { std::ptr::dangling() } else { input };
    let out = if capacity == 0 { std::ptr::dangling_mut() } else { out };
    // SAFETY: the caller gives both lengths, and they were just seen not to overlap.
    let slices = unsafe {
        (
            std::slice::from_raw_parts(input, length as usize),
            std::slice::from_raw_parts_mut(out, capacity as usize),
        )
    };
    act(slices.0, slices.1).map_or_else(|errno| -errno, |written| written as i32)
}

/// Compresses 0 to 65535 bytes. Returns the length; -ENOSPC when the capacity, at most 65535, is below the worst case of
/// `length` * 1.1 + 20, since room is not checked on the way.
///
/// # Safety
/// `input` is valid for `length` bytes and `out` for `capacity`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_lz4_compress(input: *const u8, length: u32, out: *mut u8, capacity: u32) -> i32 {
    let compress = |input: &[u8], out: &mut [u8]| {
        if out.len() < get_maximum_output_size(input.len()) {
            return Err(libc::ENOSPC);
        }
        TABLE.with_borrow_mut(|table| compress_into_with_table(input, out, table).map_err(|_| libc::ENOSPC))
    };
    // SAFETY: passed on from the caller.
    unsafe { between(input, length, out, capacity, compress) }
}

/// Decompresses one block into at most `capacity` bytes. Returns the length; -EBADMSG when the block is malformed or
/// longer than that.
///
/// # Safety
/// `input` is valid for `length` bytes and `out` for `capacity`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_lz4_decompress(
    input: *const u8,
    length: u32,
    out: *mut u8,
    capacity: u32,
) -> i32 {
    let decompress = |input: &[u8], out: &mut [u8]| decompress_into(input, out).map_err(|_| libc::EBADMSG);
    // SAFETY: passed on from the caller.
    unsafe { between(input, length, out, capacity, decompress) }
}

/// Compresses the `length` bytes at `at` of the burst's arena into a block at `to`, which may overlap them. Returns the
/// block's bytes; 0, with the arena as it was, when they are fewer than `least` or more than `room`; -EINVAL for a place
/// outside the arena or more bytes than a slot has.
#[unsafe(no_mangle)]
pub extern "C" fn ox_lz4_pack(burst: u32, at: u32, length: u32, to: u32, least: u32, room: u32) -> i32 {
    let pack = |arena: &mut Arena, scratch: &mut [u8], table: &mut CompressTable| {
        let packet = arena.slice(at, length as usize).filter(|packet| packet.len() <= SLOT_BYTES)?;
        let written = compress_into_with_table(packet, scratch, table).ok()?;
        if written < least as usize || written > room as usize {
            return Some(0);
        }
        arena.slice(to, written)?.copy_from_slice(&scratch[..written]);
        Some(written as i32)
    };
    with_burst(burst, |_, arena| {
        SCRATCH
            .with_borrow_mut(|scratch| TABLE.with_borrow_mut(|table| pack(arena, scratch, table)))
            .unwrap_or(-libc::EINVAL)
    })
}

/// Decompresses the block of `length` bytes at `at` of the burst's arena to `original` bytes at `to`, which may overlap it.
/// Returns 1; 0, with the arena as it was, when it is malformed or comes out at any other length; -EINVAL for a place
/// outside the arena or more bytes than a slot has.
#[unsafe(no_mangle)]
pub extern "C" fn ox_lz4_unpack(burst: u32, at: u32, length: u32, to: u32, original: u32) -> i32 {
    let original = original as usize;
    let unpack = |arena: &mut Arena, scratch: &mut [u8]| {
        let room = scratch.get_mut(..original).filter(|room| room.len() <= SLOT_BYTES)?;
        let block = arena.slice(at, length as usize)?;
        if !decompress_into(block, room).is_ok_and(|written| written == original) {
            return Some(0);
        }
        arena.slice(to, original)?.copy_from_slice(room);
        Some(1)
    };
    with_burst(burst, |_, arena| {
        SCRATCH.with_borrow_mut(|scratch| unpack(arena, scratch)).unwrap_or(-libc::EINVAL)
    })
}
