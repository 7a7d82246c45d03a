//! Masks of OxTunnel's header protection (PROTOCOL §12; RFC 9001 §5.4.3 and §5.4.4): what AES-256 or ChaCha20 makes of
//! 16 bytes of ciphertext. Datagrams of a burst belong to many sessions, so a batch has a key for each of its lanes.
//! ChaCha20 is our own over the lanes of AVX-512, at a fifth of what AWS-LC takes for one short stream after the other;
//! AES is AWS-LC's: eight blocks at a time under as many keys saved 4 ns of 14. Invariant: both
//! implementations make the same mask; the lanes from `count` on mean nothing.

use crate::codec::ciphers::{KEY_BYTES, Key};
use crate::codec::keys::State;
use aws_lc_sys as aws_lc;
use std::array;

#[cfg(target_arch = "x86_64")]
#[path = "protect/lanes.rs"]
pub mod lanes;

/// Masks made at a time.
pub const LANES: usize = 16;
/// Bytes of ciphertext that a mask is made from.
pub const SAMPLE_BYTES: usize = 16;
pub type Sample = [u8; SAMPLE_BYTES];

/// One implementation of one kind of mask.
pub trait Protection {
    type State: State + 'static;
    /// Fills a state from a key.
    fn expand(key: &Key, state: &mut Self::State);
    /// The first 8 bytes of each mask, as a little-endian number. All lanes are filled; `count` says how many matter.
    fn masks(states: [&Self::State; LANES], samples: [Sample; LANES], count: usize) -> [u64; LANES];
}

/// A key as it is.
pub struct RawKey(pub(super) Key);
// SAFETY: bytes.
unsafe impl State for RawKey {}

/// ChaCha20 by AWS-LC.
pub struct AwsLcChaCha20;

fn mask_once(key: &RawKey, sample: &Sample) -> u64 {
    let mut mask = [0; 8];
    // SAFETY: the key has 32 bytes, the nonce 12; in and out may be the same.
    unsafe {
        let (counter, nonce) = (u32::from_le_bytes(array::from_fn(|i| sample[i])), sample.as_ptr().add(4));
        aws_lc::CRYPTO_chacha_20(
            mask.as_mut_ptr(),
            mask.as_ptr(),
            mask.len(),
            key.0.as_ptr(),
            nonce,
            counter,
        );
    }
    u64::from_le_bytes(mask)
}

impl Protection for AwsLcChaCha20 {
    type State = RawKey;

    fn expand(key: &Key, state: &mut RawKey) {
        state.0 = *key;
    }

    fn masks(states: [&RawKey; LANES], samples: [Sample; LANES], count: usize) -> [u64; LANES] {
        array::from_fn(|lane| if lane < count { mask_once(states[lane], &samples[lane]) } else { 0 })
    }
}

/// AES-256 by AWS-LC.
pub struct AwsLcAes256;
// SAFETY: a C struct of integers.
unsafe impl State for aws_lc::AES_KEY {}

impl Protection for AwsLcAes256 {
    type State = aws_lc::AES_KEY;

    fn expand(key: &Key, state: &mut aws_lc::AES_KEY) {
        // SAFETY: a key of this many bits.
        let failed = unsafe { aws_lc::AES_set_encrypt_key(key.as_ptr(), 8 * KEY_BYTES as u32, state) };
        assert_eq!(failed, 0, "a 256-bit key is always accepted");
    }

    fn masks(states: [&aws_lc::AES_KEY; LANES], samples: [Sample; LANES], count: usize) -> [u64; LANES] {
        let mut masks = [0; LANES];
        for lane in 0..count {
            let mut block = [0; SAMPLE_BYTES];
            // SAFETY: 16 bytes in, 16 bytes out.
            unsafe { aws_lc::AES_encrypt(samples[lane].as_ptr(), block.as_mut_ptr(), states[lane]) };
            masks[lane] = u64::from_le_bytes(array::from_fn(|i| block[i]));
        }
        masks
    }
}
