//! Both AEADs by Intel's libipsec-mb, through ipsec_mb.c. Invariant: as ciphers.rs says, what does not authenticate is
//! wiped. Does not ask the processor: who chooses these has.

use super::{Cipher, Key, Nonce, TAG_BYTES, seal_with};
use crate::codec::keys::State;
use aws_lc_sys as aws_lc;

unsafe extern "C" {
    fn ox_mb_chacha20_poly1305(
        key: *const u8,
        nonce: *const u8,
        associated: *const u8,
        associated_bytes: u64,
        text: *mut u8,
        length: u64,
        tag: *mut u8,
        seal: i32,
    );
    fn ox_mb_aes256_gcm_expand(key: *const u8, state: *mut GcmState);
    fn ox_mb_aes256_gcm(
        state: *const GcmState,
        nonce: *const u8,
        associated: *const u8,
        associated_bytes: u64,
        text: *mut u8,
        length: u64,
        tag: *mut u8,
        seal: i32,
    );
}

/// Compares the tag behind the text with the one computed over it, in constant time, and wipes what fails.
fn accept(sealed: &mut [u8], tag: &[u8; TAG_BYTES]) -> bool {
    let (text, given) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
    // SAFETY: both sides have TAG_BYTES bytes.
    let is_equal =
        unsafe { aws_lc::CRYPTO_memcmp(given.as_ptr().cast(), tag.as_ptr().cast(), TAG_BYTES) == 0 };
    if !is_equal {
        text.fill(0);
    }
    is_equal
}

/// Calls `kernel(text, length, tag)` to open `sealed`, then judges the tag that it computed.
fn open_with(sealed: &mut [u8], kernel: impl FnOnce(*mut u8, u64, *mut u8)) -> bool {
    let mut tag = [0; TAG_BYTES];
    kernel(sealed.as_mut_ptr(), (sealed.len() - TAG_BYTES) as u64, tag.as_mut_ptr());
    accept(sealed, &tag)
}

/// ChaCha20-Poly1305 by libipsec-mb: AVX-512 and IFMA.
pub struct VectorChaCha20Poly1305;
pub struct ChaChaState(Key);
// SAFETY: bytes.
unsafe impl State for ChaChaState {}

impl Cipher for VectorChaCha20Poly1305 {
    type State = ChaChaState;

    fn expand(key: &Key, state: &mut ChaChaState) {
        state.0 = *key;
    }

    fn seal(state: &ChaChaState, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) {
        let (key, count) = (state.0.as_ptr(), associated.len() as u64);
        seal_with(sealed, |text, length, tag| {
            // SAFETY: every pointer goes with its length; the processor was checked when this cipher was chosen.
            unsafe {
                ox_mb_chacha20_poly1305(key, nonce.as_ptr(), associated.as_ptr(), count, text, length, tag, 1)
            }
        });
    }

    fn open(state: &ChaChaState, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) -> bool {
        let (key, count) = (state.0.as_ptr(), associated.len() as u64);
        open_with(sealed, |text, length, tag| {
            // SAFETY: as in `seal`.
            unsafe {
                ox_mb_chacha20_poly1305(key, nonce.as_ptr(), associated.as_ptr(), count, text, length, tag, 0)
            }
        })
    }
}

/// AES-256-GCM by libipsec-mb: AVX-512, VAES and VPCLMULQDQ.
pub struct VectorAes256Gcm;
#[repr(C, align(64))]
pub struct GcmState([u8; 1024]);
// SAFETY: bytes.
unsafe impl State for GcmState {}

impl Cipher for VectorAes256Gcm {
    type State = GcmState;

    fn expand(key: &Key, state: &mut GcmState) {
        // SAFETY: 32 bytes of key, and ipsec_mb.c asserts that the state has room; it is aligned to 64.
        unsafe { ox_mb_aes256_gcm_expand(key.as_ptr(), state) }
    }

    fn seal(state: &GcmState, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) {
        let count = associated.len() as u64;
        seal_with(sealed, |text, length, tag| {
            // SAFETY: every pointer goes with its length; the processor was checked when this cipher was chosen.
            unsafe {
                ox_mb_aes256_gcm(state, nonce.as_ptr(), associated.as_ptr(), count, text, length, tag, 1)
            }
        });
    }

    fn open(state: &GcmState, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) -> bool {
        let count = associated.len() as u64;
        open_with(sealed, |text, length, tag| {
            // SAFETY: as in `seal`.
            unsafe {
                ox_mb_aes256_gcm(state, nonce.as_ptr(), associated.as_ptr(), count, text, length, tag, 0)
            }
        })
    }
}
