//! The receiving half of a TCP connection: pieces put in order, the window that is offered, and when and how that is
//! acknowledged (RFC 9293 §3.8.6, RFC 2018, RFC 2883, RFC 5681 §4.2). Invariant: no more than `limit` bytes are kept, in no
//! more than PIECES_MAX pieces, and the window's right edge never goes back. Times are microseconds that the caller gives.

use crate::segment::{SACKS_MAX, Sacks, before};
use std::collections::VecDeque;

pub const SCALE: u8 = 7;
const WINDOW_MAX: usize = 0xffff << SCALE;
/// Gaps whose far sides are kept: of any connection, and one for this many bytes of its limit.
const PIECES_MAX: usize = 1024;
const BYTES_A_PIECE: usize = 256;
/// What each may take beside its payload: twice its place in the queue, which grows by doubling, and the allocator's header.
const PIECE_BYTES: usize = 2 * size_of::<Piece>() + 16;
/// A piece that grows gets this part of its length more at a time.
const PIECE_GROWTH: usize = 8;
const DELAYED_ACK_US: i64 = 25_000;

struct Piece {
    seq: u32,
    data: Vec<u8>,
}

impl Piece {
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.data.len() as u32)
    }
}

/// Adds to a piece, whose memory grows by less than a vector's would.
fn extend(piece: &mut Vec<u8>, more: &[u8]) {
    if piece.len() + more.len() > piece.capacity() {
        piece.reserve_exact(more.len() + piece.len() / PIECE_GROWTH);
    }
    piece.extend_from_slice(more);
}

pub struct Receiver {
    nxt: u32,
    data: VecDeque<u8>,
    /// Bytes to be kept at most.
    pub limit: usize,
    mss: usize,
    is_scaled: bool,
    has_sacks: bool,
    /// Beyond a gap: in order, apart from each other.
    pieces: VecDeque<Piece>,
    /// Where the last few pieces that changed begin, the newest first.
    recent: [u32; SACKS_MAX],
    duplicate: Option<(u32, u32)>,
    fin: Option<u32>,
    has_ended: bool,
    /// The first number that the peer may not send.
    edge: u32,
    unacked: usize,
    ack_due_us: Option<i64>,
    /// For the window's growth: new bytes that came in this round trip, whether a gap was among them, and since when.
    arrived: usize,
    had_gap: bool,
    round_us: i64,
}

impl Receiver {
    pub fn new(limit: usize) -> Self {
        Self {
            nxt: 0,
            data: VecDeque::new(),
            limit,
            mss: 536,
            is_scaled: false,
            has_sacks: false,
            pieces: VecDeque::new(),
            recent: [0; SACKS_MAX],
            duplicate: None,
            fin: None,
            has_ended: false,
            edge: 0,
            unacked: 0,
            ack_due_us: None,
            arrived: 0,
            had_gap: false,
            round_us: 0,
        }
    }

    /// The peer's first byte will be number `nxt`.
    pub fn establish(&mut self, nxt: u32, mss: usize, is_scaled: bool, has_sacks: bool) {
        (self.nxt, self.edge) = (nxt, nxt);
        (self.mss, self.is_scaled, self.has_sacks) = (mss, is_scaled, has_sacks);
    }

    pub fn nxt(&self) -> u32 {
        self.nxt
    }

    /// The peer's FIN has come, and all before it.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub fn held(&self) -> usize {
        self.data.len()
    }

    /// Bytes that the peer may still send.
    pub fn window(&self) -> u32 {
        if before(self.nxt, self.edge) { self.edge.wrapping_sub(self.nxt) } else { 0 }
    }

    /// Bytes that a receiver takes at most that keeps up to `limit`: its payload, what pieces were allotted for growth, and
    /// their places.
    pub const fn bytes_of(limit: usize) -> usize {
        limit + limit / PIECE_GROWTH + Self::pieces_max(limit) * PIECE_BYTES
    }

    const fn pieces_max(limit: usize) -> usize {
        let pieces = limit / BYTES_A_PIECE;
        if pieces < PIECES_MAX { pieces } else { PIECES_MAX }
    }

    /// Adds what is in order. Memory doubles as a vector's would, but leaves the limit to what lies beyond a gap.
    fn append(&mut self, payload: &[u8]) {
        let needed = self.data.len() + payload.len();
        if needed > self.data.capacity() {
            let beyond = self.pieces.iter().map(|piece| piece.data.capacity()).sum();
            let most = self.limit.saturating_sub(beyond);
            let capacity = (2 * self.data.capacity()).min(most).max(needed);
            self.data.reserve_exact(capacity - self.data.len());
        }
        self.data.extend(payload);
    }

    /// What has come in order, as far as it lies in one piece.
    pub fn front(&self) -> &[u8] {
        self.data.as_slices().0
    }

    pub fn consume(&mut self, count: usize) {
        self.data.drain(..count);
    }

    /// Whether a window twice as great is of use: half of this one came within a round trip, or a quarter where a gap made the
    /// rest wait for the round trip of its repair, and the reader has taken what it could.
    pub fn wants_more(&mut self, srtt_us: i64, now_us: i64) -> bool {
        let windows = if self.had_gap { 4 } else { 2 };
        let is_wanted = windows * self.arrived >= self.limit
            && 2 * self.data.len() < self.limit
            && self.limit < WINDOW_MAX;
        if is_wanted || now_us - self.round_us > srtt_us.max(1000) {
            self.round_us = now_us;
            self.arrived = 0;
            self.had_gap = !self.pieces.is_empty();
        }
        is_wanted
    }

    /// Gives memory back that nothing waits in.
    pub fn shrink(&mut self) {
        self.data.shrink_to_fit();
        self.pieces.shrink_to_fit();
    }

    /// Everything is forgotten.
    pub fn clear(&mut self) {
        self.data = VecDeque::new();
        self.pieces = VecDeque::new();
        self.ack_due_us = None;
    }

    /// Takes the payload of an acceptable segment, which may lie before or beyond what is wanted.
    pub fn take(&mut self, seq: u32, payload: &[u8], has_fin: bool, now_us: i64) {
        let end = seq.wrapping_add(payload.len() as u32);
        if has_fin && self.fin.is_none() {
            self.fin = Some(end);
        }
        if before(seq, self.nxt) && !payload.is_empty() {
            let known = if before(self.nxt, end) { self.nxt } else { end };
            self.duplicate = Some((seq, known));
        }
        let skipped = if before(seq, self.nxt) { self.nxt.wrapping_sub(seq) as usize } else { 0 };
        let seq = seq.wrapping_add(skipped as u32);
        let payload = payload.get(skipped..).unwrap_or(&[]);
        let room = self.window() as usize;
        let ahead = seq.wrapping_sub(self.nxt) as usize;
        let payload = &payload[..payload.len().min(room.saturating_sub(ahead))];
        let had_gaps = !self.pieces.is_empty();
        if ahead == 0 {
            self.arrived += payload.len();
            self.append(payload);
            self.nxt = self.nxt.wrapping_add(payload.len() as u32);
            self.join();
        } else if !payload.is_empty() {
            self.had_gap = true;
            self.arrived += self.keep(seq, payload);
        }
        if self.fin == Some(self.nxt) && !self.has_ended {
            self.has_ended = true;
            self.nxt = self.nxt.wrapping_add(1);
        }
        self.unacked += payload.len();
        let is_urgent =
            ahead > 0 || had_gaps || skipped > 0 || has_fin || self.unacked >= 2 * self.mss || room == 0;
        let due_us = if is_urgent { now_us } else { now_us + DELAYED_ACK_US };
        self.ack_due_us = Some(self.ack_due_us.map_or(due_us, |before_us| before_us.min(due_us)));
    }

    /// Something came that had come before: its sender should know (RFC 2883).
    pub fn take_duplicate(&mut self, from: u32, to: u32, now_us: i64) {
        self.duplicate = Some((from, to));
        self.ack_due_us = Some(now_us);
    }

    /// Moves what is in order now behind the rest.
    fn join(&mut self) {
        while let Some(first) = self.pieces.front() {
            if before(self.nxt, first.seq) {
                break;
            }
            let first = self.pieces.pop_front().expect("just seen");
            let known = self.nxt.wrapping_sub(first.seq) as usize;
            if let Some(rest) = first.data.get(known..) {
                self.append(rest);
                self.nxt = self.nxt.wrapping_add(rest.len() as u32);
            }
        }
    }

    /// Keeps a piece beyond a gap. Returns the bytes that are new.
    fn keep(&mut self, seq: u32, payload: &[u8]) -> usize {
        if self.pieces.is_empty() {
            // What was kept in order before gives way to what is kept beyond the gap.
            self.data.shrink_to_fit();
        }
        let distance = |number: u32| number.wrapping_sub(self.nxt);
        let end = seq.wrapping_add(payload.len() as u32);
        // The first that ends at or behind our beginning.
        let at = self.pieces.partition_point(|piece| distance(piece.end()) < distance(seq));
        let (mut start, mut fresh) = (seq, payload.len());
        match self.pieces.get(at) {
            Some(piece) if distance(piece.seq) <= distance(seq) => {
                if distance(piece.end()) >= distance(end) {
                    self.duplicate = Some((seq, end));
                    self.note(self.pieces[at].seq);
                    return 0;
                }
                let known = seq.wrapping_sub(piece.seq) as usize;
                fresh -= piece.data.len() - known;
                let piece = &mut self.pieces[at];
                piece.data.truncate(known);
                extend(&mut piece.data, payload);
                start = piece.seq;
            }
            _ if self.pieces.len() >= Self::pieces_max(self.limit).max(1) => return 0,
            _ => self.pieces.insert(at, Piece { seq, data: payload.to_vec() }),
        }
        while let Some(next) = self.pieces.get(at + 1) {
            if before(self.pieces[at].end(), next.seq) {
                break;
            }
            let next = self.pieces.remove(at + 1).expect("just seen");
            let known = self.pieces[at].end().wrapping_sub(next.seq) as usize;
            fresh -= known.min(next.data.len());
            if let Some(rest) = next.data.get(known..) {
                extend(&mut self.pieces[at].data, rest);
            }
        }
        self.note(start);
        fresh
    }

    fn note(&mut self, start: u32) {
        let place = self.recent.iter().position(|&known| known == start).unwrap_or(SACKS_MAX - 1);
        self.recent[..=place].rotate_right(1);
        self.recent[0] = start;
    }

    /// What the peer should know beyond the first gap: a duplicate first (RFC 2883), then what changed last.
    fn sacks(&mut self, wanted: bool) -> Sacks {
        let mut sacks = Sacks::default();
        if !self.has_sacks || !wanted {
            return sacks;
        }
        if let Some(range) = self.duplicate.take() {
            sacks.push(range);
        }
        for start in self.recent {
            let at = self
                .pieces
                .partition_point(|piece| piece.end().wrapping_sub(self.nxt) <= start.wrapping_sub(self.nxt));
            let Some(piece) = self.pieces.get(at) else { continue };
            let range = (piece.seq, piece.end());
            if !before(start, piece.seq) && !sacks.list().contains(&range) {
                sacks.push(range);
            }
        }
        sacks
    }

    /// An acknowledgement is owed at once.
    pub fn ack_now(&mut self, now_us: i64) {
        self.ack_due_us = Some(now_us);
    }

    fn open_edge(&self) -> u32 {
        let free = self.limit.saturating_sub(self.data.len());
        let free = free.min(if self.is_scaled { WINDOW_MAX } else { 0xffff });
        let edge = self.nxt.wrapping_add(free as u32);
        if before(edge, self.edge) { self.edge } else { edge }
    }

    /// The reader has made room that is worth telling of (RFC 9293 §3.8.6.2.2).
    fn is_window_news(&self) -> bool {
        let gain = self.open_edge().wrapping_sub(self.edge) as usize;
        gain >= self.mss.min(self.limit / 2) && 2 * (self.window() as usize) < self.limit && !self.has_ended
    }

    pub fn ack_due_us(&self) -> Option<i64> {
        if self.is_window_news() { Some(0) } else { self.ack_due_us }
    }

    /// Something beyond a gap, or a duplicate, is to be told.
    pub fn has_gaps(&self) -> bool {
        !self.pieces.is_empty() || self.duplicate.is_some()
    }

    /// What a segment that leaves now says: number, window as it stands in a header, and, if wanted, ranges beyond gaps.
    pub fn acknowledge(&mut self, with_sacks: bool) -> (u32, u16, Sacks) {
        let edge = self.open_edge();
        let shift = if self.is_scaled { SCALE } else { 0 };
        let window = edge.wrapping_sub(self.nxt).min(0xffff << shift) >> shift;
        // What cannot be said is not promised.
        let told = self.nxt.wrapping_add(window << shift);
        if before(self.edge, told) {
            self.edge = told;
        }
        self.unacked = 0;
        self.ack_due_us = None;
        (self.nxt, window as u16, self.sacks(with_sacks))
    }

    /// The window of a SYN, which is never scaled.
    pub fn syn_window(&mut self) -> u16 {
        let window = self.limit.min(0xffff) as u16;
        self.edge = self.nxt.wrapping_add(u32::from(window));
        window
    }
}
