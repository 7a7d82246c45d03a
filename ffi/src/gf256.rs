//! Linear combinations of shards over GF(2^8) with the polynomial 0x11d (RFC 5510 §8.1), which is all that erasure codes
//! do to bytes: outputs = matrix x inputs, byte by byte. By GFNI and AVX-512, AVX2, or SSSE3, whichever the processor
//! has; all give the same bytes. Matrices are TypeScript's matter.

use std::arch::x86_64::*;

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

/// One group of up to GROUP outputs: `matrix` has a row of `inputs.len()` coefficients for each.
struct Task<'a> {
    inputs: &'a [*const u8],
    outputs: &'a [*mut u8],
    matrix: &'a [u8],
    length: usize,
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
    let mut shards = [std::ptr::null_mut::<u8>(); 2 * SHARDS_MAX];
    for (shard, &offset) in shards.iter_mut().zip(offsets) {
        if offset as usize + length > memory_bytes as usize {
            return -libc::EINVAL;
        }
        *shard = memory.wrapping_add(offset as usize);
    }
    let (sources, results) = shards.split_at(inputs);
    let mut from = [std::ptr::null::<u8>(); SHARDS_MAX];
    for (pointer, &shard) in from.iter_mut().zip(sources) {
        *pointer = shard;
    }
    for first in (0..outputs).step_by(GROUP) {
        let last = (first + GROUP).min(outputs);
        let task = Task {
            inputs: &from[..inputs],
            outputs: &results[first..last],
            matrix: &matrix[first * inputs..last * inputs],
            length,
        };
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
    let Task { inputs, outputs, matrix, length } = *task;
    let mut affine = [[0u64; N]; SHARDS_MAX];
    for (i, row) in affine[..inputs.len()].iter_mut().enumerate() {
        for (n, coefficient) in row.iter_mut().enumerate() {
            *coefficient = AFFINE[matrix[n * inputs.len() + i] as usize];
        }
    }
    let affine = &affine[..inputs.len()];
    let mut at = 0;
    while at + 2 * STEP <= length {
        let mut sums = [[_mm512_setzero_si512(); 2]; N];
        for (input, row) in inputs.iter().zip(affine) {
            // SAFETY: at + 128 is within the shard.
            let (low, high) = unsafe {
                (_mm512_loadu_si512(input.add(at).cast()), _mm512_loadu_si512(input.add(at + STEP).cast()))
            };
            for n in 0..N {
                let by = _mm512_set1_epi64(row[n] as i64);
                sums[n][0] = _mm512_xor_si512(sums[n][0], _mm512_gf2p8affine_epi64_epi8::<0>(low, by));
                sums[n][1] = _mm512_xor_si512(sums[n][1], _mm512_gf2p8affine_epi64_epi8::<0>(high, by));
            }
        }
        for n in 0..N {
            // SAFETY: at + 128 is within the shard.
            unsafe {
                _mm512_storeu_si512(outputs[n].add(at).cast(), sums[n][0]);
                _mm512_storeu_si512(outputs[n].add(at + STEP).cast(), sums[n][1]);
            }
        }
        at += 2 * STEP;
    }
    while at < length {
        let rest = (length - at).min(STEP);
        let mask = u64::MAX >> (STEP - rest);
        let mut sums = [_mm512_setzero_si512(); N];
        for (input, row) in inputs.iter().zip(affine) {
            // SAFETY: the mask ends with the shard.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, input.add(at).cast()) };
            for n in 0..N {
                let by = _mm512_set1_epi64(row[n] as i64);
                sums[n] = _mm512_xor_si512(sums[n], _mm512_gf2p8affine_epi64_epi8::<0>(bytes, by));
            }
        }
        for n in 0..N {
            // SAFETY: the mask ends with the shard.
            unsafe { _mm512_mask_storeu_epi8(outputs[n].add(at).cast(), mask, sums[n]) };
        }
        at += rest;
    }
}

/// Runs `chunk` over every whole step of the shards; what is left goes through buffers of one step.
///
/// # Safety
/// As `run`; `chunk` reads and writes `step` bytes, 32 at most, of each shard from the offset that it is given.
#[inline(always)]
unsafe fn by_steps(task: &Task, step: usize, chunk: impl Fn(&[*const u8], &[*mut u8], usize)) {
    let Task { inputs, outputs, length, .. } = *task;
    let mut at = 0;
    while at + step <= length {
        chunk(inputs, outputs, at);
        at += step;
    }
    let rest = length - at;
    if rest == 0 {
        return;
    }
    let mut sources = [[0u8; 32]; SHARDS_MAX];
    let mut results = [[0u8; 32]; GROUP];
    let mut from = [std::ptr::null::<u8>(); SHARDS_MAX];
    let mut to = [std::ptr::null_mut::<u8>(); GROUP];
    for (i, &input) in inputs.iter().enumerate() {
        // SAFETY: `rest` bytes are left of the shard, and fewer than 32.
        unsafe { std::ptr::copy_nonoverlapping(input.add(at), sources[i].as_mut_ptr(), rest) };
        from[i] = sources[i].as_ptr();
    }
    for (pointer, result) in to.iter_mut().zip(&mut results) {
        *pointer = result.as_mut_ptr();
    }
    chunk(&from[..inputs.len()], &to[..outputs.len()], 0);
    for (&output, result) in outputs.iter().zip(&results) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(result.as_ptr(), output.add(at), rest) };
    }
}

/// # Safety
/// As `run`; the task has N outputs.
#[target_feature(enable = "avx2")]
unsafe fn avx2<const N: usize>(task: &Task) {
    let count = task.inputs.len();
    let low_bits = _mm256_set1_epi8(0x0f);
    let chunk = |inputs: &[*const u8], outputs: &[*mut u8], at: usize| {
        let mut sums = [_mm256_setzero_si256(); N];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: by_steps leaves 32 bytes from `at` on.
            let bytes = unsafe { _mm256_loadu_si256(input.add(at).cast()) };
            let low = _mm256_and_si256(bytes, low_bits);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_bits);
            for (n, sum) in sums.iter_mut().enumerate() {
                let table = NIBBLES.0[task.matrix[n * count + i] as usize].as_ptr();
                // SAFETY: a coefficient's table has 32 bytes.
                let (of_low, of_high) = unsafe {
                    (
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(table.cast())),
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(16).cast())),
                    )
                };
                let both =
                    _mm256_xor_si256(_mm256_shuffle_epi8(of_low, low), _mm256_shuffle_epi8(of_high, high));
                *sum = _mm256_xor_si256(*sum, both);
            }
        }
        for (output, sum) in outputs.iter().zip(sums) {
            // SAFETY: by_steps leaves 32 bytes from `at` on.
            unsafe { _mm256_storeu_si256(output.add(at).cast(), sum) };
        }
    };
    // SAFETY: the caller's.
    unsafe { by_steps(task, 32, chunk) }
}

/// # Safety
/// As `run`; the task has N outputs.
#[target_feature(enable = "ssse3")]
unsafe fn ssse3<const N: usize>(task: &Task) {
    let count = task.inputs.len();
    let low_bits = _mm_set1_epi8(0x0f);
    let chunk = |inputs: &[*const u8], outputs: &[*mut u8], at: usize| {
        let mut sums = [_mm_setzero_si128(); N];
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: by_steps leaves 16 bytes from `at` on.
            let bytes = unsafe { _mm_loadu_si128(input.add(at).cast()) };
            let low = _mm_and_si128(bytes, low_bits);
            let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), low_bits);
            for (n, sum) in sums.iter_mut().enumerate() {
                let table = NIBBLES.0[task.matrix[n * count + i] as usize].as_ptr();
                // SAFETY: a coefficient's table has 32 bytes.
                let (of_low, of_high) =
                    unsafe { (_mm_loadu_si128(table.cast()), _mm_loadu_si128(table.add(16).cast())) };
                let both = _mm_xor_si128(_mm_shuffle_epi8(of_low, low), _mm_shuffle_epi8(of_high, high));
                *sum = _mm_xor_si128(*sum, both);
            }
        }
        for (output, sum) in outputs.iter().zip(sums) {
            // SAFETY: by_steps leaves 16 bytes from `at` on.
            unsafe { _mm_storeu_si128(output.add(at).cast(), sum) };
        }
    };
    // SAFETY: the caller's.
    unsafe { by_steps(task, 16, chunk) }
}
