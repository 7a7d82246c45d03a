//! The ciphers behind aead.rs and datagram.rs: ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (NIST SP 800-38D) with 12-byte
//! nonces and 16-byte tags, one message at a time and in place. Each has two implementations: Intel's libipsec-mb where
//! the processor has the AVX-512 extensions that it is written for, AWS-LC everywhere else. Invariant: plaintext that does
//! not authenticate is wiped. Knows no burst.

use crate::codec::keys::State;
use aws_lc_sys as aws_lc;
use std::ptr;

pub const CHACHA20_POLY1305: u32 = 1;
pub const AES_256_GCM: u32 = 2;

pub const KEY_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 12;
pub const TAG_BYTES: usize = 16;

pub type Key = [u8; KEY_BYTES];
pub type Nonce = [u8; NONCE_BYTES];

/// One implementation of one AEAD. `sealed` is the text followed by room for, or the bytes of, its tag.
pub trait Cipher {
    type State: State + 'static;
    /// Fills a state from a key.
    fn expand(key: &Key, state: &mut Self::State);
    /// Encrypts in place and appends the tag.
    fn seal(state: &Self::State, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]);
    /// Decrypts in place. False, with the text wiped, when the tag is not the text's.
    fn open(state: &Self::State, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) -> bool;
}

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

/// Calls `kernel(text, length, tag)` to seal `sealed`.
fn seal_with(sealed: &mut [u8], kernel: impl FnOnce(*mut u8, u64, *mut u8)) {
    let length = sealed.len() - TAG_BYTES;
    let (text, tag) = sealed.split_at_mut(length);
    kernel(text.as_mut_ptr(), length as u64, tag.as_mut_ptr());
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

/// Either AEAD by AWS-LC, which chooses by processor itself.
pub struct AwsLc<const ALGORITHM: u32>;
// SAFETY: a C struct of pointers, integers and a union of bytes. The state of both AEADs lies inside it, and
// their clean-up does nothing, so that overwriting it is enough.
unsafe impl State for aws_lc::EVP_AEAD_CTX {}

impl<const ALGORITHM: u32> Cipher for AwsLc<ALGORITHM> {
    type State = aws_lc::EVP_AEAD_CTX;

    fn expand(key: &Key, state: &mut aws_lc::EVP_AEAD_CTX) {
        // SAFETY: the key has the length that both AEADs want, so this cannot fail.
        let done = unsafe {
            let aead = match ALGORITHM {
                AES_256_GCM => aws_lc::EVP_aead_aes_256_gcm(),
                _ => aws_lc::EVP_aead_chacha20_poly1305(),
            };
            aws_lc::EVP_AEAD_CTX_init(state, aead, key.as_ptr(), KEY_BYTES, TAG_BYTES, ptr::null_mut())
        };
        assert_eq!(done, 1, "a 32-byte key and a 16-byte tag are always accepted");
    }

    fn seal(state: &aws_lc::EVP_AEAD_CTX, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) {
        seal_with(sealed, |text, length, tag| {
            let mut tag_bytes = 0;
            // SAFETY: every pointer goes with its length; in and out may be the same.
            let done = unsafe {
                aws_lc::EVP_AEAD_CTX_seal_scatter(
                    state,
                    text,
                    tag,
                    &mut tag_bytes,
                    TAG_BYTES,
                    nonce.as_ptr(),
                    NONCE_BYTES,
                    text,
                    length as usize,
                    ptr::null(),
                    0,
                    associated.as_ptr(),
                    associated.len(),
                )
            };
            // A row's plaintext must never leave as it is.
            assert_eq!(done, 1, "sealing fails only for sizes that never occur here");
        });
    }

    fn open(state: &aws_lc::EVP_AEAD_CTX, nonce: &Nonce, associated: &[u8], sealed: &mut [u8]) -> bool {
        let (text, tag) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        let start = text.as_mut_ptr();
        // SAFETY: every pointer goes with its length; in and out may be the same. On failure it wipes the text and
        // queues an error, of which the queue keeps the last few: it does not grow.
        unsafe {
            aws_lc::EVP_AEAD_CTX_open_gather(
                state,
                start,
                nonce.as_ptr(),
                NONCE_BYTES,
                start,
                text.len(),
                tag.as_ptr(),
                TAG_BYTES,
                associated.as_ptr(),
                associated.len(),
            ) == 1
        }
    }
}
