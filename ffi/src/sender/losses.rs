//! Which pieces are lost: by time (RACK, RFC 8985 section 6) or, without selective acknowledgements, by duplicates (RFC 5681,
//! 6582). Invariant: the lost pieces are listed by sequence number, each once, so the next to be sent again is found without
//! a search through all that is on its way. Sends nothing.

use super::{DUPLICATES, Recovery, Sender, Sent};
use crate::segment::before;

impl Sender {
    pub(super) fn lose_first(&mut self, now_us: i64) {
        if let Some(first) = self.sent.front()
            && !first.is_lost
            && !first.is_sacked
        {
            self.lose(0, now_us);
        }
    }

    /// The piece at this place of `sent` is lost, for all that is known.
    pub(super) fn lose(&mut self, at: usize, now_us: i64) {
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

    pub(super) fn insert_lost(&mut self, end: u32) {
        let place = self.lost_place(end);
        self.lost.insert(place, end);
    }

    pub(super) fn remove_lost(&mut self, end: u32) {
        let place = self.lost_place(end);
        if self.lost.get(place) == Some(&end) {
            self.lost.remove(place);
        }
    }

    /// `bytes` of a piece that was taken for lost have arrived. Where it had left only once nothing was lost: it was late.
    pub(super) fn on_found(&mut self, piece: &Sent, bytes: usize) {
        if !piece.is_again {
            self.is_reordering = true;
            self.delivery.lost = self.delivery.lost.saturating_sub(bytes as u64);
            self.bbr.on_found(bytes);
        }
    }

    pub(super) fn enter_recovery(&mut self) {
        if self.recovery == Recovery::None {
            self.recovery = Recovery::Fast;
            self.recovery_point = self.nxt;
            self.undo = Some(self.bbr.on_recovery());
            self.undo_left = 0;
            self.is_first_free = true;
        }
    }

    /// RFC 8985 §6.2: a piece is lost when one that left later has arrived, and time for being late is over.
    pub(super) fn find_losses(&mut self, now_us: i64) {
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
    pub(super) fn note_sent(&mut self, end: u32, now_us: i64) {
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
}
