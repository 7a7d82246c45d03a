//! What an acknowledgement says to the sender: what has arrived, in order (RFC 9293) or beyond gaps (RFC 2018), what had
//! arrived before (RFC 2883), and what the peer's window is. Invariant: what is acknowledged is forgotten at once, and each
//! range costs no more steps than it has pieces that are new.

use super::{DUPLICATES, REORDERING_PERSISTS, Recovery, Sender, Sent};
use crate::bbr::Flight;
use crate::segment::{Segment, before};

impl Sender {
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
}
