//! The ciphers behind aead.rs and datagram.rs: ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (NIST SP 800-38D) with 12-byte
//! nonces and 16-byte tags, one message at a time and in place. Each has two implementations: Intel's libipsec-mb
//! (ipsec_mb.rs) where the processor has the AVX-512 extensions that it is written for, AWS-LC everywhere else. Invariant: plaintext that does
//! not authenticate is wiped. Knows no burst.

use crate::codec::keys::State;
use aws_lc_sys as aws_lc;
use std::ptr;

#[cfg(target_arch = "x86_64")]
#[path = "ciphers/ipsec_mb.rs"]
pub mod ipsec_mb;

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

/// Calls `kernel(text, length, tag)` to seal `sealed`.
fn seal_with(sealed: &mut [u8], kernel: impl FnOnce(*mut u8, u64, *mut u8)) {
    let length = sealed.len() - TAG_BYTES;
    let (text, tag) = sealed.split_at_mut(length);
    kernel(text.as_mut_ptr(), length as u64, tag.as_mut_ptr());
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
