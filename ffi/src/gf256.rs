//! Linear combinations of shards over GF(2^8) with the polynomial 0x11d (RFC 5510 §8.1), which is all that erasure codes
//! do to bytes: outputs = matrix x inputs, byte by byte. By GFNI and AVX-512, AVX2, or SSSE3, whichever the processor
//! has; all give the same bytes. Matrices are TypeScript's matter.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

const POLYNOMIAL: u32 = 0x11d;
/// Shards on either side, and bytes of one.
const SHARDS_MAX: usize = 255;
const LENGTH_MAX: usize = 65_535;
/// Outputs that are computed together, so that an input is loaded once for all of them.
const GROUP: usize = 4;

// Implementations as TypeScript names them.
const FASTEST: u32 = 0;
const SSSE3: u32 = 1;
const AVX2: u32 = 2;
const GFNI: u32 = 3;

const fn product(a: u8, b: u8) -> u8 {
    let (mut shifted, mut sum, mut bit) = (a as u32, 0, 0);
    while bit < 8 {
        if (b >> bit) & 1 == 1 {
            sum ^= shifted;
        }
        shifted <<= 1;
        if shifted & 0x100 != 0 {
            shifted ^= POLYNOMIAL;
        }
        bit += 1;
    }
    sum as u8
}

/// For each coefficient the products of it with 0..15, then with 0x00, 0x10, … 0xf0: what PSHUFB looks up.
#[repr(align(32))]
struct Nibbles([[u8; 32]; 256]);

static NIBBLES: Nibbles = {
    let mut table = [[0; 32]; 256];
    let mut c = 0;
    while c < 256 {
        let mut n = 0;
        while n < 16 {
            table[c][n] = product(c as u8, n as u8);
            table[c][16 + n] = product(c as u8, (n << 4) as u8);
            n += 1;
        }
        c += 1;
    }
    Nibbles(table)
};

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

/// One group of up to GROUP outputs: `matrix` has a row of `inputs.len()` coefficients for each. Shards are named by the
/// offsets of their first bytes in `memory`.
struct Task<'a> {
    memory: *mut u8,
    inputs: &'a [u32],
    outputs: &'a [u32],
    matrix: &'a [u8],
    length: usize,
}

impl Task<'_> {
    /// The byte number `at` of a shard.
    #[inline(always)]
    fn byte(&self, shard: u32, at: usize) -> *mut u8 {
        self.memory.wrapping_add(shard as usize + at)
    }
}

fn fastest() -> u32 {
    if is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512bw") {
        GFNI
    } else if is_x86_feature_detected!("avx2") {
        AVX2
    } else {
        SSSE3
    }
}

/// The implementation that runs here for `wanted` (0 is the fastest), or -ENOTSUP.
#[unsafe(no_mangle)]
pub extern "C" fn ox_gf256_implementation(wanted: u32) -> i32 {
    match wanted {
        FASTEST => fastest() as i32,
        SSSE3..=GFNI if wanted <= fastest() => wanted as i32,
        _ => -libc::ENOTSUP,
    }
}

/// Writes outputs = matrix x inputs. `offsets` names the first bytes of `inputs` + `outputs` shards of `length` bytes in
/// `memory`; `matrix` has `outputs` rows of `inputs` coefficients. An output must not overlap any other shard, or
/// its bytes mean nothing. 0; -EINVAL when a count is 0 or above 255, a shard longer than 65535 or outside of `memory`;
/// -ENOTSUP when the processor lacks `implementation`.
///
/// # Safety
/// `memory` is valid for `memory_bytes`, `offsets` for `inputs` + `outputs` words, `matrix` for their product in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_gf256_multiply(
    memory: *mut u8,
    memory_bytes: u32,
    offsets: *const u32,
    matrix: *const u8,
    inputs: u32,
    outputs: u32,
    length: u32,
    implementation: u32,
) -> i32 {
    let (inputs, outputs, length) = (inputs as usize, outputs as usize, length as usize);
    let counts = 1..=SHARDS_MAX;
    if memory.is_null() || offsets.is_null() || matrix.is_null() {
        return -libc::EINVAL;
    }
    if !counts.contains(&inputs) || !counts.contains(&outputs) || length > LENGTH_MAX {
        return -libc::EINVAL;
    }
    let implementation = ox_gf256_implementation(implementation);
    if implementation < 0 {
        return implementation;
    }
    // SAFETY: the caller gives both lengths.
    let (offsets, matrix) = unsafe {
        (
            std::slice::from_raw_parts(offsets, inputs + outputs),
            std::slice::from_raw_parts(matrix, inputs * outputs),
        )
    };
    if offsets.iter().any(|&offset| offset as usize + length > memory_bytes as usize) {
        return -libc::EINVAL;
    }
    let (sources, results) = offsets.split_at(inputs);
    for (group, rows) in results.chunks(GROUP).zip(matrix.chunks(GROUP * inputs)) {
        let task = Task { memory, inputs: sources, outputs: group, matrix: rows, length };
        // SAFETY: every shard was seen to lie in the memory, and the implementation to run here.
        unsafe { run(&task, implementation as u32) };
    }
    0
}

/// # Safety
/// Every shard of the task is valid for its length, and the processor has the implementation.
unsafe fn run(task: &Task, implementation: u32) {
    // SAFETY: as the caller says; each arm passes the number of outputs that there are.
    unsafe {
        match (implementation, task.outputs.len()) {
            (GFNI, 1) => gfni::<1>(task),
            (GFNI, 2) => gfni::<2>(task),
            (GFNI, 3) => gfni::<3>(task),
            (GFNI, _) => gfni::<4>(task),
            (AVX2, 1) => avx2::<1>(task),
            (AVX2, 2) => avx2::<2>(task),
            (AVX2, 3) => avx2::<3>(task),
            (AVX2, _) => avx2::<4>(task),
            (_, 1) => ssse3::<1>(task),
            (_, 2) => ssse3::<2>(task),
            (_, 3) => ssse3::<3>(task),
            (_, _) => ssse3::<4>(task),
        }
    }
}

/// # Safety
/// As `run`; the task has N outputs.
#[target_feature(enable = "gfni,avx512f,avx512bw")]
unsafe fn gfni<const N: usize>(task: &Task) {
    const STEP: usize = 64;
    let count = task.inputs.len();
    // Not zeroed: for small shards that would cost more than the work.
    let mut affine = [const { MaybeUninit::<[u64; N]>::uninit() }; SHARDS_MAX];
    for (i, row) in affine[..count].iter_mut().enumerate() {
        row.write(std::array::from_fn(|n| AFFINE[task.matrix[n * count + i] as usize]));
    }
    // SAFETY: as many were just written.
    let affine = unsafe { std::slice::from_raw_parts(affine.as_ptr().cast::<[u64; N]>(), count) };
    let mut at = 0;
    while at + 2 * STEP <= task.length {
        let mut sums = [[_mm512_setzero_si512(); 2]; N];
        for (&input, row) in task.inputs.iter().zip(affine) {
            let from = task.byte(input, at);
            // SAFETY: at + 128 is within the shard.
            let (first, second) =
                unsafe { (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(STEP).cast())) };
            for (sum, &by) in sums.iter_mut().zip(row) {
                let by = _mm512_set1_epi64(by as i64);
                sum[0] = _mm512_xor_si512(sum[0], _mm512_gf2p8affine_epi64_epi8::<0>(first, by));
                sum[1] = _mm512_xor_si512(sum[1], _mm512_gf2p8affine_epi64_epi8::<0>(second, by));
            }
        }
        for (&output, sum) in task.outputs.iter().zip(sums) {
            let to = task.byte(output, at);
            // SAFETY: at + 128 is within the shard.
            unsafe {
                _mm512_storeu_si512(to.cast(), sum[0]);
                _mm512_storeu_si512(to.add(STEP).cast(), sum[1]);
            }
        }
        at += 2 * STEP;
    }
    while at < task.length {
        let rest = (task.length - at).min(STEP);
        let mask = u64::MAX >> (STEP - rest);
        let mut sums = [_mm512_setzero_si512(); N];
        for (&input, row) in task.inputs.iter().zip(affine) {
            // SAFETY: the mask ends with the shard.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, task.byte(input, at).cast()) };
            for (sum, &by) in sums.iter_mut().zip(row) {
                let by = _mm512_set1_epi64(by as i64);
                *sum = _mm512_xor_si512(*sum, _mm512_gf2p8affine_epi64_epi8::<0>(bytes, by));
            }
        }
        for (&output, sum) in task.outputs.iter().zip(sums) {
            // SAFETY: the mask ends with the shard.
            unsafe { _mm512_mask_storeu_epi8(task.byte(output, at).cast(), mask, sum) };
        }
        at += rest;
    }
}

/// Covers the shards with steps: the last one ends where the shard ends and may go over bytes that are done, which gives
/// the same again. `step` is told where, and how many bytes there are when the whole shard has fewer than STEP.
#[inline(always)]
fn by_steps<const STEP: usize>(length: usize, mut step: impl FnMut(usize, usize)) {
    if length < STEP {
        if length > 0 {
            step(0, length);
        }
        return;
    }
    let mut at = 0;
    while at + STEP <= length {
        step(at, STEP);
        at += STEP;
    }
    if at < length {
        step(length - STEP, STEP);
    }
}

/// # Safety
/// As `run`; the task has N outputs.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const N: usize>(task: &Task) {
    const HALF: usize = 32;
    let count = task.inputs.len();
    let low_bits = _mm256_set1_epi8(0x0f);
    by_steps::<{ 2 * HALF }>(task.length, |at, bytes| {
        let mut sums = [[_mm256_setzero_si256(); 2]; N];
        for (i, &input) in task.inputs.iter().enumerate() {
            let mut copy = [0u8; 2 * HALF];
            let mut from = task.byte(input, at).cast_const();
            if bytes < 2 * HALF {
                // SAFETY: the shard has so many bytes from `at` on.
                unsafe { std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), bytes) };
                from = copy.as_ptr();
            }
            // SAFETY: a whole step, or the copy, has 64 bytes.
            let halves =
                unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(HALF).cast())] };
            let low = halves.map(|half| _mm256_and_si256(half, low_bits));
            let high = halves.map(|half| _mm256_and_si256(_mm256_srli_epi16::<4>(half), low_bits));
            for (n, sum) in sums.iter_mut().enumerate() {
                let table = NIBBLES.0[task.matrix[n * count + i] as usize].as_ptr();
                // SAFETY: a coefficient's table has 32 bytes.
                let (of_low, of_high) = unsafe {
                    (
                        _mm256_broadcastsi128_si256(_mm_load_si128(table.cast())),
                        _mm256_broadcastsi128_si256(_mm_load_si128(table.add(16).cast())),
                    )
                };
                for half in 0..2 {
                    sum[half] = _mm256_xor_si256(sum[half], _mm256_shuffle_epi8(of_low, low[half]));
                    sum[half] = _mm256_xor_si256(sum[half], _mm256_shuffle_epi8(of_high, high[half]));
                }
            }
        }
        for (&output, sum) in task.outputs.iter().zip(sums) {
            let mut copy = [0u8; 2 * HALF];
            let whole = task.byte(output, at);
            let to = if bytes < 2 * HALF { copy.as_mut_ptr() } else { whole };
            // SAFETY: as above; of the copy only the shard's bytes are taken over.
            unsafe {
                _mm256_storeu_si256(to.cast(), sum[0]);
                _mm256_storeu_si256(to.add(HALF).cast(), sum[1]);
                if bytes < 2 * HALF {
                    std::ptr::copy_nonoverlapping(copy.as_ptr(), whole, bytes);
                }
            }
        }
    });
}

/// # Safety
/// As `run`; the task has N outputs.
#[target_feature(enable = "ssse3")]
unsafe fn ssse3<const N: usize>(task: &Task) {
    const STEP: usize = 16;
    let count = task.inputs.len();
    let low_bits = _mm_set1_epi8(0x0f);
    by_steps::<STEP>(task.length, |at, bytes| {
        let mut sums = [_mm_setzero_si128(); N];
        for (i, &input) in task.inputs.iter().enumerate() {
            let mut copy = [0u8; STEP];
            let mut from = task.byte(input, at).cast_const();
            if bytes < STEP {
                // SAFETY: the shard has so many bytes from `at` on.
                unsafe { std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), bytes) };
                from = copy.as_ptr();
            }
            // SAFETY: a whole step, or the copy, has 16 bytes.
            let all = unsafe { _mm_loadu_si128(from.cast()) };
            let low = _mm_and_si128(all, low_bits);
            let high = _mm_and_si128(_mm_srli_epi16::<4>(all), low_bits);
            for (n, sum) in sums.iter_mut().enumerate() {
                let table = NIBBLES.0[task.matrix[n * count + i] as usize].as_ptr();
                // SAFETY: a coefficient's table has 32 bytes.
                let (of_low, of_high) =
                    unsafe { (_mm_load_si128(table.cast()), _mm_load_si128(table.add(16).cast())) };
                *sum = _mm_xor_si128(*sum, _mm_shuffle_epi8(of_low, low));
                *sum = _mm_xor_si128(*sum, _mm_shuffle_epi8(of_high, high));
            }
        }
        for (&output, sum) in task.outputs.iter().zip(sums) {
            let mut copy = [0u8; STEP];
            let whole = task.byte(output, at);
            let to = if bytes < STEP { copy.as_mut_ptr() } else { whole };
            // SAFETY: as above; of the copy only the shard's bytes are taken over.
            unsafe {
                _mm_storeu_si128(to.cast(), sum);
                if bytes < STEP {
                    std::ptr::copy_nonoverlapping(copy.as_ptr(), whole, bytes);
                }
            }
        }
    });
}
