//! Products of shards by NEON's table look-ups, which every aarch64 processor has. Invariant: writes the same bytes as
//! x86_64.rs. Judges no task: gf256.rs has seen that its shards and matrix lie in the memory.

use super::{NIBBLES, Task};
use std::arch::aarch64::*;

/// The only implementation, as TypeScript names it.
const NEON: u32 = 5;
/// Bytes of one vector.
const VECTOR: usize = 16;

/// The number of the fastest implementation that this processor runs.
pub fn fastest() -> u32 {
    NEON
}

/// Whether the implementation, not FASTEST, runs here.
pub fn runs(implementation: u32) -> bool {
    implementation == NEON
}

/// # Safety
/// As `run`; the task has N outputs.
#[inline(always)]
pub unsafe fn run_for<const N: usize>(task: &Task, _implementation: u32) {
    // SAFETY: as the caller says; each length was checked here.
    unsafe {
        if task.length >= VECTOR {
            whole::<N>(task);
        } else {
            short::<N>(task);
        }
    }
}

/// # Safety
/// As `run_for`; the shards have at least one vector.
unsafe fn whole<const N: usize>(task: &Task) {
    // 32 registers: 4 sums for each of 4 outputs, 8 halves of inputs, tables and products.
    cover!(task, 16, step, N <= 4);
}

/// The sum with the products of both halves of some bytes, and the coefficient that the tables are of.
#[inline(always)]
fn add_product(sum: uint8x16_t, tables: [uint8x16_t; 2], low: uint8x16_t, high: uint8x16_t) -> uint8x16_t {
    // SAFETY: NEON is part of the target.
    unsafe { veorq_u8(sum, veorq_u8(vqtbl1q_u8(tables[0], low), vqtbl1q_u8(tables[1], high))) }
}

/// A coefficient's tables, of low and of high halves.
#[inline(always)]
fn tables_of(coefficient: usize) -> [uint8x16_t; 2] {
    let table = NIBBLES.0[coefficient].as_ptr();
    // SAFETY: a coefficient's tables have 16 bytes each.
    unsafe { [vld1q_u8(table), vld1q_u8(table.add(VECTOR))] }
}

/// # Safety
/// As `run_for`; all V vectors, as `cover` places them, lie within the shards.
#[inline(always)]
unsafe fn step<const N: usize, const V: usize>(task: &Task, at: usize, last: usize) {
    // SAFETY: all vectors lie within their shards.
    unsafe {
        let mut sums = [[vdupq_n_u8(0); V]; N];
        for (i, &input) in task.inputs.iter().enumerate() {
            let mut low = [vdupq_n_u8(0); V];
            let mut high = [vdupq_n_u8(0); V];
            for v in 0..V {
                let place = if v + 1 == V { last } else { at + v * VECTOR };
                let bytes = vld1q_u8(task.byte(input, place));
                low[v] = vandq_u8(bytes, vdupq_n_u8(0x0f));
                high[v] = vshrq_n_u8::<4>(bytes);
            }
            for (n, sums) in sums.iter_mut().enumerate() {
                let tables = tables_of(task.coefficient(n, i));
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = add_product(*sum, tables, low[v], high[v]);
                }
            }
        }
        for (&output, sums) in task.outputs.iter().zip(&sums) {
            for (v, &sum) in sums.iter().enumerate() {
                let place = if v + 1 == V { last } else { at + v * VECTOR };
                vst1q_u8(task.byte(output, place), sum);
            }
        }
    }
}

/// # Safety
/// As `run_for`; the shards are shorter than one vector.
unsafe fn short<const N: usize>(task: &Task) {
    let mut sums = [[0u8; VECTOR]; N];
    for (i, &input) in task.inputs.iter().enumerate() {
        let mut bytes = [0u8; VECTOR];
        // SAFETY: the shard has `length` bytes, fewer than a vector.
        unsafe { std::ptr::copy_nonoverlapping(task.byte(input, 0), bytes.as_mut_ptr(), task.length) };
        for (n, sum) in sums.iter_mut().enumerate() {
            let tables = tables_of(task.coefficient(n, i));
            // SAFETY: both arrays are one vector.
            unsafe {
                let all = vld1q_u8(bytes.as_ptr());
                let (low, high) = (vandq_u8(all, vdupq_n_u8(0x0f)), vshrq_n_u8::<4>(all));
                vst1q_u8(sum.as_mut_ptr(), add_product(vld1q_u8(sum.as_ptr()), tables, low, high));
            }
        }
    }
    for (&output, sum) in task.outputs.iter().zip(&sums) {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(sum.as_ptr(), task.byte(output, 0), task.length) };
    }
}
