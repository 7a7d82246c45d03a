//! Linear combinations of shards over GF(2^8) with the polynomial 0x11d (RFC 5510 §8.1), which is all that erasure codes
//! do to bytes: outputs = matrix x inputs, byte by byte. By the widest vectors that the processor has (x86_64.rs,
//! aarch64.rs); all give the same bytes. Matrices are TypeScript's matter.
//!
//! Small shards decide what it costs, so nothing is prepared: a coefficient's bit matrix or tables are read where they are
//! used, and the last vector of a shard ends where the shard ends, over bytes that are done, which gives the same again.

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

#[cfg(target_arch = "aarch64")]
#[path = "gf256/aarch64.rs"]
mod vectors;
#[cfg(target_arch = "x86_64")]
#[path = "gf256/x86_64.rs"]
mod vectors;

const POLYNOMIAL: u32 = 0x11d;
/// Shards on either side, and bytes of one.
const SHARDS_MAX: usize = 255;
/// Where a task's matrix stands, behind room for the offsets of as many shards as there can be.
const MATRIX_AT: usize = 4 * 2 * SHARDS_MAX;
const LENGTH_MAX: u32 = 65_535;
/// Outputs that are computed together, so that an input is loaded once for all of them.
const GROUP: usize = 4;

/// What TypeScript says for the fastest implementation.
const FASTEST: u32 = 0;

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

/// The implementation that runs here for `wanted` (0 is the fastest), or -ENOTSUP.
#[unsafe(no_mangle)]
pub extern "C" fn ox_gf256_implementation(wanted: u32) -> i32 {
    match wanted {
        FASTEST => vectors::fastest() as i32,
        _ if vectors::runs(wanted) => wanted as i32,
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
    if !vectors::runs(implementation) {
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
            1 => vectors::run_for::<1>(task, implementation),
            2 => vectors::run_for::<2>(task, implementation),
            3 => vectors::run_for::<3>(task, implementation),
            _ => vectors::run_for::<GROUP>(task, implementation),
        }
    }
}
