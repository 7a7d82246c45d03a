//! How much a TCP sender may have on its way: CUBIC (RFC 9438), whose slow start ends as HyStart++ says (RFC 9406) before
//! a queue overflows. All windows are bytes and all times microseconds. Reads no clock and knows no segments.

const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// RFC 9438 §4.3.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// RFC 6928.
const INITIAL_SEGMENTS: f64 = 10.0;
const LEAST_SEGMENTS: f64 = 2.0;
/// RFC 9406 §4.3.
const RTT_THRESHOLD_US: (i64, i64) = (4_000, 16_000);
const RTT_SAMPLES: u32 = 8;
const CONSERVATIVE_ROUNDS: u32 = 5;
const CONSERVATIVE_DIVISOR: f64 = 4.0;

/// What a congestion event changes, for when it turns out to have been none.
#[derive(Clone, Copy)]
pub struct Before {
    window: f64,
    threshold: f64,
    w_max: f64,
}

pub struct Cubic {
    mss: f64,
    window: f64,
    threshold: f64,
    w_max: f64,
    k_s: f64,
    w_est: f64,
    epoch_us: Option<i64>,
    /// HyStart++: the least round trip of the last round, of this one, and of the round before growth slowed down.
    last_rtt_us: i64,
    round_rtt_us: i64,
    samples: u32,
    conservative_rounds: u32,
    baseline_us: i64,
}

impl Cubic {
    pub fn new(mss: usize) -> Self {
        let mss = mss as f64;
        Self {
            mss,
            window: INITIAL_SEGMENTS * mss,
            threshold: f64::INFINITY,
            w_max: 0.0,
            k_s: 0.0,
            w_est: 0.0,
            epoch_us: None,
            last_rtt_us: i64::MAX,
            round_rtt_us: i64::MAX,
            samples: 0,
            conservative_rounds: 0,
            baseline_us: i64::MAX,
        }
    }

    pub fn window(&self) -> usize {
        self.window as usize
    }

    pub fn is_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// A round trip has passed, in which everything that was on the way was answered.
    pub fn on_round(&mut self) {
        if self.conservative_rounds > 0 {
            self.conservative_rounds += 1;
            if self.conservative_rounds > CONSERVATIVE_ROUNDS && self.is_slow_start() {
                self.threshold = self.window;
            }
        }
        self.last_rtt_us = self.round_rtt_us;
        self.round_rtt_us = i64::MAX;
        self.samples = 0;
    }

    pub fn on_rtt(&mut self, rtt_us: i64) {
        self.round_rtt_us = self.round_rtt_us.min(rtt_us);
        self.samples += 1;
        if !self.is_slow_start() || self.samples < RTT_SAMPLES || self.last_rtt_us == i64::MAX {
            return;
        }
        if self.conservative_rounds > 0 {
            if self.round_rtt_us < self.baseline_us {
                self.conservative_rounds = 0;
                self.baseline_us = i64::MAX;
            }
            return;
        }
        let threshold = (self.last_rtt_us / 8).clamp(RTT_THRESHOLD_US.0, RTT_THRESHOLD_US.1);
        if self.round_rtt_us >= self.last_rtt_us + threshold {
            self.conservative_rounds = 1;
            self.baseline_us = self.round_rtt_us;
        }
    }

    /// So many bytes were acknowledged while the window was what held the sender back.
    pub fn on_ack(&mut self, acked: usize, now_us: i64, rtt_us: i64) {
        let acked = acked as f64;
        if self.is_slow_start() {
            let divisor = if self.conservative_rounds > 0 { CONSERVATIVE_DIVISOR } else { 1.0 };
            self.window = (self.window + acked / divisor).min(self.threshold);
            return;
        }
        let epoch_us = *self.epoch_us.get_or_insert_with(|| {
            self.w_max = self.w_max.max(self.window);
            self.k_s = ((self.w_max - self.window) / self.mss / C).cbrt();
            self.w_est = self.window;
            now_us
        });
        let t_s = (now_us - epoch_us + rtt_us) as f64 / 1e6;
        let target = C * (t_s - self.k_s).powi(3) * self.mss + self.w_max;
        let target = target.clamp(self.window, 1.5 * self.window);
        let alpha = if self.w_est < self.w_max { ALPHA } else { 1.0 };
        self.w_est += alpha * self.mss * acked / self.window;
        self.window += (target - self.window) * acked / self.window;
        self.window = self.window.max(self.w_est);
    }

    /// Something was lost. Returns what was before.
    pub fn on_congestion(&mut self) -> Before {
        let before = Before { window: self.window, threshold: self.threshold, w_max: self.w_max };
        // Fast convergence (RFC 9438 §4.7): who got less than before leaves room for others.
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.threshold = (self.window * BETA).max(LEAST_SEGMENTS * self.mss);
        self.window = self.threshold;
        self.epoch_us = None;
        before
    }

    /// Nothing was answered for long (RFC 5681 §3.1).
    pub fn on_timeout(&mut self) -> Before {
        let before = self.on_congestion();
        self.window = self.mss;
        before
    }

    pub fn undo(&mut self, before: Before) {
        self.window = self.window.max(before.window);
        self.threshold = self.threshold.max(before.threshold);
        self.w_max = self.w_max.max(before.w_max);
        self.epoch_us = None;
    }

    /// Nothing was sent for some timeouts (RFC 2861): what the path bears is known less and less.
    pub fn on_idle(&mut self, timeouts: i64) {
        self.threshold = self.threshold.max(0.75 * self.window);
        let least = (INITIAL_SEGMENTS * self.mss).min(self.window);
        self.window = (self.window / f64::powi(2.0, timeouts.min(30) as i32)).max(least);
        self.epoch_us = None;
    }
}
