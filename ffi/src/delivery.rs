//! How quickly a path delivers (draft-cheng-iccrg-delivery-rate-estimation): each piece that leaves bears what had been
//! delivered by then, and the acknowledgement of the newest makes a sample of it. Invariant: a sample is never quicker than
//! the pieces were sent, and says whether the sender had nothing more to send. Bytes and microseconds; reads no clock.

/// What a piece remembers of the time when it left.
#[derive(Clone, Copy, Default)]
pub struct Stamp {
    delivered: u64,
    delivered_us: i64,
    first_sent_us: i64,
    pub lost: u64,
    /// Bytes on their way, this piece included.
    pub in_flight: usize,
    is_app_limited: bool,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// Bytes delivered before the newest piece of it left.
    pub prior_delivered: u64,
    /// Bytes a second; absent where the interval is too short to mean anything.
    pub rate: Option<f64>,
    pub rtt_us: Option<i64>,
    pub is_app_limited: bool,
    /// Bytes on their way when that piece left, and bytes lost since.
    pub in_flight_then: usize,
    pub lost: u64,
    pub newly_delivered: usize,
}

#[derive(Clone, Copy)]
struct Newest {
    stamp: Stamp,
    sent_us: i64,
    is_again: bool,
}

#[derive(Default)]
pub struct Delivery {
    pub delivered: u64,
    pub lost: u64,
    delivered_us: i64,
    first_sent_us: i64,
    /// What is delivered up to this was sent while there was too little to send; 0: nothing.
    app_limited_until: u64,
    newest: Option<Newest>,
    delivered_before: u64,
}

impl Delivery {
    /// A piece of `span` bytes leaves while `pipe` are on their way.
    pub fn stamp(&mut self, pipe: usize, span: usize, now_us: i64) -> Stamp {
        if pipe == 0 {
            (self.first_sent_us, self.delivered_us) = (now_us, now_us);
        }
        Stamp {
            delivered: self.delivered,
            delivered_us: self.delivered_us,
            first_sent_us: self.first_sent_us,
            lost: self.lost,
            in_flight: pipe + span,
            is_app_limited: self.app_limited_until > 0,
        }
    }

    /// There is nothing more to send, and the path would take more than the `pipe` bytes that are on their way.
    pub fn on_app_limited(&mut self, pipe: usize) {
        self.app_limited_until = (self.delivered + pipe as u64).max(1);
    }

    /// `bytes` of a piece have arrived.
    pub fn take(&mut self, stamp: Stamp, bytes: usize, sent_us: i64, is_again: bool, now_us: i64) {
        self.delivered += bytes as u64;
        self.delivered_us = now_us;
        let is_newer = self
            .newest
            .is_none_or(|newest| (stamp.delivered, sent_us) >= (newest.stamp.delivered, newest.sent_us));
        if is_newer {
            self.newest = Some(Newest { stamp, sent_us, is_again });
            self.first_sent_us = sent_us;
        }
    }

    /// The sample of one acknowledgement, all of whose pieces were taken; none if it brought nothing new.
    pub fn sample(&mut self, min_rtt_us: i64) -> Option<Sample> {
        let Newest { stamp, sent_us, is_again } = self.newest.take()?;
        if self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let newly_delivered = (self.delivered - self.delivered_before) as usize;
        self.delivered_before = self.delivered;
        let send_us = sent_us - stamp.first_sent_us;
        let ack_us = self.delivered_us - stamp.delivered_us;
        let interval_us = send_us.max(ack_us);
        let rtt_us = self.delivered_us - sent_us;
        // Shorter than a round trip: the answer is to what was sent first, and not to its repetition.
        let is_valid = interval_us > 0 && (min_rtt_us == i64::MAX || interval_us >= min_rtt_us);
        let count = (self.delivered - stamp.delivered) as f64;
        Some(Sample {
            prior_delivered: stamp.delivered,
            rate: is_valid.then(|| count * 1e6 / interval_us as f64),
            rtt_us: (!is_again && rtt_us > 0).then_some(rtt_us),
            is_app_limited: stamp.is_app_limited,
            in_flight_then: stamp.in_flight,
            lost: self.lost.saturating_sub(stamp.lost), // what was found again is taken back
            newly_delivered,
        })
    }
}
