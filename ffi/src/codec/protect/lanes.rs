//! ChaCha20 masks with one block in each lane of AVX-512's registers. Invariant: the same masks as AWS-LC's, which are
//! taken where they are few. Does not ask the processor: who chooses this has.

use super::{AwsLcChaCha20, LANES, Protection, RawKey, Sample};
use crate::codec::ciphers::Key;
use aws_lc_sys as aws_lc;
use std::arch::x86_64::*;
use std::array;

/// ChaCha20 with one block in each lane of AVX-512's registers.
pub struct LanesChaCha20;

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
