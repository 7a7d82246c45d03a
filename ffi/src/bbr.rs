//! How much a TCP sender may have on its way and how quickly it leaves, by a model of the path: BBRv3
//! (draft-ietf-ccwg-bbr) in the form that one hop's end needs. The model is the greatest rate of delivery of the last two
//! probes and the least round trip of ten seconds; a state asks by its gains for more, less or as much. Invariant: losses
//! below LOSS_THRESHOLD change nothing, those above bound the bytes on their way; samples of a sender without data never
//! lower the model. Other than in the draft, lower bounds obey the threshold as well and rise again in each round trip without
//! too many losses, and there is no ECN. Bytes, bytes a second and microseconds; reads no clock and knows no segments.
//! The states are in bbr/cycle.rs, the bounds in bbr/bounds.rs.

use crate::delivery::Sample;

mod bounds;
mod cycle;

/// RFC 6928.
const INITIAL_SEGMENTS: usize = 10;
const MIN_PIPE_SEGMENTS: usize = 4;
const STARTUP_PACING_GAIN: f64 = 2.77;
const DRAIN_PACING_GAIN: f64 = 0.5;
const PROBE_BW_DOWN_PACING_GAIN: f64 = 0.9;
const PROBE_BW_UP_PACING_GAIN: f64 = 1.25;
const DEFAULT_CWND_GAIN: f64 = 2.0;
const PROBE_BW_UP_CWND_GAIN: f64 = 2.25;
const PROBE_RTT_CWND_GAIN: f64 = 0.5;
const PACING_MARGIN: f64 = 0.99;
const LOSS_THRESHOLD: f64 = 0.02;
/// Of few segments one lost says nothing of a rate: as many must be, in what was on its way.
const LOSSES_LEAST: usize = 8;
const BETA: f64 = 0.7;
/// A lower bound above this part of what the model allows bounds nothing.
const LOW_ENOUGH: f64 = 0.95;
const HEADROOM: f64 = 0.85;
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
const MIN_RTT_FILTER_US: i64 = 10_000_000;
const PROBE_RTT_INTERVAL_US: i64 = 5_000_000;
const PROBE_RTT_DURATION_US: i64 = 200_000;
const PROBE_WAIT_US: i64 = 2_000_000;
/// Reno's round trips between two losses, at most: who probes as often gets as much.
const PROBE_WAIT_ROUNDS: u32 = 63;
const EXTRA_ACKED_ROUNDS: u32 = 5;
/// What leaves in one burst of the pace, in microseconds, and has to fit beside the model's bytes.
const OFFLOAD_US: f64 = 1_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Startup,
    Drain,
    ProbeBwDown,
    ProbeBwCruise,
    ProbeBwRefill,
    ProbeBwUp,
    ProbeRtt,
}

/// Whose acknowledgements come now (draft §5.3.3.6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum AckPhase {
    Starting,
    Feedback,
    Stopping,
    Refilling,
}

/// What a loss changes, for when it turns out to have been none.
#[derive(Clone, Copy)]
pub struct Before {
    window: f64,
    inflight_hi: f64,
    inflight_lo: f64,
    bw_lo: f64,
}

/// What the sender knows of itself at an acknowledgement.
#[derive(Clone, Copy)]
pub struct Flight {
    pub delivered: u64,
    pub in_flight: usize,
    /// The window alone kept something back since the last acknowledgement.
    pub is_window_full: bool,
}

pub struct Bbr {
    mss: f64,
    state: State,
    window: f64,
    prior_window: f64,
    pacing_rate: f64,
    max_bw: [f64; 2],
    bw_latest: f64,
    inflight_latest: f64,
    bw_lo: f64,
    inflight_lo: f64,
    inflight_hi: f64,
    min_rtt_us: i64,
    min_rtt_at_us: i64,
    probe_rtt_min_us: i64,
    probe_rtt_min_at_us: i64,
    probe_rtt_done_us: Option<i64>,
    is_idle_restart: bool,
    rounds: u32,
    next_round_delivered: u64,
    is_round_start: bool,
    is_limited_in_round: bool,
    lost_in_round: usize,
    delivered_in_round: usize,
    full_bw: f64,
    full_bw_rounds: u32,
    is_full_bw_now: bool,
    is_full_bw_reached: bool,
    ack_phase: AckPhase,
    has_probe_samples: bool,
    cycle_us: i64,
    wait_us: i64,
    rounds_since_probe: u32,
    up_rounds: u32,
    up_acked: f64,
    extra_acked: [f64; 2],
    extra_rounds: u32,
    extra_from_us: i64,
    extra_delivered: f64,
    random: u32,
}

impl Bbr {
    /// `seed` spreads when flows probe.
    pub fn new(mss: usize, seed: u32) -> Self {
        let mss = mss as f64;
        Self {
            mss,
            state: State::Startup,
            window: INITIAL_SEGMENTS as f64 * mss,
            prior_window: 0.0,
            pacing_rate: 0.0,
            max_bw: [0.0; 2],
            bw_latest: 0.0,
            inflight_latest: 0.0,
            bw_lo: f64::INFINITY,
            inflight_lo: f64::INFINITY,
            inflight_hi: f64::INFINITY,
            min_rtt_us: i64::MAX,
            min_rtt_at_us: 0,
            probe_rtt_min_us: i64::MAX,
            probe_rtt_min_at_us: 0,
            probe_rtt_done_us: None,
            is_idle_restart: false,
            rounds: 0,
            next_round_delivered: 0,
            is_round_start: false,
            is_limited_in_round: false,
            lost_in_round: 0,
            delivered_in_round: 0,
            full_bw: 0.0,
            full_bw_rounds: 0,
            is_full_bw_now: false,
            is_full_bw_reached: false,
            ack_phase: AckPhase::Starting,
            has_probe_samples: false,
            cycle_us: 0,
            wait_us: PROBE_WAIT_US,
            rounds_since_probe: 0,
            up_rounds: 0,
            up_acked: 0.0,
            extra_acked: [0.0; 2],
            extra_rounds: 0,
            extra_from_us: 0,
            extra_delivered: 0.0,
            random: seed | 1,
        }
    }

    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Bytes a second; 0 before a round trip is known.
    pub fn pacing_rate(&self) -> f64 {
        self.pacing_rate
    }

    /// The greatest rate of delivery that the model believes in, bytes a second.
    #[cfg(test)]
    pub fn bandwidth(&self) -> f64 {
        self.max_bw()
    }

    /// The handshake's round trip, before anything else is known.
    pub fn first_rtt(&mut self, rtt_us: i64, now_us: i64) {
        self.update_min_rtt(Some(rtt_us), now_us);
        if self.pacing_rate == 0.0 {
            self.pacing_rate = STARTUP_PACING_GAIN * self.window * 1e6 / rtt_us.max(1) as f64;
        }
    }

    /// An acknowledgement that brought something new.
    pub fn on_ack(&mut self, sample: &Sample, flight: Flight, now_us: i64) {
        self.begin_round(sample, flight);
        self.update_latest(sample);
        self.update_aggregation(sample.newly_delivered, now_us);
        self.check_full_bw(sample);
        self.check_startup(flight, now_us);
        if matches!(
            self.state,
            State::ProbeBwDown | State::ProbeBwCruise | State::ProbeBwRefill | State::ProbeBwUp
        ) {
            self.update_cycle(sample, flight, now_us);
        }
        self.adapt_upper(sample, flight, now_us);
        let is_expired = self.update_min_rtt(sample.rtt_us, now_us);
        self.check_probe_rtt(is_expired, flight, now_us);
        self.is_idle_restart = false;
        if self.is_round_start {
            (self.lost_in_round, self.delivered_in_round) = (0, 0);
            (self.bw_latest, self.inflight_latest) =
                (sample.rate.unwrap_or(0.0), sample.newly_delivered as f64);
            self.is_limited_in_round = false;
        }
        self.set_pacing_rate();
        self.set_window(sample.newly_delivered as f64, flight.delivered);
    }

    /// A piece was lost that left when `in_flight` bytes were on their way; `lost` of them since.
    pub fn on_lost(&mut self, span: usize, in_flight: usize, lost: u64, now_us: i64) {
        self.lost_in_round += span;
        if self.has_probe_samples && self.is_too_much(lost, in_flight) {
            self.on_inflight_too_high(in_flight as f64, now_us);
        }
    }

    /// A piece of `span` bytes that was called lost has arrived.
    pub fn on_found(&mut self, span: usize) {
        self.lost_in_round = self.lost_in_round.saturating_sub(span);
    }

    /// Losses are being repaired. Returns what was before.
    pub fn on_recovery(&self) -> Before {
        let Self { window, inflight_hi, inflight_lo, bw_lo, .. } = *self;
        Before { window, inflight_hi, inflight_lo, bw_lo }
    }

    /// Nothing was answered for long (RFC 5681 §3.1). Returns what was before.
    pub fn on_timeout(&mut self) -> Before {
        let before = self.on_recovery();
        self.window = self.mss;
        before
    }

    pub fn undo(&mut self, before: Before) {
        self.window = self.window.max(before.window);
        self.inflight_hi = self.inflight_hi.max(before.inflight_hi);
        self.inflight_lo = self.inflight_lo.max(before.inflight_lo);
        self.bw_lo = self.bw_lo.max(before.bw_lo);
    }

    /// Something leaves after nothing was on its way for want of data: at the model's rate, not quicker.
    pub fn on_restart(&mut self, now_us: i64) {
        self.is_idle_restart = true;
        self.extra_from_us = now_us;
        self.extra_delivered = 0.0;
        if self.state == State::ProbeRtt {
            self.finish_probe_rtt(now_us);
        } else if self.is_full_bw_reached && self.bandwidth_now() > 0.0 {
            self.pacing_rate = self.bandwidth_now() * PACING_MARGIN;
        }
    }

    fn max_bw(&self) -> f64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    fn bandwidth_now(&self) -> f64 {
        self.max_bw().min(self.bw_lo)
    }

    fn bdp(&self, bandwidth: f64, gain: f64) -> f64 {
        if self.min_rtt_us == i64::MAX || bandwidth == 0.0 {
            return INITIAL_SEGMENTS as f64 * self.mss;
        }
        gain * bandwidth * self.min_rtt_us as f64 / 1e6
    }

    /// The model's bytes on their way, and what bursts add.
    fn inflight(&self, bandwidth: f64, gain: f64) -> f64 {
        let burst = (self.pacing_rate * OFFLOAD_US / 1e6).max(2.0 * self.mss);
        (self.bdp(bandwidth, gain) + burst).max(MIN_PIPE_SEGMENTS as f64 * self.mss)
    }

    fn begin_round(&mut self, sample: &Sample, flight: Flight) {
        self.is_round_start = sample.prior_delivered >= self.next_round_delivered;
        self.is_limited_in_round |= flight.is_window_full;
        self.delivered_in_round += sample.newly_delivered;
        if self.is_round_start {
            self.next_round_delivered = flight.delivered;
            self.rounds += 1;
            self.rounds_since_probe += 1;
        }
    }

    fn update_latest(&mut self, sample: &Sample) {
        if let Some(rate) = sample.rate {
            if rate >= self.max_bw() || !sample.is_app_limited {
                self.max_bw[1] = self.max_bw[1].max(rate);
            }
            self.bw_latest = self.bw_latest.max(rate);
        }
        self.inflight_latest = self.inflight_latest.max(self.delivered_in_round as f64);
        let is_probing = matches!(self.state, State::Startup | State::ProbeBwRefill | State::ProbeBwUp);
        if !self.is_round_start || is_probing {
            return;
        }
        if !self.is_round_lossy() {
            self.raise_lower_bounds();
            return;
        }
        let bw = if self.bw_lo.is_finite() { self.bw_lo } else { self.max_bw() };
        self.bw_lo = self.bw_latest.max(BETA * bw);
        let inflight = if self.inflight_lo.is_finite() { self.inflight_lo } else { self.window };
        self.inflight_lo = self.inflight_latest.max(BETA * inflight);
    }

    /// How much more than the rate says is acknowledged at once (draft §5.5.9).
    fn update_aggregation(&mut self, newly: usize, now_us: i64) {
        if self.is_round_start {
            self.extra_rounds += 1;
            if self.extra_rounds >= if self.is_full_bw_reached { EXTRA_ACKED_ROUNDS } else { 1 } {
                self.extra_rounds = 0;
                self.extra_acked = [self.extra_acked[1], 0.0];
            }
        }
        let mut expected = self.bandwidth_now() * (now_us - self.extra_from_us) as f64 / 1e6;
        if self.extra_delivered <= expected {
            (self.extra_delivered, self.extra_from_us, expected) = (0.0, now_us, 0.0);
        }
        self.extra_delivered += newly as f64;
        let extra = (self.extra_delivered - expected).min(self.window);
        self.extra_acked[1] = self.extra_acked[1].max(extra);
    }

    /// Returns whether the least round trip is too old to be believed.
    fn update_min_rtt(&mut self, rtt_us: Option<i64>, now_us: i64) -> bool {
        let is_expired =
            self.probe_rtt_min_us != i64::MAX && now_us > self.probe_rtt_min_at_us + PROBE_RTT_INTERVAL_US;
        if let Some(rtt_us) = rtt_us
            && (rtt_us <= self.probe_rtt_min_us || is_expired)
        {
            (self.probe_rtt_min_us, self.probe_rtt_min_at_us) = (rtt_us, now_us);
        }
        let is_old = now_us > self.min_rtt_at_us + MIN_RTT_FILTER_US;
        if self.probe_rtt_min_us < self.min_rtt_us || is_old && self.probe_rtt_min_us != i64::MAX {
            (self.min_rtt_us, self.min_rtt_at_us) = (self.probe_rtt_min_us, self.probe_rtt_min_at_us);
        }
        is_expired
    }

    fn set_pacing_rate(&mut self) {
        let gain = match self.state {
            State::Startup => STARTUP_PACING_GAIN,
            State::Drain => DRAIN_PACING_GAIN,
            State::ProbeBwDown => PROBE_BW_DOWN_PACING_GAIN,
            State::ProbeBwUp => PROBE_BW_UP_PACING_GAIN,
            State::ProbeBwCruise | State::ProbeBwRefill | State::ProbeRtt => 1.0,
        };
        let rate = gain * self.bandwidth_now() * PACING_MARGIN;
        if self.bandwidth_now() > 0.0 && (self.is_full_bw_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    fn set_window(&mut self, newly: f64, delivered: u64) {
        let gain = if self.state == State::ProbeBwUp { PROBE_BW_UP_CWND_GAIN } else { DEFAULT_CWND_GAIN };
        let extra = self.extra_acked[0].max(self.extra_acked[1]);
        let most = self.inflight(self.bandwidth_now(), gain) + extra;
        if self.is_full_bw_reached {
            self.window = (self.window + newly).min(most);
        } else if self.window < most || delivered < INITIAL_SEGMENTS as u64 * self.mss as u64 {
            self.window += newly;
        }
        let bound = match self.state {
            State::ProbeBwCruise | State::ProbeRtt => self.headroom(),
            State::Startup | State::Drain => f64::INFINITY,
            _ => self.inflight_hi,
        };
        let least = MIN_PIPE_SEGMENTS as f64 * self.mss;
        self.window = self.window.min(bound.min(self.inflight_lo)).max(least);
        if self.state == State::ProbeRtt {
            self.window = self.window.min(self.probe_rtt_window());
        }
    }
}
