//! Transport encryption of a burst in place, and one message at a time for handshakes and vectors, by the ciphers of
//! ciphers.rs: which of them runs here, the tables of keys, and the calls for WireGuard's packets. Invariant: plaintext
//! that does not authenticate is wiped, and its row gets the step that the caller gave for it.

#[cfg(target_arch = "x86_64")]
use crate::codec::ciphers::ipsec_mb::{VectorAes256Gcm, VectorChaCha20Poly1305};
use crate::codec::ciphers::{
    AES_256_GCM, AwsLc, CHACHA20_POLY1305, Cipher, Key, NONCE_BYTES, Nonce, TAG_BYTES,
};
use crate::codec::keys::{Direction, KeyMemory};
use crate::layout::{Arena, BURST_CAPACITY, Block, OPENED, TO_OPEN, TO_SEAL, TO_TRANSMIT, Table, with_burst};
use aws_lc_sys as aws_lc;
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Rows ahead whose keys are asked for: this many packets take longer than memory does, however short they are.
pub const ROWS_AHEAD: usize = 4;
/// WireGuard's header in front of the ciphertext: type, receiver index, counter.
const DATA_HEADER_BYTES: u32 = 16;
/// Rows that one table may have.
pub const MAX_ROWS: u32 = 1 << 20;

/// The path's number and the counter, little-endian; None for what is no integer of 0 to 2^53 - 1. WireGuard's path is 0.
pub fn nonce_of(path: u32, counter: f64) -> Option<Nonce> {
    let value = counter as u64;
    if value as f64 != counter || value >= 1 << 53 {
        return None;
    }
    let mut nonce = [0; NONCE_BYTES];
    nonce[..4].copy_from_slice(&path.to_le_bytes());
    nonce[4..].copy_from_slice(&value.to_le_bytes());
    Some(nonce)
}

fn seal_row<C: Cipher>(
    keys: &KeyMemory<C::State>,
    block: &mut Block,
    arena: &mut Arena,
    row: usize,
) -> Option<()> {
    let state = keys.get(block.session[row], Direction::Send)?;
    let nonce = nonce_of(0, block.counter[row])?;
    let header = block.offset[row].checked_sub(DATA_HEADER_BYTES)?;
    let sealed = arena.slice(block.offset[row], block.length[row] as usize + TAG_BYTES)?;
    C::seal(state, &nonce, &[], sealed);
    block.offset[row] = header;
    block.length[row] = DATA_HEADER_BYTES + sealed.len() as u32;
    Some(())
}

fn open_row<C: Cipher>(
    keys: &KeyMemory<C::State>,
    block: &mut Block,
    arena: &mut Arena,
    row: usize,
) -> Option<()> {
    let state = keys.get(block.session[row], Direction::Receive)?;
    let nonce = nonce_of(0, block.counter[row])?;
    let start = block.offset[row].checked_add(DATA_HEADER_BYTES)?;
    let sealed = arena.slice(start, block.length[row].checked_sub(DATA_HEADER_BYTES)? as usize)?;
    let length = sealed.len().checked_sub(TAG_BYTES)?;
    C::open(state, &nonce, &[], sealed).then_some(())?;
    block.offset[row] = start;
    block.length[row] = length as u32;
    Some(())
}

/// A key table of any implementation; one dynamic call a burst.
trait Keys {
    fn is_locked(&self) -> bool;
    fn install(&mut self, row: u32, send: &Key, receive: &Key) -> bool;
    fn erase(&mut self, row: u32) -> bool;
    fn seal(&self, block: &mut Block, arena: &mut Arena, count: usize, refused: u8);
    fn open(&self, block: &mut Block, arena: &mut Arena, count: usize, refused: u8);
}

struct CipherKeys<C: Cipher>(KeyMemory<C::State>);

impl<C: Cipher> CipherKeys<C> {
    /// At `row`: asks for the keys of a row further on, unless they are those that are used now.
    fn prefetch(&self, block: &Block, count: usize, row: usize, direction: Direction) {
        let ahead = row + ROWS_AHEAD;
        if ahead < count && block.session[ahead] != block.session[ahead - 1] {
            self.0.prefetch(block.session[ahead], direction);
        }
    }
}

impl<C: Cipher> Keys for CipherKeys<C> {
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn install(&mut self, row: u32, send: &Key, receive: &Key) -> bool {
        self.0.install(row, |direction, state| C::expand(direction.of(send, receive), state))
    }

    fn erase(&mut self, row: u32) -> bool {
        self.0.erase(row)
    }

    fn seal(&self, block: &mut Block, arena: &mut Arena, count: usize, refused: u8) {
        for row in 0..count {
            self.prefetch(block, count, row, Direction::Send);
            if block.next[row] == TO_SEAL {
                let done = seal_row::<C>(&self.0, block, arena, row);
                block.next[row] = if done.is_some() { TO_TRANSMIT } else { refused };
            }
        }
    }

    fn open(&self, block: &mut Block, arena: &mut Arena, count: usize, refused: u8) {
        for row in 0..count {
            self.prefetch(block, count, row, Direction::Receive);
            if block.next[row] == TO_OPEN {
                let done = open_row::<C>(&self.0, block, arena, row);
                block.next[row] = if done.is_some() { OPENED } else { refused };
            }
        }
    }
}

/// One message with a key of its own.
fn once<C: Cipher>(key: &Key, nonce: &Nonce, associated: &[u8], sealed: &mut [u8], seal: bool) -> bool {
    let mut state = MaybeUninit::<C::State>::zeroed();
    // SAFETY: all bytes zero is a valid state, by the contract of State.
    let expanded = unsafe { state.assume_init_mut() };
    C::expand(key, expanded);
    let done = if seal {
        C::seal(expanded, nonce, associated, sealed);
        true
    } else {
        C::open(expanded, nonce, associated, sealed)
    };
    // SAFETY: the state is plain memory of this size.
    unsafe { aws_lc::OPENSSL_cleanse(state.as_mut_ptr().cast(), size_of::<C::State>()) };
    done
}

/// What an implementation offers, past the types.
struct Implementation {
    new_keys: fn(rows: u32) -> Result<Box<dyn Keys>, i32>,
    once: fn(&Key, &Nonce, &[u8], &mut [u8], bool) -> bool,
}

const fn implementation<C: Cipher + 'static>() -> Implementation {
    Implementation { new_keys: |rows| Ok(Box::new(CipherKeys::<C>(KeyMemory::new(rows)?))), once: once::<C> }
}

/// The implementation for this processor that measured fastest.
const FASTEST: u32 = 0;
/// AWS-LC, whatever the processor.
const AWS_LC: u32 = 1;
/// libipsec-mb, or nothing where the processor cannot run it.
pub const IPSEC_MB: u32 = 2;

/// Whether libipsec-mb's kernels for the algorithm run on this processor.
#[cfg(target_arch = "x86_64")]
fn can_vector(algorithm: u32) -> bool {
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("bmi2");
    match algorithm {
        CHACHA20_POLY1305 => has_avx512 && is_x86_feature_detected!("avx512ifma"),
        _ => has_avx512 && is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq"),
    }
}

/// libipsec-mb is for x86-64 alone.
#[cfg(not(target_arch = "x86_64"))]
fn can_vector(_algorithm: u32) -> bool {
    false
}

/// Which of AWS_LC and IPSEC_MB is meant here; None for an unknown algorithm or one that cannot run.
pub fn resolve(algorithm: u32, choice: u32) -> Option<u32> {
    if !matches!(algorithm, CHACHA20_POLY1305 | AES_256_GCM) {
        return None;
    }
    match choice {
        FASTEST => Some(if can_vector(algorithm) { IPSEC_MB } else { AWS_LC }),
        AWS_LC => Some(AWS_LC),
        IPSEC_MB if can_vector(algorithm) => Some(IPSEC_MB),
        _ => None,
    }
}

fn choose(algorithm: u32, choice: u32) -> Option<Implementation> {
    Some(match (algorithm, resolve(algorithm, choice)?) {
        #[cfg(target_arch = "x86_64")]
        (CHACHA20_POLY1305, IPSEC_MB) => implementation::<VectorChaCha20Poly1305>(),
        #[cfg(target_arch = "x86_64")]
        (AES_256_GCM, IPSEC_MB) => implementation::<VectorAes256Gcm>(),
        (CHACHA20_POLY1305, _) => implementation::<AwsLc<CHACHA20_POLY1305>>(),
        (_, _) => implementation::<AwsLc<AES_256_GCM>>(),
    })
}

thread_local! {
    static KEYS: RefCell<Table<Box<dyn Keys>>> = const { RefCell::new(Table::new()) };
}

fn with_keys(handle: u32, act: impl FnOnce(&mut dyn Keys) -> i32) -> i32 {
    KEYS.with_borrow_mut(|tables| tables.get(handle).map_or(-libc::EINVAL, |keys| act(keys.as_mut())))
}

pub fn outcome(is_done: bool) -> i32 {
    if is_done { 0 } else { -libc::EINVAL }
}

/// Which implementation (1 AWS-LC, 2 libipsec-mb) an algorithm (1 ChaCha20-Poly1305, 2 AES-256-GCM) and a choice (0
/// the fastest, or one of them) mean here; -ENOTSUP where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn ox_aead_implementation(algorithm: u32, choice: u32) -> i32 {
    resolve(algorithm, choice).map_or(-libc::ENOTSUP, |found| found as i32)
}

/// Makes a key table of 1 to 2^20 rows for the algorithm and choice of `ox_aead_implementation`. Returns its handle,
/// -EINVAL, or the -errno of the reservation.
#[unsafe(no_mangle)]
pub extern "C" fn ox_keys_new(algorithm: u32, choice: u32, rows: u32) -> i32 {
    let Some(implementation) = choose(algorithm, choice) else { return -libc::EINVAL };
    if rows == 0 || rows > MAX_ROWS {
        return -libc::EINVAL;
    }
    match (implementation.new_keys)(rows) {
        Ok(keys) => KEYS.with_borrow_mut(|tables| tables.insert(keys)),
        Err(errno) => -errno,
    }
}

/// 1 when the table's memory is locked, 0 when RLIMIT_MEMLOCK or the system did not allow it.
#[unsafe(no_mangle)]
pub extern "C" fn ox_keys_locked(handle: u32) -> i32 {
    with_keys(handle, |keys| keys.is_locked() as i32)
}

/// Wipes and frees a table.
#[unsafe(no_mangle)]
pub extern "C" fn ox_keys_release(handle: u32) -> i32 {
    KEYS.with_borrow_mut(|tables| tables.release(handle))
}

/// Gives a row its two keys.
///
/// # Safety
/// `send` and `receive` are valid for 32 bytes each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_keys_install(handle: u32, row: u32, send: *const u8, receive: *const u8) -> i32 {
    // SAFETY: the caller gives 32 bytes each, which nothing changes during the call.
    let keys = unsafe { (send.cast::<Key>().as_ref(), receive.cast::<Key>().as_ref()) };
    let (Some(send), Some(receive)) = keys else { return -libc::EINVAL };
    with_keys(handle, |keys| outcome(keys.install(row, send, receive)))
}

/// Overwrites both keys of a row.
#[unsafe(no_mangle)]
pub extern "C" fn ox_keys_erase(handle: u32, row: u32) -> i32 {
    with_keys(handle, |keys| outcome(keys.erase(row)))
}

/// Seals the rows below `count` whose next is TO_SEAL, as kernels.ts says. A row without key, with a bad counter or
/// outside the arena gets the step `refused`.
#[unsafe(no_mangle)]
pub extern "C" fn ox_seal(keys: u32, burst: u32, count: u32, refused: u32) -> i32 {
    let count = (count as usize).min(BURST_CAPACITY);
    with_keys(keys, |keys| {
        with_burst(burst, |block, arena| {
            keys.seal(block, arena, count, refused as u8);
            0
        })
    })
}

/// Opens the rows below `count` whose next is TO_OPEN, as kernels.ts says. What does not authenticate gets the step
/// `refused`, and its bytes are wiped or never were decrypted.
#[unsafe(no_mangle)]
pub extern "C" fn ox_open(keys: u32, burst: u32, count: u32, refused: u32) -> i32 {
    let count = (count as usize).min(BURST_CAPACITY);
    with_keys(keys, |keys| {
        with_burst(burst, |block, arena| {
            keys.open(block, arena, count, refused as u8);
            0
        })
    })
}

/// Seals (`seal` not 0) or opens one message in place: `sealed` is `length` bytes of text and 16 of tag. Algorithm
/// and choice are those of `ox_aead_implementation`. 0, -EBADMSG when it does not authenticate, -EINVAL.
///
/// # Safety
/// `key` is valid for 32 bytes, `nonce` for 12, `associated` for `associated_bytes`, `sealed` for `length` + 16, and
/// `sealed` overlaps none of the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_aead_once(
    algorithm: u32,
    choice: u32,
    seal: u32,
    key: *const u8,
    nonce: *const u8,
    associated: *const u8,
    associated_bytes: u32,
    sealed: *mut u8,
    length: u32,
) -> i32 {
    let Some(implementation) = choose(algorithm, choice) else { return -libc::EINVAL };
    // SAFETY: the caller gives 32 and 12 bytes, which nothing changes during the call.
    let inputs = unsafe { (key.cast::<Key>().as_ref(), nonce.cast::<Nonce>().as_ref()) };
    let (Some(key), Some(nonce)) = inputs else { return -libc::EINVAL };
    if sealed.is_null() || (associated.is_null() && associated_bytes > 0) {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives these lengths and no overlap; an empty slice needs no memory.
    let (associated, sealed) = unsafe {
        let associated = if associated_bytes == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(associated, associated_bytes as usize)
        };
        (associated, std::slice::from_raw_parts_mut(sealed, length as usize + TAG_BYTES))
    };
    let done = (implementation.once)(key, nonce, associated, sealed, seal != 0);
    if done { 0 } else { -libc::EBADMSG }
}

/// 1 where the processor computes AES and GCM's multiplication itself; without, AES-256-GCM is slower than ChaCha20-Poly1305.
#[unsafe(no_mangle)]
pub extern "C" fn ox_has_fast_aes() -> i32 {
    i32::from(has_fast_aes())
}

#[cfg(target_arch = "x86_64")]
fn has_fast_aes() -> bool {
    is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_fast_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}
