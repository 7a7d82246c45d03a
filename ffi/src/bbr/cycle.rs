//! The states of the model's sender and what ends each: the search for the rate, and the cycle of probing for more, for the
//! least round trip, and of cruising between (draft-ietf-ccwg-bbr, sections 5.3.1 to 5.3.4).

use super::*;

impl Bbr {
    fn reset_full_bw(&mut self) {
        (self.full_bw, self.full_bw_rounds, self.is_full_bw_now) = (0.0, 0, false);
    }

    pub(super) fn check_full_bw(&mut self, sample: &Sample) {
        if self.is_full_bw_now || !self.is_round_start || sample.is_app_limited {
            return;
        }
        let Some(rate) = sample.rate else { return };
        let rate = rate.max(self.bw_latest);
        if rate >= FULL_BW_GROWTH * self.full_bw {
            self.reset_full_bw();
            self.full_bw = rate;
            return;
        }
        self.full_bw_rounds += 1;
        self.is_full_bw_now = self.full_bw_rounds >= FULL_BW_ROUNDS;
        self.is_full_bw_reached |= self.is_full_bw_now;
    }

    pub(super) fn check_startup(&mut self, flight: Flight, now_us: i64) {
        if self.state == State::Startup {
            if !self.is_full_bw_reached && self.is_round_start && self.is_round_lossy() {
                self.is_full_bw_reached = true;
                self.inflight_hi = self.bdp(self.max_bw(), 1.0).max(self.inflight_latest);
            }
            if self.is_full_bw_reached {
                self.state = State::Drain;
            }
        }
        if self.state == State::Drain && flight.in_flight as f64 <= self.inflight(self.max_bw(), 1.0) {
            self.start_down(now_us);
        }
    }

    pub(super) fn start_down(&mut self, now_us: i64) {
        self.state = State::ProbeBwDown;
        self.cycle_us = now_us;
        self.ack_phase = AckPhase::Stopping;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.rounds_since_probe = self.random & 1;
        self.wait_us = PROBE_WAIT_US + i64::from(self.random >> 12);
    }

    fn start_refill(&mut self, delivered: u64) {
        self.state = State::ProbeBwRefill;
        (self.bw_lo, self.inflight_lo) = (f64::INFINITY, f64::INFINITY);
        (self.up_rounds, self.up_acked) = (0, 0.0);
        self.ack_phase = AckPhase::Refilling;
        // A whole round from here.
        self.next_round_delivered = delivered;
    }

    pub(super) fn update_cycle(&mut self, sample: &Sample, flight: Flight, now_us: i64) {
        let in_flight = flight.in_flight as f64;
        let waited = now_us - self.cycle_us >= self.wait_us || {
            let segments = (self.inflight(self.max_bw(), 1.0) / self.mss) as u32;
            self.rounds_since_probe >= segments.min(PROBE_WAIT_ROUNDS)
        };
        match self.state {
            State::ProbeBwDown | State::ProbeBwCruise if waited => self.start_refill(flight.delivered),
            State::ProbeBwDown => {
                let bound = self.headroom().min(self.inflight(self.max_bw(), 1.0));
                if in_flight <= bound {
                    self.state = State::ProbeBwCruise;
                }
            }
            State::ProbeBwRefill if self.is_round_start => {
                self.state = State::ProbeBwUp;
                self.cycle_us = now_us;
                self.ack_phase = AckPhase::Starting;
                self.has_probe_samples = true;
                self.reset_full_bw();
                self.full_bw = sample.rate.unwrap_or(0.0);
            }
            State::ProbeBwUp => {
                if self.is_limited_in_round && self.window >= self.inflight_hi {
                    self.reset_full_bw();
                    self.full_bw = sample.rate.unwrap_or(0.0);
                } else if self.is_full_bw_now {
                    self.start_down(now_us);
                }
            }
            _ => {}
        }
    }

    pub(super) fn check_probe_rtt(&mut self, is_expired: bool, flight: Flight, now_us: i64) {
        if self.state != State::ProbeRtt && is_expired && !self.is_idle_restart {
            self.state = State::ProbeRtt;
            self.prior_window = self.window;
            self.probe_rtt_done_us = None;
            self.ack_phase = AckPhase::Stopping;
            self.has_probe_samples = false;
        }
        if self.state != State::ProbeRtt {
            return;
        }
        match self.probe_rtt_done_us {
            None if flight.in_flight as f64 <= self.probe_rtt_window() => {
                let least_us = self.min_rtt_us.min(PROBE_RTT_INTERVAL_US);
                self.probe_rtt_done_us = Some(now_us + PROBE_RTT_DURATION_US.max(least_us));
            }
            _ => self.finish_probe_rtt(now_us),
        }
    }

    pub(super) fn finish_probe_rtt(&mut self, now_us: i64) {
        if self.probe_rtt_done_us.is_none_or(|done_us| now_us < done_us) {
            return;
        }
        self.probe_rtt_min_at_us = now_us;
        self.window = self.window.max(self.prior_window);
        (self.bw_lo, self.inflight_lo) = (f64::INFINITY, f64::INFINITY);
        if self.is_full_bw_reached {
            self.start_down(now_us);
            self.state = State::ProbeBwCruise;
        } else {
            self.state = State::Startup;
        }
    }

    pub(super) fn probe_rtt_window(&self) -> f64 {
        self.bdp(self.bandwidth_now(), PROBE_RTT_CWND_GAIN).max(MIN_PIPE_SEGMENTS as f64 * self.mss)
    }
}
