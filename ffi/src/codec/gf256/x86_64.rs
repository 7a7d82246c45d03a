//! Products of shards by the vectors of x86-64: GFNI with AVX-512 or AVX2, AVX2 alone, or SSSE3, whichever the processor
//! has. Invariant: all of them write the same bytes. Judges no task: gf256.rs has seen that its shards and matrix lie in
//! the memory.

use super::{NIBBLES, Task, product};
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU32, Ordering};

const UNKNOWN: u32 = 0;
// Implementations as TypeScript names them.
const SSSE3: u32 = 1;
const AVX2: u32 = 2;
const GFNI_AVX2: u32 = 3;
const GFNI_AVX512: u32 = 4;

/// For each coefficient the 8 x 8 bit matrix that multiplies by it, as GF2P8AFFINEQB wants it: byte 7 - i makes bit i.
static AFFINE: [u64; 256] = {
    let mut table = [0; 256];
    let mut c = 0;
    while c < 256 {
        let mut matrix = 0u64;
        let mut j = 0;
        while j < 8 {
            let column = product(c as u8, 1 << j);
            let mut i = 0;
            while i < 8 {
                matrix |= (((column >> i) & 1) as u64) << (8 * (7 - i) + j);
                i += 1;
            }
            j += 1;
        }
        table[c] = matrix;
        c += 1;
    }
    table
};

/// The fastest implementation here, once it is known.
static FASTEST_HERE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// The number of the fastest implementation that this processor runs.
pub fn fastest() -> u32 {
    match FASTEST_HERE.load(Ordering::Relaxed) {
        UNKNOWN => detect(),
        known => known,
    }
}

/// Whether the implementation, not FASTEST, runs here.
pub fn runs(implementation: u32) -> bool {
    (SSSE3..=fastest()).contains(&implementation)
}

#[cold]
fn detect() -> u32 {
    let found = if !is_x86_feature_detected!("avx2") {
        SSSE3
    } else if !is_x86_feature_detected!("gfni") {
        AVX2
    } else if !is_x86_feature_detected!("avx512f") {
        GFNI_AVX2
    } else {
        GFNI_AVX512
    };
    FASTEST_HERE.store(found, Ordering::Relaxed);
    found
}

/// A shard that is shorter than one vector goes to the next narrower implementation, which the processor has too.
///
/// # Safety
/// As `run`; the task has N outputs.
#[inline(always)]
pub unsafe fn run_for<const N: usize>(task: &Task, implementation: u32) {
    // SAFETY: as the caller says; each length was checked here.
    unsafe {
        if implementation == GFNI_AVX512 && task.length >= 64 {
            gfni_avx512::<N>(task);
        } else if implementation >= GFNI_AVX2 && task.length >= 32 {
            gfni_avx2::<N>(task);
        } else if implementation >= AVX2 && task.length >= 32 {
            avx2::<N>(task);
        } else {
            ssse3::<N>(task);
        }
    }
}

/// An implementation by GF2P8AFFINEQB, for one width of vectors; `$four` is with how many outputs 4 of them fit.
macro_rules! gfni {
    ($name:ident, $step:ident, $features:literal, $bytes:literal, $four:expr, $zero:ident, $load:ident,
     $store:ident, $broadcast:ident, $multiply:ident, $add:ident) => {
        /// # Safety
        /// As `run_for`; the shards are at least as long as a vector.
        #[target_feature(enable = $features)]
        unsafe fn $name<const N: usize>(task: &Task) {
            cover!(task, $bytes, $step, N <= $four);
        }

        /// # Safety
        /// As `run_for`; all V vectors, as `cover` places them, lie within the shards.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $step<const N: usize, const V: usize>(task: &Task, at: usize, last: usize) {
            let mut sums = [[$zero(); V]; N];
            for (i, &input) in task.inputs.iter().enumerate() {
                let mut vectors = [$zero(); V];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    let place = if v + 1 == V { last } else { at + v * $bytes };
                    // SAFETY: the vector lies within the shard.
                    *vector = unsafe { $load(task.byte(input, place).cast()) };
                }
                for (n, sums) in sums.iter_mut().enumerate() {
                    let by = $broadcast(AFFINE[task.coefficient(n, i)] as i64);
                    for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                        *sum = $add(*sum, $multiply::<0>(vector, by));
                    }
                }
            }
            for (&output, sums) in task.outputs.iter().zip(&sums) {
                for (v, &sum) in sums.iter().enumerate() {
                    let place = if v + 1 == V { last } else { at + v * $bytes };
                    // SAFETY: the vector lies within the shard.
                    unsafe { $store(task.byte(output, place).cast(), sum) };
                }
            }
        }
    };
}

gfni!(
    gfni_avx512,
    gfni_avx512_step,
    "gfni,avx512f",
    64,
    4,
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi64,
    _mm512_gf2p8affine_epi64_epi8,
    _mm512_xor_si512
);
gfni!(
    gfni_avx2,
    gfni_avx2_step,
    "gfni,avx2",
    32,
    2,
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi64x,
    _mm256_gf2p8affine_epi64_epi8,
    _mm256_xor_si256
);

/// # Safety
/// As `run_for`; the shards have at least 32 bytes.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const N: usize>(task: &Task) {
    cover!(task, 32, avx2_step, N == 1);
}

/// # Safety
/// As `run_for`; all V vectors, as `cover` places them, lie within the shards.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn avx2_step<const N: usize, const V: usize>(task: &Task, at: usize, last: usize) {
    let low_bits = _mm256_set1_epi8(0x0f);
    let mut sums = [[_mm256_setzero_si256(); V]; N];
    for (i, &input) in task.inputs.iter().enumerate() {
        let mut low = [_mm256_setzero_si256(); V];
        let mut high = [_mm256_setzero_si256(); V];
        for v in 0..V {
            let place = if v + 1 == V { last } else { at + v * 32 };
            // SAFETY: the vector lies within the shard.
            let bytes = unsafe { _mm256_loadu_si256(task.byte(input, place).cast()) };
            low[v] = _mm256_and_si256(bytes, low_bits);
            high[v] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_bits);
        }
        for (n, sums) in sums.iter_mut().enumerate() {
            let table = NIBBLES.0[task.coefficient(n, i)].as_ptr();
            // SAFETY: a coefficient's tables have 16 bytes each and are aligned to that.
            let (of_low, of_high) = unsafe {
                (
                    _mm256_broadcastsi128_si256(_mm_load_si128(table.cast())),
                    _mm256_broadcastsi128_si256(_mm_load_si128(table.add(16).cast())),
                )
            };
            for (v, sum) in sums.iter_mut().enumerate() {
                let product = _mm256_xor_si256(
                    _mm256_shuffle_epi8(of_low, low[v]),
                    _mm256_shuffle_epi8(of_high, high[v]),
                );
                *sum = _mm256_xor_si256(*sum, product);
            }
        }
    }
    for (&output, sums) in task.outputs.iter().zip(&sums) {
        for (v, &sum) in sums.iter().enumerate() {
            let place = if v + 1 == V { last } else { at + v * 32 };
            // SAFETY: the vector lies within the shard.
            unsafe { _mm256_storeu_si256(task.byte(output, place).cast(), sum) };
        }
    }
}

/// # Safety
/// As `run_for`.
#[inline(never)]
#[target_feature(enable = "ssse3")]
unsafe fn ssse3<const N: usize>(task: &Task) {
    const STEP: usize = 16;
    let low_bits = _mm_set1_epi8(0x0f);
    let mut at = 0;
    while at < task.length {
        // The last step goes over bytes that are done, unless there are fewer than a step in all.
        let from = at.min(task.length.saturating_sub(STEP));
        let bytes = (task.length - from).min(STEP);
        let mut sums = [_mm_setzero_si128(); N];
        for (i, &input) in task.inputs.iter().enumerate() {
            let mut copy = [0u8; STEP];
            let mut place = task.byte(input, from).cast_const();
            if bytes < STEP {
                // SAFETY: the shard has `from + bytes` bytes or more.
                unsafe { std::ptr::copy_nonoverlapping(place, copy.as_mut_ptr(), bytes) };
                place = copy.as_ptr();
            }
            // SAFETY: a whole step, or the copy, has 16 bytes.
            let all = unsafe { _mm_loadu_si128(place.cast()) };
            let low = _mm_and_si128(all, low_bits);
            let high = _mm_and_si128(_mm_srli_epi16::<4>(all), low_bits);
            for (n, sum) in sums.iter_mut().enumerate() {
                let table = NIBBLES.0[task.coefficient(n, i)].as_ptr();
                // SAFETY: a coefficient's tables have 16 bytes each and are aligned to that.
                let (of_low, of_high) =
                    unsafe { (_mm_load_si128(table.cast()), _mm_load_si128(table.add(16).cast())) };
                *sum = _mm_xor_si128(*sum, _mm_shuffle_epi8(of_low, low));
                *sum = _mm_xor_si128(*sum, _mm_shuffle_epi8(of_high, high));
            }
        }
        for (&output, sum) in task.outputs.iter().zip(sums) {
            let mut copy = [0u8; STEP];
            let whole = task.byte(output, from);
            let to = if bytes < STEP { copy.as_mut_ptr() } else { whole };
            // SAFETY: as above; of the copy only the shard's bytes are taken over.
            unsafe {
                _mm_storeu_si128(to.cast(), sum);
                if bytes < STEP {
                    std::ptr::copy_nonoverlapping(copy.as_ptr(), whole, bytes);
                }
            }
        }
        at = from + bytes;
    }
}
