//! X25519 (RFC 7748) by AWS-LC, for handshakes. Keeps no key.

type Point = [u8; 32];

/// Writes the 32-byte public key of a 32-byte private key.
///
/// # Safety
/// Both are valid for 32 bytes and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_x25519_public(private: *const u8, out: *mut u8) -> i32 {
    if private.is_null() || out.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives 32 bytes each.
    unsafe { aws_lc_sys::X25519_public_from_private(out, private) };
    0
}

/// Writes the 32-byte shared secret. -EINVAL, with `out` zero, when it is all zero: a point of low order (§6.1).
///
/// # Safety
/// All are valid for 32 bytes, and `out` overlaps no other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_x25519_shared(private: *const u8, public: *const u8, out: *mut u8) -> i32 {
    if private.is_null() || public.is_null() || out.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives 32 bytes each. X25519 returns 0 for an all-zero secret.
    if unsafe { aws_lc_sys::X25519(out, private, public) } == 1 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { out.cast::<Point>().write_unaligned([0; 32]) };
    -libc::EINVAL
}
