//! The sender's clocks: the round trip and the timeout (RFC 6298), the probe of the tail (RFC 8985 section 7), and the
//! questions to a peer whose window is shut (RFC 9293 section 3.8.6.1). Times are microseconds that the caller gives.

use super::{Recovery, Sender};

/// RFC 6298 section 2 asks for a second; systems have agreed on less, and RFC 8985's probe comes before it.
const RTO_MIN_US: i64 = 200_000;
const RTO_MAX_US: i64 = 60_000_000;
const RTO_FIRST_US: i64 = 1_000_000;
/// RFC 8985 section 7.2: as long as the peer may keep an acknowledgement to itself.
const DELAYED_ACK_US: i64 = 200_000;
const MIN_RTT_US: i64 = 30_000_000;

impl Sender {
    fn rto_us(&self) -> i64 {
        if self.srtt_us == 0 {
            return RTO_FIRST_US << self.backoff.min(6);
        }
        let base = self.srtt_us + (4 * self.rttvar_us).max(RTO_MIN_US);
        (base << self.backoff.min(16)).min(RTO_MAX_US)
    }

    pub(super) fn on_rtt(&mut self, rtt_us: i64, now_us: i64) {
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
