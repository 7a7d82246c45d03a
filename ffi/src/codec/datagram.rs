//! Protection of OxTunnel's data datagrams over a burst (PROTOCOL §12): the AEADs of aead.rs with the header as
//! associated data, GMAC over header and plaintext (§18), and the header's masks of protect.rs. A row has one AEAD, its
//! protection keys, and keys of two epochs. Invariant: a datagram leaves sealed and with its header protected, or not
//! at all; nothing is read or written outside the arena, whatever the columns say. Takes each burst apart by AEAD.

#[cfg(target_arch = "x86_64")]
use crate::codec::aead::IPSEC_MB;
use crate::codec::aead::{self, MAX_ROWS, ROWS_AHEAD, nonce_of, outcome};
#[cfg(target_arch = "x86_64")]
use crate::codec::ciphers::ipsec_mb::{VectorAes256Gcm, VectorChaCha20Poly1305};
use crate::codec::ciphers::{AES_256_GCM, AwsLc, CHACHA20_POLY1305, Cipher, Key, Nonce, TAG_BYTES};
use crate::codec::keys::{Direction, KeyMemory};
#[cfg(target_arch = "x86_64")]
use crate::codec::protect::lanes::LanesChaCha20;
use crate::codec::protect::{AwsLcAes256, AwsLcChaCha20, LANES, Protection, SAMPLE_BYTES, Sample};
use crate::layout::{
    Arena, BURST_CAPACITY, Block, OPENED, TO_OPEN_DATAGRAM, TO_SEAL_DATAGRAM, TO_TRANSMIT, TO_UNPROTECT,
    Table, with_burst,
};
use std::cell::RefCell;

/// Flags and connection id, in front of 1 to 4 bytes of counter.
const COUNTER_AT: usize = 5;
/// Bits of the first byte that the mask covers.
const PROTECTED_FLAGS: u8 = 0x3f;
/// The highest path number, 7, above the higher phase.
const PHASE_AND_PATH_MAX: u32 = 15;
/// Five bytes of mask, as a little-endian number.
const MASK_BITS: u64 = (1 << 40) - 1;

type Masks = [[u8; 8]; BURST_CAPACITY];

/// The key phase of a row, 0 or 1, and its path's number, 0 to 7, which the column has above it; None for what is neither.
fn phase_and_path(block: &Block, row: usize) -> Option<(u32, u32)> {
    let both = block.phase[row] as u32;
    (both <= PHASE_AND_PATH_MAX).then_some((both & 1, both >> 1))
}

/// What a row of the burst says of its header; None for lengths that no header has.
fn header_bytes(block: &Block, row: usize) -> Option<usize> {
    let bytes = block.header_bytes[row] as usize;
    (COUNTER_AT + 1..=COUNTER_AT + 4).contains(&bytes).then_some(bytes)
}

/// The last 16 bytes of a row's datagram.
fn sample_of(block: &Block, arena: &mut Arena, row: usize) -> Option<Sample> {
    let datagram = arena.slice(block.offset[row], block.length[row] as usize)?;
    datagram.last_chunk::<SAMPLE_BYTES>().copied()
}

/// What is done to a plaintext besides authenticating it.
#[derive(Clone, Copy, PartialEq)]
enum Secrecy {
    Encrypted,
    /// Nothing: it is associated data, as the header is.
    Plain,
}

impl Secrecy {
    /// Cuts a datagram where its ciphertext begins.
    fn split(self, datagram: &mut [u8], header: usize, length: usize) -> (&[u8], &mut [u8]) {
        let (associated, sealed) =
            datagram.split_at_mut(if self == Secrecy::Encrypted { header } else { header + length });
        (associated, sealed)
    }
}

/// The sessions of one cipher.
trait Suite {
    fn is_locked(&self) -> bool;
    fn begin(&mut self, session: u32, send: &Key, receive: &Key) -> bool;
    fn install(&mut self, session: u32, phase: u32, send: &Key, receive: &Key) -> bool;
    fn retire(&mut self, session: u32, phase: u32) -> bool;
    fn erase(&mut self, session: u32) -> bool;
    // Of rows that all have a session here. Their list may be shortened.
    fn masks(&self, block: &Block, arena: &mut Arena, rows: &mut RowList, masks: &mut Masks);
    fn open(&self, block: &mut Block, arena: &mut Arena, rows: &mut RowList, secrecy: Secrecy, refused: u8);
    fn seal(&self, block: &mut Block, arena: &mut Arena, rows: &mut RowList, secrecy: Secrecy, refused: u8);
}

struct Keys<C: Cipher, P: Protection> {
    /// Two rows a session, by key phase.
    epochs: KeyMemory<C::State>,
    protection: KeyMemory<P::State>,
}

impl<C: Cipher + 'static, P: Protection + 'static> Keys<C, P> {
    fn boxed(rows: u32) -> Result<Box<dyn Suite>, i32> {
        Ok(Box::new(Self { epochs: KeyMemory::new(2 * rows)?, protection: KeyMemory::new(rows)? }))
    }

    /// The keys of a row, and its nonce.
    fn epoch(&self, block: &Block, row: usize, direction: Direction) -> Option<(&C::State, Nonce)> {
        let (phase, path) = phase_and_path(block, row)?;
        let state = self.epochs.get(2 * block.session[row] + phase, direction)?;
        Some((state, nonce_of(path, block.counter[row])?))
    }

    /// At `row`: asks for the keys that the row `ahead` needs, unless they are those that are used now.
    fn prefetch(&self, block: &Block, row: usize, ahead: Option<usize>, direction: Direction) {
        let Some(ahead) = ahead else { return };
        let session = block.session[ahead];
        if session != block.session[row] {
            let phase = block.phase[ahead] as u32 & 1;
            self.epochs.prefetch(session.wrapping_mul(2).wrapping_add(phase), direction);
        }
    }

    fn open_row(&self, block: &mut Block, arena: &mut Arena, row: usize, secrecy: Secrecy) -> Option<()> {
        let (state, nonce) = self.epoch(block, row, Direction::Receive)?;
        let header = header_bytes(block, row)?;
        let datagram = arena.slice(block.offset[row], block.length[row] as usize)?;
        let length = datagram.len().checked_sub(header + TAG_BYTES)?;
        let (associated, sealed) = secrecy.split(datagram, header, length);
        C::open(state, &nonce, associated, sealed).then_some(())?;
        block.offset[row] += header as u32;
        block.length[row] = length as u32;
        Some(())
    }

    fn seal_row(&self, block: &mut Block, arena: &mut Arena, row: usize, secrecy: Secrecy) -> Option<()> {
        let (state, nonce) = self.epoch(block, row, Direction::Send)?;
        let header = header_bytes(block, row)?;
        let start = block.offset[row].checked_sub(header as u32)?;
        let length = block.length[row] as usize;
        let datagram = arena.slice(start, header + length + TAG_BYTES)?;
        let (associated, sealed) = secrecy.split(datagram, header, length);
        C::seal(state, &nonce, associated, sealed);
        block.offset[row] = start;
        block.length[row] = datagram.len() as u32;
        Some(())
    }

    /// Masks of 1 to LANES rows, in their order, all of which have a session and a sample.
    fn masks_of(&self, block: &Block, arena: &mut Arena, rows: &[u8], direction: Direction) -> [u64; LANES] {
        let state_of = |row: u8| {
            self.protection.get(block.session[row as usize], direction).expect("the row has a session")
        };
        let mut states = [state_of(rows[0]); LANES];
        let mut samples = [[0; SAMPLE_BYTES]; LANES];
        for (lane, &row) in rows.iter().enumerate() {
            states[lane] = state_of(row);
            samples[lane] = sample_of(block, arena, row as usize).expect("the row has a tag");
        }
        P::masks(states, samples, rows.len())
    }
}

impl<C: Cipher + 'static, P: Protection + 'static> Suite for Keys<C, P> {
    fn is_locked(&self) -> bool {
        self.epochs.is_locked() && self.protection.is_locked()
    }

    fn begin(&mut self, session: u32, send: &Key, receive: &Key) -> bool {
        self.protection.install(session, |direction, state| P::expand(direction.of(send, receive), state))
    }

    fn install(&mut self, session: u32, phase: u32, send: &Key, receive: &Key) -> bool {
        self.epochs
            .install(2 * session + phase, |direction, state| C::expand(direction.of(send, receive), state))
    }

    fn retire(&mut self, session: u32, phase: u32) -> bool {
        self.epochs.erase(2 * session + phase)
    }

    fn erase(&mut self, session: u32) -> bool {
        self.protection.erase(session) && self.retire(session, 0) && self.retire(session, 1)
    }

    fn masks(&self, block: &Block, arena: &mut Arena, rows: &mut RowList, masks: &mut Masks) {
        rows.retain(|row, _| {
            self.protection.prefetch(block.session[row], Direction::Receive);
            sample_of(block, arena, row).is_some()
        });
        for rows in rows.get().chunks(LANES) {
            let made = self.masks_of(block, arena, rows, Direction::Receive);
            for (row, mask) in rows.iter().zip(made) {
                masks[*row as usize] = (mask & MASK_BITS).to_le_bytes();
            }
        }
    }

    fn open(&self, block: &mut Block, arena: &mut Arena, rows: &mut RowList, secrecy: Secrecy, refused: u8) {
        rows.retain(|row, ahead| {
            self.prefetch(block, row, ahead, Direction::Receive);
            let done = self.open_row(block, arena, row, secrecy).is_some();
            block.next[row] = if done { OPENED } else { refused };
            done
        });
    }

    fn seal(&self, block: &mut Block, arena: &mut Arena, rows: &mut RowList, secrecy: Secrecy, refused: u8) {
        rows.retain(|row, ahead| {
            self.prefetch(block, row, ahead, Direction::Send);
            self.protection.prefetch(block.session[row], Direction::Send);
            let done = self.seal_row(block, arena, row, secrecy).is_some();
            block.next[row] = if done { TO_TRANSMIT } else { refused };
            done
        });
        for rows in rows.get().chunks(LANES) {
            let masks = self.masks_of(block, arena, rows, Direction::Send);
            for (&row, mask) in rows.iter().zip(masks) {
                let row = row as usize;
                let header = arena.slice(block.offset[row], block.header_bytes[row] as usize);
                cover(header.expect("the row was sealed"), mask.to_le_bytes());
            }
        }
    }
}

/// Puts the mask over a header's flags and counter.
fn cover(header: &mut [u8], mask: [u8; 8]) {
    header[0] ^= mask[0] & PROTECTED_FLAGS;
    for (byte, mask) in header[COUNTER_AT..].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

/// Rows of one burst.
struct RowList {
    rows: [u8; BURST_CAPACITY],
    count: usize,
}

impl RowList {
    const EMPTY: Self = Self { rows: [0; BURST_CAPACITY], count: 0 };

    fn push(&mut self, row: u8) {
        self.rows[self.count] = row;
        self.count += 1;
    }

    fn get(&self) -> &[u8] {
        &self.rows[..self.count]
    }

    /// Calls `keep` for each row, in order, with the one that comes ROWS_AHEAD after it, and drops those for which it
    /// says no.
    fn retain(&mut self, mut keep: impl FnMut(usize, Option<usize>) -> bool) {
        let count = std::mem::take(&mut self.count);
        for i in 0..count {
            let row = self.rows[i];
            let ahead = (i + ROWS_AHEAD < count).then(|| self.rows[i + ROWS_AHEAD] as usize);
            if keep(row as usize, ahead) {
                self.push(row);
            }
        }
    }
}

/// In place of the AEAD of a row that has not begun.
const NO_AEAD: u8 = 0;
/// The AEAD of trusted links, beside those of aead.rs.
const AES_256_GMAC: u32 = 3;

/// By AEAD: where its cipher's suite is, and what it does to plaintexts.
const AEADS: [(usize, Secrecy); 3] = [(0, Secrecy::Encrypted), (1, Secrecy::Encrypted), (1, Secrecy::Plain)];

/// All sessions: which AEAD each has, and the keys of each cipher.
struct Sessions {
    aead: Vec<u8>,
    suites: [Box<dyn Suite>; 2],
    /// The rows of the burst that is looked at, by AEAD; kept here because making them anew costs a small burst a third.
    lists: [RowList; 4],
}

impl Sessions {
    fn suite(&mut self, session: u32) -> Option<&mut dyn Suite> {
        let aead = *self.aead.get(session as usize)?;
        let (suite, _) = AEADS.get((aead as usize).checked_sub(1)?)?;
        Some(self.suites[*suite].as_mut())
    }

    fn begin(&mut self, session: u32, aead: u32, send: &Key, receive: &Key) -> bool {
        if !self.erase(session) || !(CHACHA20_POLY1305..=AES_256_GMAC).contains(&aead) {
            return false;
        }
        self.aead[session as usize] = aead as u8;
        self.suite(session).is_some_and(|suite| suite.begin(session, send, receive))
    }

    fn erase(&mut self, session: u32) -> bool {
        if let Some(suite) = self.suite(session) {
            suite.erase(session);
            self.aead[session as usize] = NO_AEAD;
        }
        (session as usize) < self.aead.len()
    }

    /// Sorts the rows at `step` into `lists`.
    fn sort(&mut self, block: &Block, count: u32, step: u8) {
        self.lists.iter_mut().for_each(|list| list.count = 0);
        for row in 0..(count as usize).min(BURST_CAPACITY) {
            if block.next[row] == step {
                let aead = self.aead.get(block.session[row] as usize).unwrap_or(&NO_AEAD);
                self.lists[*aead as usize].push(row as u8);
            }
        }
    }

    fn masks(&mut self, block: &Block, arena: &mut Arena, count: u32, masks: &mut Masks) {
        self.sort(block, count, TO_UNPROTECT);
        for list in &self.lists {
            list.get().iter().for_each(|&row| masks[row as usize] = [0; 8]);
        }
        for ((suite, _), rows) in AEADS.into_iter().zip(&mut self.lists[1..]) {
            self.suites[suite].masks(block, arena, rows, masks);
        }
    }

    fn open(&mut self, block: &mut Block, arena: &mut Arena, count: u32, refused: u8) {
        self.sort(block, count, TO_OPEN_DATAGRAM);
        self.lists[0].get().iter().for_each(|&row| block.next[row as usize] = refused);
        for ((suite, secrecy), rows) in AEADS.into_iter().zip(&mut self.lists[1..]) {
            self.suites[suite].open(block, arena, rows, secrecy, refused);
        }
    }

    fn seal(&mut self, block: &mut Block, arena: &mut Arena, count: u32, refused: u8) {
        self.sort(block, count, TO_SEAL_DATAGRAM);
        self.lists[0].get().iter().for_each(|&row| block.next[row as usize] = refused);
        for ((suite, secrecy), rows) in AEADS.into_iter().zip(&mut self.lists[1..]) {
            self.suites[suite].seal(block, arena, rows, secrecy, refused);
        }
    }
}

fn new_suite(aead: u32, choice: u32, rows: u32) -> Result<Box<dyn Suite>, i32> {
    let found = aead::resolve(aead, choice).ok_or(libc::ENOTSUP)?;
    match (aead, found) {
        #[cfg(target_arch = "x86_64")]
        (CHACHA20_POLY1305, IPSEC_MB) => Keys::<VectorChaCha20Poly1305, LanesChaCha20>::boxed(rows),
        #[cfg(target_arch = "x86_64")]
        (AES_256_GCM, IPSEC_MB) => Keys::<VectorAes256Gcm, AwsLcAes256>::boxed(rows),
        (CHACHA20_POLY1305, _) => Keys::<AwsLc<CHACHA20_POLY1305>, AwsLcChaCha20>::boxed(rows),
        (_, _) => Keys::<AwsLc<AES_256_GCM>, AwsLcAes256>::boxed(rows),
    }
}

fn new_sessions(choice: u32, rows: u32) -> Result<Sessions, i32> {
    if rows == 0 || rows > MAX_ROWS {
        return Err(libc::EINVAL);
    }
    let suites = [new_suite(CHACHA20_POLY1305, choice, rows)?, new_suite(AES_256_GCM, choice, rows)?];
    Ok(Sessions { aead: vec![NO_AEAD; rows as usize], suites, lists: [RowList::EMPTY; 4] })
}

thread_local! {
    static SESSIONS: RefCell<Table<Sessions>> = const { RefCell::new(Table::new()) };
}

fn with_sessions(handle: u32, act: impl FnOnce(&mut Sessions) -> i32) -> i32 {
    SESSIONS.with_borrow_mut(|tables| tables.get(handle).map_or(-libc::EINVAL, act))
}

/// Runs `act` with two keys, or returns -EINVAL.
///
/// # Safety
/// Both are null or valid for 32 bytes, which nothing changes during the call.
unsafe fn with_pair(send: *const u8, receive: *const u8, act: impl FnOnce(&Key, &Key) -> i32) -> i32 {
    // SAFETY: as the caller has promised.
    match unsafe { (send.cast::<Key>().as_ref(), receive.cast::<Key>().as_ref()) } {
        (Some(send), Some(receive)) => act(send, receive),
        _ => -libc::EINVAL,
    }
}

/// Makes a table of 1 to 2^20 sessions; `choice` is that of `ox_aead_implementation`, for all AEADs. Returns its
/// handle, -EINVAL, -ENOTSUP where the choice does not run, or the -errno of the reservation.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_new(choice: u32, rows: u32) -> i32 {
    match new_sessions(choice, rows) {
        Ok(sessions) => SESSIONS.with_borrow_mut(|tables| tables.insert(sessions)),
        Err(errno) => -errno,
    }
}

/// 1 when all of the table's memory is locked, 0 when RLIMIT_MEMLOCK or the system did not allow it.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_locked(handle: u32) -> i32 {
    with_sessions(handle, |sessions| sessions.suites.iter().all(|suite| suite.is_locked()) as i32)
}

/// Wipes and frees a table.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_release(handle: u32) -> i32 {
    SESSIONS.with_borrow_mut(|tables| tables.release(handle))
}

/// Gives a row its AEAD (1 ChaCha20-Poly1305, 2 AES-256-GCM, 3 AES-256-GMAC) and protection keys; what it had is overwritten.
///
/// # Safety
/// `send` and `receive` are valid for 32 bytes each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_datagram_begin(
    handle: u32,
    row: u32,
    aead: u32,
    send: *const u8,
    receive: *const u8,
) -> i32 {
    let begin = |send: &Key, receive: &Key| {
        with_sessions(handle, |sessions| outcome(sessions.begin(row, aead, send, receive)))
    };
    // SAFETY: the caller gives 32 bytes each.
    unsafe { with_pair(send, receive, begin) }
}

/// Gives a row that has begun the keys of phase 0 or 1; -EINVAL for one that has not.
///
/// # Safety
/// `send` and `receive` are valid for 32 bytes each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_datagram_install(
    handle: u32,
    row: u32,
    phase: u32,
    send: *const u8,
    receive: *const u8,
) -> i32 {
    let install = |send: &Key, receive: &Key| {
        with_sessions(handle, |sessions| {
            let suite = sessions.suite(row).filter(|_| phase <= 1);
            outcome(suite.is_some_and(|suite| suite.install(row, phase, send, receive)))
        })
    };
    // SAFETY: the caller gives 32 bytes each.
    unsafe { with_pair(send, receive, install) }
}

/// Overwrites a row's keys of phase 0 or 1.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_retire(handle: u32, row: u32, phase: u32) -> i32 {
    with_sessions(handle, |sessions| {
        let is_place = phase <= 1 && (row as usize) < sessions.aead.len();
        outcome(is_place && sessions.suite(row).is_none_or(|suite| suite.retire(row, phase)))
    })
}

/// Overwrites everything of a row.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_erase(handle: u32, row: u32) -> i32 {
    with_sessions(handle, |sessions| outcome(sessions.erase(row)))
}

/// Writes the masks of the rows below `count` whose next is TO_UNPROTECT, 8 bytes a row, as kernels.ts says.
///
/// # Safety
/// `masks` is valid for 8 * BURST_CAPACITY bytes and overlaps neither the burst nor its arena.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_datagram_masks(handle: u32, burst: u32, count: u32, masks: *mut u8) -> i32 {
    // SAFETY: the caller gives these bytes; they need no alignment.
    let Some(masks) = (unsafe { masks.cast::<Masks>().as_mut() }) else { return -libc::EINVAL };
    with_sessions(handle, |sessions| {
        with_burst(burst, |block, arena| {
            sessions.masks(block, arena, count, masks);
            0
        })
    })
}

/// Opens the rows below `count` whose next is TO_OPEN_DATAGRAM, as kernels.ts says. What is refused gets the step
/// `refused`, and its bytes are wiped or never were decrypted.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_open(handle: u32, burst: u32, count: u32, refused: u32) -> i32 {
    with_sessions(handle, |sessions| {
        with_burst(burst, |block, arena| {
            sessions.open(block, arena, count, refused as u8);
            0
        })
    })
}

/// Seals the rows below `count` whose next is TO_SEAL_DATAGRAM, as kernels.ts says. What is refused gets the step
/// `refused`.
#[unsafe(no_mangle)]
pub extern "C" fn ox_datagram_seal(handle: u32, burst: u32, count: u32, refused: u32) -> i32 {
    with_sessions(handle, |sessions| {
        with_burst(burst, |block, arena| {
            sessions.seal(block, arena, count, refused as u8);
            0
        })
    })
}
