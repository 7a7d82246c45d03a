//! LZ4 blocks (lz4_Block_format) by lz4_flex in its safe variant. Both directions write within the capacity that
//! they are given and know no length from the data. Frames and checksums are not here.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::cell::RefCell;

/// Input and capacity of one call, in bytes.
const MAX_BYTES: u32 = 65_535;

thread_local! {
    // Allocated once a thread and cleared by each call.
    static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::small());
}

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
