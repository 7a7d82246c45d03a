//! BLAKE2s (RFC 7693) for handshakes: plain, keyed, and the key derivation of Noise (HKDF of RFC 5869 over
//! HMAC-BLAKE2s). Keeps nothing; what is left of secrets on the stack is overwritten.

use blake2::digest::{FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac, Digest};

const BLOCK_BYTES: usize = 64;
const HASH_BYTES: usize = 32;
const MAC_BYTES: usize = 16;
const INPUT_BYTES_MAX: usize = 65536;

fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: a reference is valid to write through; volatile, so that it is not optimized away.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
}

/// HMAC (RFC 2104) of `input` under a 32-byte key.
fn keyed_hash(key: &[u8; HASH_BYTES], input: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut pad = [0x36; BLOCK_BYTES];
    pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
    let mut inner = Blake2s256::new();
    Digest::update(&mut inner, pad);
    input.iter().for_each(|part| Digest::update(&mut inner, part));
    pad.iter_mut().for_each(|pad| *pad ^= 0x36 ^ 0x5c);
    let mut outer = Blake2s256::new();
    Digest::update(&mut outer, pad);
    Digest::update(&mut outer, inner.finalize());
    wipe(&mut pad);
    outer.finalize().into()
}

/// # Safety
/// `start` is null or valid for `length` bytes.
unsafe fn input<'a>(start: *const u8, length: u32) -> Option<&'a [u8]> {
    if length == 0 {
        return Some(&[]); // whose place may be null
    }
    if start.is_null() || length as usize > INPUT_BYTES_MAX {
        return None;
    }
    // SAFETY: the caller's part.
    Some(unsafe { std::slice::from_raw_parts(start, length as usize) })
}

/// Writes the 32-byte hash of `length` bytes.
///
/// # Safety
/// `start` is valid for `length` bytes and `out` for 32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_blake2s(start: *const u8, length: u32, out: *mut u8) -> i32 {
    // SAFETY: the caller's part.
    let Some(input) = (unsafe { input(start, length) }) else { return -libc::EINVAL };
    if out.is_null() {
        return -libc::EINVAL;
    }
    let hash: [u8; HASH_BYTES] = Blake2s256::digest(input).into();
    // SAFETY: the caller gives 32 bytes.
    unsafe { out.cast::<[u8; HASH_BYTES]>().write_unaligned(hash) };
    0
}

/// Writes the 16-byte hash of `length` bytes keyed by 1 to 32 bytes.
///
/// # Safety
/// `key` and `start` are valid for the lengths given, and `out` for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_blake2s_mac(
    key: *const u8,
    key_length: u32,
    start: *const u8,
    length: u32,
    out: *mut u8,
) -> i32 {
    // SAFETY: the caller's part.
    let (key, input) = unsafe { (input(key, key_length), input(start, length)) };
    let (Some(key), Some(input)) = (key, input) else { return -libc::EINVAL };
    if out.is_null() || key.is_empty() {
        return -libc::EINVAL;
    }
    let Ok(mut state) = Blake2sMac::<U16>::new_from_slice(key) else { return -libc::EINVAL };
    Update::update(&mut state, input);
    let mac: [u8; MAC_BYTES] = state.finalize_fixed().into();
    // SAFETY: the caller gives 16 bytes.
    unsafe { out.cast::<[u8; MAC_BYTES]>().write_unaligned(mac) };
    0
}

/// Writes `count` keys of 32 bytes, 1 to 3, derived from a 32-byte key and `length` bytes.
///
/// # Safety
/// `key` is valid for 32 bytes, `start` for `length` and `out` for 32 times `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_derive_keys(
    key: *const u8,
    start: *const u8,
    length: u32,
    count: u32,
    out: *mut u8,
) -> i32 {
    // SAFETY: the caller's part.
    let Some(input) = (unsafe { input(start, length) }) else { return -libc::EINVAL };
    if key.is_null() || out.is_null() || !(1..=3).contains(&count) {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives 32 bytes, which need no alignment.
    let mut secret = keyed_hash(unsafe { &*key.cast::<[u8; HASH_BYTES]>() }, &[input]);
    let mut previous = [0; HASH_BYTES];
    for i in 0..count as usize {
        let before: &[u8] = if i == 0 { &[] } else { &previous };
        previous = keyed_hash(&secret, &[before, &[i as u8 + 1]]);
        // SAFETY: the caller gives room for `count` keys.
        unsafe { out.cast::<[u8; HASH_BYTES]>().add(i).write_unaligned(previous) };
    }
    wipe(&mut secret);
    wipe(&mut previous);
    0
}
