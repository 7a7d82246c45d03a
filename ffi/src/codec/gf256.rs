//! Linear combinations of shards over GF(2^8) with the polynomial 0x11d (RFC 5510 §8.1), which is all that erasure codes
//! do to bytes: outputs = matrix x inputs, byte by byte. By GFNI with AVX-512 or AVX2, by AVX2 alone, or by SSSE3,
//! whichever the processor has; all give the same bytes. Matrices are TypeScript's matter.
//!
//! Small shards decide what it costs, so nothing is prepared: a coefficient's bit matrix or tables are read where they are
//! used, and the last vector of a shard ends where the shard ends, over bytes that are done, which gives the same again.

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU32, Ordering};

const POLYNOMIAL: u32 = 0x11d;
/// Shards on either side, and bytes of one.
const SHARDS_MAX: usize = 255;
/// Where a task's matrix stands, behind room for the offsets of as many shards as there can be.
const MATRIX_AT: usize = 4 * 2 * SHARDS_MAX;
const LENGTH_MAX: u32 = 65_535;
/// Outputs that are computed together, so that an input is loaded once for all of them.
const GROUP: usize = 4;

// Implementations as TypeScript names them.
const FASTEST: u32 = 0;
const SSSE3: u32 = 1;
const AVX2: u32 = 2;
const GFNI_AVX2: u32 = 3;
const GFNI_AVX512: u32 = 4;

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

/// One group of N outputs, at most GROUP. Shards are named by the offsets of their first bytes in `memory`.
/// Invariant: every shard is valid for `length` bytes, and `matrix` for N rows of `inputs.len()` coefficients.
struct Task<'a> {
    memory: *mut u8,
    inputs: &'a [u32],
    outputs: &'a [u32],
    /// No slice: it lies in the same memory, which outputs are written to.
    matrix: *const u8,
    length: usize,
}

impl Task<'_> {
    /// The byte number `at` of a shard.
    #[inline(always)]
    fn byte(&self, shard: u32, at: usize) -> *mut u8 {
        self.memory.wrapping_add(shard as usize + at)
    }

    /// What input `i` counts in output `n`.
    #[inline(always)]
    fn coefficient(&self, n: usize, i: usize) -> usize {
        debug_assert!(n < self.outputs.len() && i < self.inputs.len());
        // SAFETY: within the matrix, as both numbers are below their counts in all the loops below.
        unsafe { *self.matrix.add(n * self.inputs.len() + i) as usize }
    }
}

/// The fastest implementation here, once it is known.
static FASTEST_HERE: AtomicU32 = AtomicU32::new(FASTEST);

fn fastest() -> u32 {
    match FASTEST_HERE.load(Ordering::Relaxed) {
        FASTEST => detect(),
        known => known,
    }
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

/// The implementation that runs here for `wanted` (0 is the fastest), or -ENOTSUP.
#[unsafe(no_mangle)]
pub extern "C" fn ox_gf256_implementation(wanted: u32) -> i32 {
    match wanted {
        FASTEST => fastest() as i32,
        SSSE3..=GFNI_AVX512 if wanted <= fastest() => wanted as i32,
        _ => -libc::ENOTSUP,
    }
}

/// Writes outputs = matrix x inputs. In `memory` stand, at `task_at`, as aligned u32s, the places in it of the first bytes of
/// the inputs and then the outputs, shards of `length` bytes; and MATRIX_AT behind that, for each output, a row of a
/// coefficient for each input. `shape` is the number of inputs, 2^8 times that of outputs and 2^16 times the
/// implementation, not 0. An output that overlaps another shard gets bytes that mean nothing. 0; -EINVAL when a count is 0,
/// a shard longer than 65535, anything outside of `memory`, or an output over the task; -ENOTSUP when the processor lacks
/// the implementation.
///
/// # Safety
/// `memory` is valid for `memory_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_gf256_multiply(
    memory: *mut u8,
    memory_bytes: u32,
    task_at: u32,
    shape: u32,
    length: u32,
) -> i32 {
    let (inputs, outputs, implementation) = (shape as u8 as usize, (shape >> 8) as u8 as usize, shape >> 16);
    if inputs == 0 || outputs == 0 || length > LENGTH_MAX || length > memory_bytes {
        return -libc::EINVAL;
    }
    let task_at = task_at as usize;
    let task_end = task_at + MATRIX_AT + inputs * outputs;
    let offsets = memory.wrapping_add(task_at).cast::<u32>();
    if memory.is_null() || task_end > memory_bytes as usize || !offsets.is_aligned() {
        return -libc::EINVAL;
    }
    if implementation.wrapping_sub(1) >= fastest() {
        return -libc::ENOTSUP;
    }
    // SAFETY: they lie in the memory, in front of the matrix, and are aligned; nothing is written there, as seen below.
    let offsets = unsafe { std::slice::from_raw_parts(offsets, inputs + outputs) };
    let (sources, results) = offsets.split_at(inputs);
    let last = memory_bytes - length;
    let overlaps = |place: u32| (place as usize) < task_end && (place + length) as usize > task_at;
    // One by one, as TypeScript wrote them a moment ago: a wider load would wait for those stores.
    if sources.iter().any(|&place| place > last) {
        return -libc::EINVAL;
    }
    if results.iter().any(|&place| place > last || overlaps(place)) {
        return -libc::EINVAL;
    }
    for (group, results) in results.chunks(GROUP).enumerate() {
        let matrix = memory.wrapping_add(task_at + MATRIX_AT + group * GROUP * inputs);
        let task = Task { memory, inputs: sources, outputs: results, matrix, length: length as usize };
        // SAFETY: shards and matrix were seen to lie in the memory, and the implementation to run here.
        unsafe { run(&task, implementation) };
    }
    0
}

/// Copies `length` bytes at `at` in one memory to `to_at` in another: shards come from where packets are, and symbols go
/// there. 0; -EINVAL for what lies outside of them.
///
/// # Safety
/// `from` is valid for `from_bytes` and `to` for `to_bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_gf256_copy(
    from: *const u8,
    from_bytes: u32,
    at: u32,
    to: *mut u8,
    to_bytes: u32,
    to_at: u32,
    length: u32,
) -> i32 {
    let end = |start: u32| start as u64 + length as u64;
    if from.is_null() || to.is_null() || end(at) > from_bytes as u64 || end(to_at) > to_bytes as u64 {
        return -libc::EINVAL;
    }
    // SAFETY: both ranges were seen to lie in their memories. They may be one, so this is no copy_nonoverlapping.
    unsafe { std::ptr::copy(from.add(at as usize), to.add(to_at as usize), length as usize) };
    0
}

/// # Safety
/// The task's invariant holds, and the processor has the implementation.
unsafe fn run(task: &Task, implementation: u32) {
    // SAFETY: as the caller says; each arm passes the number of outputs that there are.
    unsafe {
        match task.outputs.len() {
            1 => run_for::<1>(task, implementation),
            2 => run_for::<2>(task, implementation),
            3 => run_for::<3>(task, implementation),
            _ => run_for::<GROUP>(task, implementation),
        }
    }
}

/// A shard that is shorter than one vector goes to the next narrower implementation, which the processor has too.
///
/// # Safety
/// As `run`; the task has N outputs.
#[inline(always)]
unsafe fn run_for<const N: usize>(task: &Task, implementation: u32) {
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

/// Covers the shards of `$task` with steps of 4 vectors of `$bytes` bytes where `$four` says that they fit into the
/// registers, else of 2, then with one of as many as are left, of which the last ends where the shard ends.
/// `$step::<N, V>(task, at, last)` does V vectors: V - 1 of them from `at` on, one behind the other, and one at `last`.
macro_rules! cover {
    ($task:ident, $bytes:literal, $step:ident, $four:expr) => {{
        let most = if $four { 4 * $bytes } else { 2 * $bytes };
        let mut at = 0;
        // SAFETY: in all of this, a vector ends within the shard, as those before the last of a step end before it, and the
        // last ends with it at the latest; the rest is as the caller says.
        unsafe {
            while at + most <= $task.length {
                if $four {
                    $step::<N, 4>($task, at, at + 3 * $bytes);
                } else {
                    $step::<N, 2>($task, at, at + $bytes);
                }
                at += most;
            }
            let last = $task.length - $bytes;
            match ($task.length - at).div_ceil($bytes) {
                1 => $step::<N, 1>($task, at, last),
                2 => $step::<N, 2>($task, at, last),
                3 if $four => $step::<N, 3>($task, at, last),
                4 if $four => $step::<N, 4>($task, at, last),
                _ => {}
            }
        }
    }};
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
