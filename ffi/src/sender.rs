//! The sending half of a TCP connection: what waits, what is on its way, and what of it is to be sent again. Losses are
//! found by time (RACK and its tail probe, RFC 8985) from selective acknowledgements (RFC 2018, 2883) or, where the peer has
//! none, by three duplicates (RFC 5681, 6582); the timer is RFC 6298's, window and pace bbr.rs's.
//! Invariant: never more than the peer's window is on its way, and what is acknowledged is forgotten at once. Times are
//! microseconds that the caller gives.

use crate::bbr::{Bbr, Before};
use crate::delivery::{Delivery, Stamp};
use crate::segment::Segment;
use std::collections::VecDeque;

mod acks;
mod losses;
mod timers;

const DUPLICATES: u32 = 3;
/// What may leave at once when the turn comes late: what the pace would have let out in a quarter of a round trip, within
/// these, and this many segments at least.
const BURST_US: (i64, i64) = (1_000, 10_000);
const BURST_SEGMENTS: f64 = 10.0;
/// RFC 8985 §6.2: how long a wider reordering window is kept, in recoveries.
const REORDERING_PERSISTS: u32 = 16;

/// Pieces on their way at most: enough for 11 MB of ordinary ones, and a bound on memory and work where a peer takes only
/// small ones.
const SENT_MAX: usize = 8192;
/// Pieces that a connection may have on its way before it has asked for more.
const SENT_FIRST: usize = 16;
/// What each of them may take: its row, two places in the order of sending, and two among the lost ones.
const SENT_BYTES: usize = size_of::<Sent>() + 2 * size_of::<(i64, u32)>() + 2 * size_of::<u32>();

#[derive(Clone, Copy)]
struct Sent {
    seq: u32,
    /// Payload, and one for a FIN.
    span: u32,
    sent_us: i64,
    has_fin: bool,
    is_sacked: bool,
    /// Lost, and not yet sent again.
    is_lost: bool,
    is_again: bool,
    stamp: Stamp,
    /// Of a sacked piece: as many from here on are known to be sacked, 1 or more.
    run: u32,
}

impl Sent {
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.span)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recovery {
    None,
    Fast,
    Timeout,
}

/// A piece that is to leave now.
pub struct Chunk {
    pub seq: u32,
    /// Its payload lies so far behind the oldest byte that is kept.
    pub at: usize,
    pub length: usize,
    pub has_fin: bool,
    pub is_last: bool,
}

pub struct Sender {
    una: u32,
    nxt: u32,
    /// From `una` on.
    data: VecDeque<u8>,
    /// Bytes that may wait or be on their way.
    pub limit: usize,
    is_finished: bool,
    fin_sent: bool,
    sent: VecDeque<Sent>,
    /// What RACK looks at: when a piece left and where it ends, in the order of sending (RFC 8985 §6.2). A piece that has
    /// arrived, was lost or left again leaves its entry behind, which is dropped when it is the first.
    order: VecDeque<(i64, u32)>,
    /// Pieces that `sent` may have.
    pieces_max: usize,
    /// Pieces and entries that acknowledgements had looked at.
    #[cfg(test)]
    pub steps: usize,
    /// Bytes taken to be on their way.
    pipe: usize,
    sacked: usize,
    /// Where the pieces end that are lost and not yet sent again, by sequence number.
    lost: VecDeque<u32>,
    mss: usize,
    has_sacks: bool,
    scale: u8,
    window: u32,
    window_max: u32,
    window_seq: u32,
    window_ack: u32,
    srtt_us: i64,
    rttvar_us: i64,
    min_rtt_us: i64,
    min_rtt_at_us: i64,
    backoff: u32,
    recovery: Recovery,
    recovery_point: u32,
    /// What began the recovery goes again at once, whatever the window (RFC 6675 §5).
    is_first_free: bool,
    duplicates: u32,
    bbr: Bbr,
    delivery: Delivery,
    is_window_full: bool,
    rack_us: i64,
    rack_end: u32,
    rack_rtt_us: i64,
    fack: u32,
    is_reordering: bool,
    reorder_multiplier: i64,
    reorder_recoveries: u32,
    reorder_due_us: Option<i64>,
    undo: Option<Before>,
    /// Pieces sent again in this recovery that nobody has called duplicates yet.
    undo_left: usize,
    timer_from_us: i64,
    last_sent_us: i64,
    was_probed: bool,
    paced_us: i64,
    /// The pace alone kept the next piece back.
    is_pace_bound: bool,
    /// Since when something waits for an answer that did not come.
    stuck_us: Option<i64>,
    probes: u32,
    probed_us: i64,
}

impl Sender {
    /// The first byte will have the number `seq`.
    pub fn new(seq: u32, limit: usize) -> Self {
        Self {
            una: seq,
            nxt: seq,
            data: VecDeque::new(),
            limit,
            is_finished: false,
            fin_sent: false,
            sent: VecDeque::new(),
            order: VecDeque::new(),
            pieces_max: SENT_FIRST,
            #[cfg(test)]
            steps: 0,
            pipe: 0,
            sacked: 0,
            lost: VecDeque::new(),
            mss: 536,
            has_sacks: false,
            scale: 0,
            window: 0,
            window_max: 0,
            window_seq: 0,
            window_ack: 0,
            srtt_us: 0,
            rttvar_us: 0,
            min_rtt_us: i64::MAX,
            min_rtt_at_us: 0,
            backoff: 0,
            recovery: Recovery::None,
            recovery_point: seq,
            is_first_free: false,
            duplicates: 0,
            bbr: Bbr::new(536, seq),
            delivery: Delivery::default(),
            is_window_full: false,
            rack_us: i64::MIN,
            rack_end: seq,
            rack_rtt_us: 0,
            fack: seq,
            is_reordering: false,
            reorder_multiplier: 1,
            reorder_recoveries: 0,
            reorder_due_us: None,
            undo: None,
            undo_left: 0,
            timer_from_us: 0,
            last_sent_us: 0,
            was_probed: false,
            paced_us: 0,
            is_pace_bound: false,
            stuck_us: None,
            probes: 0,
            probed_us: 0,
        }
    }

    /// What the peer's SYN says, and how long ours took if that is known.
    pub fn establish(&mut self, syn: &Segment, mss: usize, rtt_us: Option<i64>, now_us: i64) {
        self.mss = mss;
        self.has_sacks = syn.header.sack_permitted;
        self.scale = syn.header.scale.unwrap_or(0);
        self.bbr = Bbr::new(mss, self.una);
        if let Some(rtt_us) = rtt_us {
            self.first_rtt(rtt_us, now_us);
        }
    }

    /// How long the peer took to confirm our SYN.
    pub fn first_rtt(&mut self, rtt_us: i64, now_us: i64) {
        self.on_rtt(rtt_us, now_us);
        self.bbr.first_rtt(rtt_us, now_us);
    }

    /// The path takes no greater pieces any more, neither new ones nor those sent again.
    pub fn shrink_mss(&mut self, mss: usize) {
        self.mss = self.mss.min(mss);
    }

    /// The peer's first window; that of a SYN is unscaled.
    pub fn first_window(&mut self, segment: &Segment) {
        let shift = if segment.header.flags & crate::segment::SYN != 0 { 0 } else { self.scale };
        self.window = u32::from(segment.header.window) << shift;
        self.window_max = self.window_max.max(self.window);
        (self.window_seq, self.window_ack) = (segment.header.seq, segment.header.ack);
    }

    /// The rate that the path is believed to deliver, bytes a second, and how many bytes may be on their way.
    #[cfg(test)]
    pub fn model(&self) -> (f64, usize) {
        (self.bbr.bandwidth(), self.bbr.window())
    }

    pub fn una(&self) -> u32 {
        self.una
    }

    pub fn nxt(&self) -> u32 {
        self.nxt
    }

    pub fn window_max(&self) -> u32 {
        self.window_max
    }

    /// 0 until it is known.
    pub fn srtt_us(&self) -> i64 {
        self.srtt_us
    }

    /// Pieces on their way.
    #[cfg(test)]
    pub fn on_way(&self) -> usize {
        self.sent.len()
    }

    pub fn held(&self) -> usize {
        self.data.len()
    }

    pub fn room(&self) -> usize {
        if self.is_finished { 0 } else { self.limit.saturating_sub(self.data.len()) }
    }

    /// Takes what fits. Returns how many bytes.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        let needed = self.data.len() + count;
        if needed > self.data.capacity() {
            // Doubled as a vector would be, but never beyond what was claimed.
            let capacity = (2 * self.data.capacity()).max(needed).min(self.limit.max(needed));
            self.data.reserve_exact(capacity - self.data.len());
        }
        self.data.extend(&bytes[..count]);
        count
    }

    /// Bytes that a sender takes at most whose buffer has `limit`, at first.
    pub const fn least_bytes(limit: usize) -> usize {
        limit + SENT_FIRST * SENT_BYTES
    }

    /// Bytes that it takes at most.
    pub fn bytes(&self) -> usize {
        self.limit + self.pieces_max * SENT_BYTES
    }

    /// Lets twice as many pieces be on their way where half of those that may be are, for at most `spare` bytes more.
    pub fn grow_pieces(&mut self, spare: usize) {
        if 2 * self.sent.len() >= self.pieces_max {
            let more = self.pieces_max.min(SENT_MAX - self.pieces_max).min(spare / SENT_BYTES);
            self.pieces_max += more;
        }
    }

    #[inline]
    fn count_step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }

    /// Nothing comes behind what is there.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    pub fn is_fin_acked(&self) -> bool {
        self.fin_sent && self.una == self.nxt
    }

    /// Bytes that the buffer should hold so that the window can be filled and the next be ready; while a gap keeps what has
    /// arrived here, a window more.
    pub fn wants(&self) -> usize {
        let windows = if self.sacked > 0 { 3 } else { 2 };
        windows * self.bbr.window().min(self.window_max as usize)
    }

    /// Gives memory back that nothing waits in.
    pub fn shrink(&mut self) {
        self.data.shrink_to_fit();
        self.sent.shrink_to_fit();
        self.order.shrink_to_fit();
        self.lost.shrink_to_fit();
        self.pieces_max = self.pieces_max.min(SENT_FIRST.max(self.sent.len()));
    }

    /// Everything is forgotten, and nothing will be sent.
    pub fn clear(&mut self) {
        self.data = VecDeque::new();
        self.sent = VecDeque::new();
        self.order = VecDeque::new();
        self.lost = VecDeque::new();
        (self.pipe, self.sacked) = (0, 0);
        self.stuck_us = None;
    }

    /// The payload of a chunk.
    pub fn payload(&self, chunk: &Chunk) -> (&[u8], &[u8]) {
        let (front, back) = self.data.as_slices();
        let (from, to) = (chunk.at, chunk.at + chunk.length);
        let cut = front.len();
        (&front[from.min(cut)..to.min(cut)], &back[from.saturating_sub(cut)..to.saturating_sub(cut)])
    }

    fn pace(&mut self, bytes: usize, now_us: i64) {
        let rate = self.bbr.pacing_rate();
        if rate == 0.0 {
            return;
        }
        let us_a_byte = 1e6 / rate;
        let late_us = (self.min_rtt_us / 4).clamp(BURST_US.0, BURST_US.1);
        let depth_us = late_us.max((BURST_SEGMENTS * self.mss as f64 * us_a_byte) as i64);
        self.paced_us = self.paced_us.max(now_us - depth_us) + (bytes as f64 * us_a_byte) as i64;
    }

    /// The next piece that may leave, which counts as sent with this call.
    pub fn next(&mut self, now_us: i64) -> Option<Chunk> {
        self.is_pace_bound = self.srtt_us > 0 && self.paced_us > now_us;
        if self.is_pace_bound {
            return None;
        }
        if self.sent.is_empty() && self.srtt_us > 0 {
            if self.last_sent_us > 0 && self.unsent() > 0 {
                self.bbr.on_restart(now_us);
            }
        }
        let chunk = self.next_lost(now_us).or_else(|| self.next_new(now_us))?;
        if self.sent.len() == 1 || self.stuck_us.is_none() {
            self.timer_from_us = now_us;
        }
        self.stuck_us.get_or_insert(now_us);
        self.last_sent_us = now_us;
        self.pace(chunk.length + crate::segment::TCP_BYTES, now_us);
        Some(chunk)
    }

    fn next_lost(&mut self, now_us: i64) -> Option<Chunk> {
        let distance = self.lost.front()?.wrapping_sub(self.una);
        let at = self.sent.partition_point(|piece| piece.end().wrapping_sub(self.una) < distance);
        let window = self.bbr.window();
        self.cut(at);
        let piece = self.sent.get_mut(at)?;
        if self.pipe > 0 && self.pipe + piece.span as usize > window && !self.is_first_free {
            return None;
        }
        self.is_first_free = false;
        piece.is_lost = false;
        piece.is_again = true;
        piece.sent_us = now_us;
        piece.stamp = self.delivery.stamp(self.pipe, piece.span as usize, now_us);
        let (seq, span, has_fin) = (piece.seq, piece.span, piece.has_fin);
        if at == 0 {
            self.timer_from_us = now_us;
        }
        self.pipe += span as usize;
        self.lost.pop_front();
        self.note_sent(seq.wrapping_add(span), now_us);
        self.undo_left += 1;
        let length = span as usize - usize::from(has_fin);
        Some(Chunk { seq, at: seq.wrapping_sub(self.una) as usize, length, has_fin, is_last: true })
    }

    /// Makes two of the first lost piece, at this place of `sent`, if it left when pieces could be greater.
    fn cut(&mut self, at: usize) {
        let Some(&piece) = self.sent.get(at) else { return };
        let length = piece.span as usize - usize::from(piece.has_fin);
        if length <= self.mss {
            return;
        }
        let (first, rest) = (self.mss as u32, piece.span - self.mss as u32);
        self.sent[at] = Sent { span: first, has_fin: false, ..piece };
        self.sent.insert(at + 1, Sent { seq: piece.seq.wrapping_add(first), span: rest, ..piece });
        self.lost.push_front(piece.seq.wrapping_add(first));
    }

    /// Bytes that wait for their first sending.
    fn unsent(&self) -> usize {
        let sent = self.nxt.wrapping_sub(self.una) as usize;
        self.data.len().saturating_sub(sent)
    }

    fn next_new(&mut self, now_us: i64) -> Option<Chunk> {
        let waiting = self.unsent();
        let wants_fin = self.is_finished && !self.fin_sent;
        if waiting == 0 && !wants_fin || self.sent.len() >= self.pieces_max {
            self.is_window_full = false;
            // A buffer that is full of what waits for a gap's repair says nothing of who fills it.
            let waits_for_repair = self.sacked > 0 && self.data.len() >= self.limit;
            if self.pipe < self.bbr.window() && !waits_for_repair {
                self.delivery.on_app_limited(self.pipe);
            }
            return None;
        }
        let flight = self.nxt.wrapping_sub(self.una) as usize;
        let allowed = (self.window as usize).saturating_sub(flight);
        let length = waiting.min(self.mss).min(allowed);
        // RFC 9293 §3.8.6.2.1: no small pieces because the window is nearly shut.
        let is_silly = length < waiting.min(self.mss)
            && flight > 0
            && length < (self.window_max as usize / 2).min(self.mss);
        if length == 0 && waiting > 0 || is_silly {
            self.is_window_full = false;
            // The peer's window says as little of the path as a lack of data does.
            if self.pipe < self.bbr.window() {
                self.delivery.on_app_limited(self.pipe);
            }
            return None;
        }
        if self.pipe > 0 && self.pipe + length > self.bbr.window() {
            self.is_window_full = true;
            return None;
        }
        let has_fin = wants_fin && length == waiting;
        let span = length + usize::from(has_fin);
        let piece = Sent {
            seq: self.nxt,
            span: span as u32,
            sent_us: now_us,
            has_fin,
            is_sacked: false,
            is_lost: false,
            is_again: false,
            stamp: self.delivery.stamp(self.pipe, span, now_us),
            run: 1,
        };
        if self.sent.len() == self.sent.capacity() {
            let more = self.sent.len().max(SENT_FIRST / 4).min(self.pieces_max - self.sent.len());
            self.sent.reserve_exact(more);
        }
        self.sent.push_back(piece);
        self.note_sent(piece.end(), now_us);
        self.pipe += piece.span as usize;
        self.nxt = piece.end();
        self.fin_sent |= has_fin;
        Some(Chunk { seq: piece.seq, at: flight, length, has_fin, is_last: length == waiting })
    }
}
