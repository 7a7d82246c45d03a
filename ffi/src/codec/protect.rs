//! Masks of OxTunnel's header protection (PROTOCOL §12; RFC 9001 §5.4.3 and §5.4.4): what AES-256 or ChaCha20 makes of
//! 16 bytes of ciphertext. Datagrams of a burst belong to many sessions, so a batch has a key for each of its lanes.
//! ChaCha20 is our own over the lanes of AVX-512, at a fifth of what AWS-LC takes for one short stream after the other;
//! AES is AWS-LC's: eight blocks at a time under as many keys saved 4 ns of 14. Invariant: both
//! implementations make the same mask; the lanes from `count` on mean nothing.

use crate::codec::ciphers::{KEY_BYTES, Key};
use crate::codec::keys::State;
use aws_lc_sys as aws_lc;
use std::arch::x86_64::*;
use std::array;

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

/// ChaCha20 with one block in each lane of AVX-512's registers.
pub struct LanesChaCha20;
pub struct RawKey(Key);
// SAFETY: bytes.
unsafe impl State for RawKey {}

/// "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_round(x: &mut [__m512i; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = _mm512_add_epi32(x[a], x[b]);
    x[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(x[d], x[a]));
    x[c] = _mm512_add_epi32(x[c], x[d]);
    x[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(x[b], x[c]));
    x[a] = _mm512_add_epi32(x[a], x[b]);
    x[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(x[d], x[a]));
    x[c] = _mm512_add_epi32(x[c], x[d]);
    x[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(x[b], x[c]));
}

/// The first two words of each lane's block. Word i of all lanes lies in words[i]: eight of key, then counter and nonce.
#[target_feature(enable = "avx512f")]
fn chacha20_blocks(words: &[[u32; LANES]; 12]) -> [[u32; LANES]; 2] {
    let mut x: [__m512i; 16] = array::from_fn(|i| {
        if i < 4 {
            _mm512_set1_epi32(CONSTANTS[i] as i32)
        } else {
            // SAFETY: 64 bytes; this load wants no alignment.
            unsafe { _mm512_loadu_si512(words[i - 4].as_ptr().cast()) }
        }
    });
    for _ in 0..10 {
        quarter_round(&mut x, 0, 4, 8, 12);
        quarter_round(&mut x, 1, 5, 9, 13);
        quarter_round(&mut x, 2, 6, 10, 14);
        quarter_round(&mut x, 3, 7, 11, 15);
        quarter_round(&mut x, 0, 5, 10, 15);
        quarter_round(&mut x, 1, 6, 11, 12);
        quarter_round(&mut x, 2, 7, 8, 13);
        quarter_round(&mut x, 3, 4, 9, 14);
    }
    let mut out = [[0; LANES]; 2];
    for i in 0..2 {
        let word = _mm512_add_epi32(x[i], _mm512_set1_epi32(CONSTANTS[i] as i32));
        // SAFETY: 64 bytes; this store wants no alignment.
        unsafe { _mm512_storeu_si512(out[i].as_mut_ptr().cast(), word) };
    }
    out
}

impl Protection for LanesChaCha20 {
    type State = RawKey;

    fn expand(key: &Key, state: &mut RawKey) {
        state.0 = *key;
    }

    fn masks(states: [&RawKey; LANES], samples: [Sample; LANES], count: usize) -> [u64; LANES] {
        if count < 3 {
            // All lanes together cost what AWS-LC takes for two blocks.
            return AwsLcChaCha20::masks(states, samples, count);
        }
        let mut words = [[0; LANES]; 12];
        for lane in 0..LANES {
            let (key, sample) = (states[lane].0.as_chunks::<4>().0, samples[lane].as_chunks::<4>().0);
            for (word, bytes) in words.iter_mut().zip(key.iter().chain(sample)) {
                word[lane] = u32::from_le_bytes(*bytes);
            }
        }
        // SAFETY: the processor was checked when this was chosen.
        let [low, high] = unsafe { chacha20_blocks(&words) };
        // SAFETY: plain memory of this size, which held keys.
        unsafe { aws_lc::OPENSSL_cleanse(words.as_mut_ptr().cast(), size_of_val(&words)) };
        array::from_fn(|lane| low[lane] as u64 | (high[lane] as u64) << 32)
    }
}

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
