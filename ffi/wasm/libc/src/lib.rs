//! What the TCP stack calls of Linux's C library, by two functions of the WebAssembly host: a clock and random numbers. Invariant: names,
//! numbers and layouts are Linux's, so that the stack is compiled as it is. Has nothing else.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

pub const EIO: i32 = 5;
pub const ENOMEM: i32 = 12;
pub const EINVAL: i32 = 22;
pub const EMFILE: i32 = 24;
pub const ENETUNREACH: i32 = 101;
pub const CLOCK_MONOTONIC: i32 = 1;

pub type c_void = core::ffi::c_void;

#[repr(C)]
pub struct timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

#[link(wasm_import_module = "host")]
unsafe extern "C" {
    /// Microseconds of a clock that never goes back.
    safe fn now_us() -> f64;
    /// 32 bits that nobody can guess.
    safe fn random() -> u32;
}

pub unsafe fn clock_gettime(_clock: i32, time: *mut timespec) -> i32 {
    let us = now_us() as i64;
    // SAFETY: the caller's pointer is valid.
    unsafe { *time = timespec { tv_sec: us / 1_000_000, tv_nsec: us % 1_000_000 * 1000 } };
    0
}

pub unsafe fn getrandom(into: *mut c_void, length: usize, _flags: u32) -> isize {
    for at in 0..length {
        // SAFETY: the caller's buffer is valid for `length` bytes.
        unsafe { *into.cast::<u8>().add(at) = random() as u8 };
    }
    length as isize
}
