//! What losses do to the model: upper bounds that a probe has found, and lower bounds for the time between probes
//! (draft-ietf-ccwg-bbr, sections 5.5.10 and 5.3.3.6). Invariant: losses below LOSS_THRESHOLD change no bound.

use super::*;

impl Bbr {
    /// After a round trip without too many losses: half of the way back to what the model allows. What was lost to a pause of
    /// somebody on the path says nothing of the rate behind it; the draft would keep it until the next probe, for seconds.
    pub(super) fn raise_lower_bounds(&mut self) {
        let raised = |low: f64, most: f64| {
            let middle = (low + most) / 2.0;
            if middle < LOW_ENOUGH * most { middle } else { f64::INFINITY }
        };
        self.bw_lo = raised(self.bw_lo, self.max_bw());
        let most = self.bdp(self.max_bw(), DEFAULT_CWND_GAIN).min(self.inflight_hi);
        self.inflight_lo = raised(self.inflight_lo, most);
    }

    pub(super) fn is_too_much(&self, lost: u64, in_flight: usize) -> bool {
        lost as f64 > (LOSS_THRESHOLD * in_flight as f64).max(LOSSES_LEAST as f64 * self.mss - 1.0)
    }

    pub(super) fn is_round_lossy(&self) -> bool {
        let all = (self.lost_in_round + self.delivered_in_round) as f64;
        self.lost_in_round as f64 > (LOSS_THRESHOLD * all).max(LOSSES_LEAST as f64 * self.mss - 1.0)
    }

    pub(super) fn headroom(&self) -> f64 {
        if self.inflight_hi.is_infinite() {
            return f64::INFINITY;
        }
        let room = ((1.0 - HEADROOM) * self.inflight_hi).max(self.mss);
        (self.inflight_hi - room).max(MIN_PIPE_SEGMENTS as f64 * self.mss)
    }

    pub(super) fn on_inflight_too_high(&mut self, in_flight: f64, now_us: i64) {
        self.has_probe_samples = false;
        let target = self.bdp(self.bandwidth_now(), 1.0).min(self.window);
        self.inflight_hi = in_flight.max(BETA * target);
        if self.state == State::ProbeBwUp {
            self.start_down(now_us);
        }
    }

    pub(super) fn adapt_upper(&mut self, sample: &Sample, flight: Flight, now_us: i64) {
        if self.is_round_start && self.ack_phase == AckPhase::Starting {
            self.ack_phase = AckPhase::Feedback;
        } else if self.is_round_start && self.ack_phase == AckPhase::Stopping {
            self.has_probe_samples = false;
            self.ack_phase = AckPhase::Feedback;
            let is_cycle = matches!(self.state, State::ProbeBwDown | State::ProbeBwCruise);
            if is_cycle && !sample.is_app_limited {
                self.max_bw = [self.max_bw[1], sample.rate.unwrap_or(0.0)];
            }
        }
        if self.is_too_much(sample.lost, sample.in_flight_then) {
            if self.has_probe_samples {
                self.on_inflight_too_high(sample.in_flight_then as f64, now_us);
            }
            return;
        }
        if self.inflight_hi.is_infinite() {
            return;
        }
        self.inflight_hi = self.inflight_hi.max(sample.in_flight_then as f64);
        let is_bound = flight.is_window_full && self.window >= self.inflight_hi;
        if self.state != State::ProbeBwUp || !is_bound {
            return;
        }
        // Twice as much more in each round: 1, 2, 4, … segments a round trip.
        if self.is_round_start {
            self.up_rounds = (self.up_rounds + 1).min(30);
        }
        self.up_acked += sample.newly_delivered as f64;
        let each = (self.window / f64::from(1u32 << self.up_rounds)).max(self.mss);
        let more = (self.up_acked / each).floor();
        self.up_acked -= more * each;
        self.inflight_hi += more * self.mss;
    }
}
