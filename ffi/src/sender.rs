//! The sending half of a TCP connection: what waits, what is on its way, and what of it is to be sent again. Losses are
//! found by time (RACK and its tail probe, RFC 8985) from selective acknowledgements (RFC 2018, 2883) or, where the peer has
//! none, by three duplicates (RFC 5681, 6582); the timer is RFC 6298's, window and pace bbr.rs's.
//! Invariant: never more than the peer's window is on its way, and what is acknowledged is forgotten at once. Times are
//! microseconds that the caller gives.

use crate::bbr::{Bbr, Before, Flight};
use crate::delivery::{Delivery, Stamp};
use crate::segment::{Segment, before};
use std::collections::VecDeque;

/// RFC 6298 §2 asks for a second; systems have agreed on less, and RFC 8985's probe comes before it.
const RTO_MIN_US: i64 = 200_000;
const RTO_MAX_US: i64 = 60_000_000;
const RTO_FIRST_US: i64 = 1_000_000;
/// RFC 8985 §7.2: as long as the peer may keep an acknowledgement to itself.
const DELAYED_ACK_US: i64 = 200_000;
const DUPLICATES: u32 = 3;
/// What may leave at once when the turn comes late: what the pace would have let out in a quarter of a round trip, within
/// these, and this many segments at least.
const BURST_US: (i64, i64) = (1_000, 10_000);
const BURST_SEGMENTS: f64 = 10.0;
const MIN_RTT_US: i64 = 30_000_000;
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

    fn rto_us(&self) -> i64 {
        if self.srtt_us == 0 {
            return RTO_FIRST_US << self.backoff.min(6);
        }
        let base = self.srtt_us + (4 * self.rttvar_us).max(RTO_MIN_US);
        (base << self.backoff.min(16)).min(RTO_MAX_US)
    }

    fn on_rtt(&mut self, rtt_us: i64, now_us: i64) {
        let rtt_us = rtt_us.max(1);
        if self.srtt_us == 0 {
            (self.srtt_us, self.rttvar_us) = (rtt_us, rtt_us / 2);
        } else {
            self.rttvar_us += ((self.srtt_us - rtt_us).abs() - self.rttvar_us) / 4;
            self.srtt_us = (self.srtt_us + (rtt_us - self.srtt_us) / 8).max(1);
        }
        if rtt_us <= self.min_rtt_us || now_us - self.min_rtt_at_us > MIN_RTT_US {
            (self.min_rtt_us, self.min_rtt_at_us) = (rtt_us, now_us);
        }
    }

    /// A piece has arrived: what that says of time and order.
    fn on_delivered(&mut self, piece: Sent, now_us: i64) {
        let rtt_us = now_us - piece.sent_us;
        self.delivery.take(piece.stamp, piece.span as usize, piece.sent_us, piece.is_again, now_us);
        if piece.is_again {
            // The answer may be to what was sent first.
            if rtt_us < self.min_rtt_us {
                return;
            }
        } else if before(piece.end(), self.fack) {
            self.is_reordering = true;
        }
        if before(self.fack, piece.end()) {
            self.fack = piece.end();
        }
        let is_later = piece.sent_us > self.rack_us
            || piece.sent_us == self.rack_us && before(self.rack_end, piece.end());
        if is_later {
            (self.rack_us, self.rack_end, self.rack_rtt_us) = (piece.sent_us, piece.end(), rtt_us);
        }
    }

    /// Drops what `ack` covers. Returns the bytes.
    fn take_acked(&mut self, ack: u32, now_us: i64) -> usize {
        let mut rtt_us = None;
        while let Some(&piece) = self.sent.front() {
            if !before(piece.seq, ack) {
                break;
            }
            let is_whole = !before(ack, piece.end());
            let covered = if is_whole { piece.span } else { ack.wrapping_sub(piece.seq) };
            if piece.is_lost {
                self.on_found(&piece, covered as usize);
                if is_whole {
                    self.lost.pop_front();
                }
            } else if piece.is_sacked {
                if is_whole {
                    self.sacked -= 1;
                }
            } else {
                self.pipe = self.pipe.saturating_sub(covered as usize);
            }
            if !is_whole {
                if !piece.is_sacked {
                    self.delivery.take(piece.stamp, covered as usize, piece.sent_us, piece.is_again, now_us);
                }
                let first = self.sent.front_mut().expect("just seen");
                first.seq = ack;
                first.span -= covered;
                break;
            }
            self.sent.pop_front();
            if !piece.is_sacked {
                if !piece.is_again {
                    rtt_us = Some(now_us - piece.sent_us);
                }
                self.on_delivered(piece, now_us);
            }
        }
        while self.order.front().is_some_and(|&(_, end)| !before(ack, end)) {
            self.order.pop_front();
        }
        let acked = ack.wrapping_sub(self.una) as usize;
        self.data.drain(..acked.min(self.data.len()));
        self.una = ack;
        if before(self.fack, ack) {
            self.fack = ack;
        }
        if let Some(rtt_us) = rtt_us {
            self.on_rtt(rtt_us, now_us);
        }
        acked
    }

    /// Marks what the peer says it has. Returns the bytes that are new.
    fn take_sacks(&mut self, segment: &Segment, now_us: i64) -> usize {
        let mut marked = 0;
        let blocks = segment.header.sacks.list();
        for (i, &(from, to)) in blocks.iter().enumerate() {
            let is_within =
                i == 0 && blocks.get(1).is_some_and(|outer| !before(from, outer.0) && !before(outer.1, to));
            if !before(self.una, to) || is_within {
                // RFC 2883: the peer had that already.
                if i == 0 && before(from, to) {
                    self.on_duplicate_told();
                }
                continue;
            }
            if !before(from, to) || before(from, self.una) || before(self.nxt, to) {
                continue;
            }
            let distance = from.wrapping_sub(self.una);
            let first = self.sent.partition_point(|piece| piece.seq.wrapping_sub(self.una) < distance);
            let mut at = first;
            while let Some(&piece) = self.sent.get(at) {
                self.count_step();
                if before(to, piece.end()) {
                    break;
                }
                if piece.is_sacked {
                    at += piece.run as usize;
                    continue;
                }
                if piece.is_lost {
                    self.on_found(&piece, piece.span as usize);
                    self.remove_lost(piece.end());
                } else {
                    self.pipe = self.pipe.saturating_sub(piece.span as usize);
                }
                self.sent[at].is_sacked = true;
                self.sent[at].is_lost = false;
                self.sent[at].run = 1;
                self.sacked += 1;
                marked += piece.span as usize;
                self.on_delivered(piece, now_us);
                at += 1;
            }
            // Whoever begins at one of these again is at the end with one step.
            let end = at.min(self.sent.len());
            let mut at = first;
            while at < end {
                self.count_step();
                let run = std::mem::replace(&mut self.sent[at].run, (end - at) as u32);
                at += run as usize;
            }
        }
        marked
    }

    /// Something was sent again in vain: losses are called too early, and perhaps nothing was lost at all.
    fn on_duplicate_told(&mut self) {
        self.is_reordering = true;
        if self.reorder_recoveries == 0 || self.undo_left > 0 {
            self.reorder_multiplier = (self.reorder_multiplier + 1).min(16);
        }
        self.reorder_recoveries = REORDERING_PERSISTS;
        if self.undo_left == 0 {
            return;
        }
        self.undo_left -= 1;
        if self.undo_left == 0
            && let Some(was) = self.undo.take()
        {
            self.bbr.undo(was);
            if self.recovery == Recovery::Timeout || self.lost.is_empty() {
                self.recovery = Recovery::None;
            }
        }
    }

    /// Takes an acceptable acknowledgement: `una` <= ack <= `nxt`, or an older one.
    pub fn on_ack(&mut self, segment: &Segment, now_us: i64) {
        let is_old = before(segment.header.ack, self.una);
        let window = u32::from(segment.header.window) << self.scale;
        let is_same_window = window == self.window;
        if !is_old
            && (before(self.window_seq, segment.header.seq)
                || self.window_seq == segment.header.seq && !before(segment.header.ack, self.window_ack))
        {
            self.window = window;
            self.window_max = self.window_max.max(window);
            (self.window_seq, self.window_ack) = (segment.header.seq, segment.header.ack);
        }
        let acked = if before(self.una, segment.header.ack) {
            self.take_acked(segment.header.ack, now_us)
        } else {
            0
        };
        let marked = if self.has_sacks { self.take_sacks(segment, now_us) } else { 0 };
        if acked > 0 || marked > 0 {
            self.backoff = 0;
            self.was_probed = false;
            self.timer_from_us = now_us;
            self.stuck_us = (!self.sent.is_empty()).then_some(now_us);
        }
        if acked == 0 && marked == 0 && !self.has_sacks && is_same_window && segment.span() == 0 {
            self.on_duplicate_ack(now_us);
        }
        if self.recovery != Recovery::None && !before(self.una, self.recovery_point) {
            self.recovery = Recovery::None;
            if self.undo_left == 0
                && let Some(was) = self.undo.take()
            {
                self.bbr.undo(was); // nothing was lost but patience
            }
            self.reorder_recoveries = self.reorder_recoveries.saturating_sub(1);
            if self.reorder_recoveries == 0 {
                self.reorder_multiplier = 1;
            }
        } else if acked > 0 && !self.has_sacks && self.recovery == Recovery::Fast {
            self.lose_first(now_us); // RFC 6582: a partial acknowledgement names the next one
        }
        if acked > 0 {
            self.duplicates = 0;
        }
        self.find_losses(now_us);
        if let Some(sample) = self.delivery.sample(self.min_rtt_us) {
            let (delivered, is_window_full) = (self.delivery.delivered, self.is_window_full);
            self.bbr.on_ack(&sample, Flight { delivered, in_flight: self.pipe, is_window_full }, now_us);
            self.is_window_full = false;
        }
        if self.window > 0 {
            self.probes = 0;
        }
        if self.sent.is_empty() {
            self.undo = None;
        }
    }

    fn on_duplicate_ack(&mut self, now_us: i64) {
        if self.sent.is_empty() {
            return;
        }
        self.duplicates += 1;
        if self.duplicates == DUPLICATES && self.recovery == Recovery::None {
            self.lose_first(now_us);
            self.enter_recovery();
        } else if self.duplicates > DUPLICATES {
            // Each says that one more has left the path.
            self.pipe = self.pipe.saturating_sub(self.mss).max(self.mss.min(self.pipe));
        }
    }

    fn lose_first(&mut self, now_us: i64) {
        if let Some(first) = self.sent.front()
            && !first.is_lost
            && !first.is_sacked
        {
            self.lose(0, now_us);
        }
    }

    /// The piece at this place of `sent` is lost, for all that is known.
    fn lose(&mut self, at: usize, now_us: i64) {
        let piece = &mut self.sent[at];
        piece.is_lost = true;
        let (span, stamp) = (piece.span as usize, piece.stamp);
        let end = piece.end();
        self.pipe = self.pipe.saturating_sub(span);
        self.insert_lost(end);
        self.delivery.lost += span as u64;
        let lost = self.delivery.lost.saturating_sub(stamp.lost);
        self.bbr.on_lost(span, stamp.in_flight, lost, now_us);
    }

    /// The place of `end` among the lost pieces: theirs is an order of distances from `una`.
    fn lost_place(&self, end: u32) -> usize {
        let distance = end.wrapping_sub(self.una);
        self.lost.partition_point(|other| other.wrapping_sub(self.una) < distance)
    }

    fn insert_lost(&mut self, end: u32) {
        let place = self.lost_place(end);
        self.lost.insert(place, end);
    }

    fn remove_lost(&mut self, end: u32) {
        let place = self.lost_place(end);
        if self.lost.get(place) == Some(&end) {
            self.lost.remove(place);
        }
    }

    /// `bytes` of a piece that was taken for lost have arrived. Where it had left only once nothing was lost: it was late.
    fn on_found(&mut self, piece: &Sent, bytes: usize) {
        if !piece.is_again {
            self.is_reordering = true;
            self.delivery.lost = self.delivery.lost.saturating_sub(bytes as u64);
            self.bbr.on_found(bytes);
        }
    }

    fn enter_recovery(&mut self) {
        if self.recovery == Recovery::None {
            self.recovery = Recovery::Fast;
            self.recovery_point = self.nxt;
            self.undo = Some(self.bbr.on_recovery());
            self.undo_left = 0;
            self.is_first_free = true;
        }
    }

    /// RFC 8985 §6.2: a piece is lost when one that left later has arrived, and time for being late is over.
    fn find_losses(&mut self, now_us: i64) {
        self.reorder_due_us = None;
        if !self.has_sacks || self.sacked == 0 && self.recovery == Recovery::None {
            return;
        }
        let is_sure =
            !self.is_reordering && (self.recovery != Recovery::None || self.sacked >= DUPLICATES as usize);
        let patience_us = if is_sure {
            0
        } else {
            (self.min_rtt_us / 4).saturating_mul(self.reorder_multiplier).min(self.srtt_us)
        };
        let mut found = false;
        // What left last is due last, so the first that is not due ends the walk (RFC 8985 §6.2).
        while let Some(&(sent_us, end)) = self.order.front() {
            self.count_step();
            if let Some(at) = self.find_sent(sent_us, end) {
                let is_earlier =
                    sent_us < self.rack_us || sent_us == self.rack_us && before(end, self.rack_end);
                if !is_earlier {
                    break;
                }
                let at_us = sent_us + self.rack_rtt_us + patience_us;
                if at_us > now_us {
                    self.reorder_due_us = Some(at_us);
                    break;
                }
                self.lose(at, now_us);
                found = true;
            }
            self.order.pop_front();
        }
        if found {
            self.enter_recovery();
        }
    }

    /// Where the piece is that left at this time and ends there, if it is still on its way.
    fn find_sent(&self, sent_us: i64, end: u32) -> Option<usize> {
        let distance = end.wrapping_sub(self.una);
        if !before(self.una, end) {
            return None;
        }
        let at = self.sent.partition_point(|piece| piece.end().wrapping_sub(self.una) < distance);
        let piece = self.sent.get(at)?;
        let is_it = piece.end() == end && piece.sent_us == sent_us && !piece.is_sacked && !piece.is_lost;
        is_it.then_some(at)
    }

    /// Notes that a piece leaves now. Without selective acknowledgements nobody asks for the order.
    fn note_sent(&mut self, end: u32, now_us: i64) {
        if !self.has_sacks {
            return;
        }
        if self.order.len() >= 2 * self.pieces_max {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|&(sent_us, end)| self.find_sent(sent_us, end).is_some());
            self.order = order;
        }
        self.order.push_back((now_us, end));
    }

    /// When the tail is to be probed, or all be taken for lost; and whether it is the probe.
    fn timer(&self) -> Option<(i64, bool)> {
        if self.sent.is_empty() {
            return None;
        }
        let timeout_us = self.timer_from_us + self.rto_us();
        let may_probe = self.has_sacks
            && !self.was_probed
            && self.backoff == 0
            && self.recovery == Recovery::None
            && self.srtt_us > 0;
        if may_probe {
            let allowance_us = if self.sent.len() == 1 { DELAYED_ACK_US } else { 2_000 };
            let probe_us = self.last_sent_us + 2 * self.srtt_us + allowance_us;
            if probe_us < timeout_us {
                return Some((probe_us, true));
            }
        }
        Some((timeout_us, false))
    }

    /// Does what time asks for.
    pub fn tick(&mut self, now_us: i64) {
        if self.reorder_due_us.is_some_and(|due_us| due_us <= now_us) {
            self.find_losses(now_us);
        }
        match self.timer() {
            Some((due_us, true)) if due_us <= now_us => {
                // RFC 8985 §7.3: the last one again, so that its answer tells what is missing.
                self.was_probed = true;
                let last = self.sent.back_mut().expect("a timer runs for something");
                if !last.is_lost && !last.is_sacked {
                    last.is_lost = true;
                    let end = last.end();
                    self.pipe = self.pipe.saturating_sub(last.span as usize);
                    self.insert_lost(end);
                }
            }
            Some((due_us, false)) if due_us <= now_us => self.time_out(now_us),
            _ => {}
        }
    }

    fn time_out(&mut self, now_us: i64) {
        self.backoff += 1;
        self.timer_from_us = now_us;
        self.was_probed = true;
        self.lost.clear();
        for piece in self.sent.iter_mut().filter(|piece| !piece.is_sacked) {
            piece.is_lost = true;
            self.lost.push_back(piece.end());
        }
        self.order.clear();
        self.pipe = 0;
        self.duplicates = 0;
        // A second timeout of the same pieces says nothing new (RFC 5681 §3.1).
        if self.backoff == 1 {
            self.undo = Some(self.bbr.on_timeout());
            self.undo_left = 0;
        }
        self.recovery = Recovery::Timeout;
        self.recovery_point = self.nxt;
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

    fn is_shut_out(&self) -> bool {
        self.sent.is_empty() && self.window == 0 && (self.unsent() > 0 || self.is_finished && !self.fin_sent)
    }

    /// Whether a shut window is to be asked about now (RFC 9293 §3.8.6.1); asked at most once a minute.
    pub fn wants_probe(&mut self, now_us: i64) -> bool {
        if !self.is_shut_out() {
            return false;
        }
        if self.probes == 0 {
            self.probes = 1;
            self.probed_us = now_us;
            return false;
        }
        if now_us < self.probe_due_us() {
            return false;
        }
        self.probes += 1;
        self.probed_us = now_us;
        self.stuck_us.get_or_insert(now_us);
        true
    }

    fn probe_due_us(&self) -> i64 {
        self.probed_us + (self.rto_us() << self.probes.saturating_sub(1).min(16)).min(RTO_MAX_US)
    }

    /// The peer is there, whatever it says of its window.
    pub fn on_heard(&mut self) {
        if self.sent.is_empty() || self.window == 0 {
            self.stuck_us = None;
        }
    }

    /// Since when the peer owes an answer.
    pub fn stuck_us(&self) -> Option<i64> {
        self.stuck_us
    }

    /// When `tick`, `next` or `wants_probe` has something to do.
    pub fn due_us(&self) -> Option<i64> {
        let mut due_us = self.reorder_due_us.unwrap_or(i64::MAX);
        if let Some((timer_us, _)) = self.timer() {
            due_us = due_us.min(timer_us);
        }
        if self.is_shut_out() {
            due_us = due_us.min(if self.probes == 0 { 0 } else { self.probe_due_us() });
        }
        let waits = !self.lost.is_empty() || self.unsent() > 0 || self.is_finished && !self.fin_sent;
        if self.is_pace_bound && waits {
            due_us = due_us.min(self.paced_us);
        }
        (due_us != i64::MAX).then_some(due_us)
    }
}
