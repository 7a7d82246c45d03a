//! One TCP connection in packets (RFC 9293), without socket or clock: segments and the time go in, segments and bytes come
//! out. Invariant: what is not within the window is answered as RFC 5961 says and changes nothing; silence ends a
//! connection only while an answer is owed, or after two hours of it and unanswered probes. Times are microseconds.

use crate::receiver::{Receiver, SCALE};
use crate::segment::{ACK, FIN, Header, Key, PSH, RST, SYN, Sacks, Segment, before};
use crate::sender::Sender;
use crate::stack::{Outbox, Purse, seed};

/// Data, a FIN or a probe that nobody answers for this time ends the connection.
const SILENT_US: i64 = 120_000_000;
const SYN_US: i64 = 1_000_000;
const SYN_SILENT_US: i64 = 60_000_000;
/// RFC 5382 REQ-5: an idle connection is kept for 2 h 4 min, and then as long as its end is there.
pub const KEEP_US: i64 = 7_440_000_000;
const KEEP_PROBE_US: i64 = 15_000_000;
/// Long enough for a lost last acknowledgement; a client that wants the port again has its new SYN taken.
const TIME_WAIT_US: i64 = 10_000_000;
/// RFC 5961 §7: as many challenges in a second.
const CHALLENGES: u32 = 10;
/// Segments in a row, before others have their turn.
const QUANTUM: usize = 64;
/// Bytes for each direction: at first, where there is plenty; where there is less, so that a quarter of all connections has
/// its least in half of a quarter of the memory; and at most.
const LIMIT_FIRST: usize = 64 * 1024;
const LIMIT_LEAST: usize = 4 * 1024;
const LIMIT_MAX: usize = 6 * 1024 * 1024;
/// The least that a peer's announcement counts for (RFC 9293 §3.7.1 leaves it open). Less would only multiply pieces: a host
/// takes packets of 68 bytes whole (RFC 791), and 88 is Linux's TCP_MIN_MSS, the greatest headers and eight bytes.
const MSS_LEAST: u16 = 88;
/// What a connection takes where it is given least: no connection begins without it.
pub const LEAST_BYTES: usize = bytes_of(LIMIT_LEAST);

/// What a new connection takes at most whose buffers have `limit` each.
const fn bytes_of(limit: usize) -> usize {
    size_of::<Connection>() + Sender::least_bytes(limit) + Receiver::bytes_of(limit)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    SynSent,
    SynReceived,
    /// From the handshake until both directions have ended.
    Open,
    TimeWait,
    Closed,
}

pub struct Connection {
    key: Key,
    mtu: usize,
    phase: Phase,
    iss: u32,
    irs: u32,
    pub tx: Sender,
    pub rx: Receiver,
    /// What the peer's SYN offered.
    has_sacks: bool,
    has_scale: bool,
    syn_first_us: i64,
    syn_sent_us: i64,
    syn_due_us: i64,
    syn_count: u32,
    /// The peer ended first, so that the last wait is its.
    is_passive: bool,
    heard_us: i64,
    keep_probed_us: i64,
    keep_probes: u32,
    challenge_us: i64,
    challenges: u32,
    time_wait_us: i64,
    is_broken: bool,
    claim: usize,
}

impl Connection {
    fn new(key: Key, mtu: usize, phase: Phase, purse: &mut Purse, now_us: i64) -> Self {
        // Half of what is left is for those that come later.
        let limit = (purse.spare() / 64).clamp(LIMIT_LEAST, LIMIT_FIRST);
        let claim = bytes_of(limit);
        purse.change(0, claim);
        let iss = seed() as u32;
        Self {
            key,
            mtu,
            phase,
            iss,
            irs: 0,
            tx: Sender::new(iss.wrapping_add(1), limit),
            rx: Receiver::new(limit),
            has_sacks: true,
            has_scale: true,
            syn_first_us: now_us,
            syn_sent_us: now_us,
            syn_due_us: now_us,
            syn_count: 0,
            is_passive: false,
            heard_us: now_us,
            keep_probed_us: 0,
            keep_probes: 0,
            challenge_us: 0,
            challenges: 0,
            time_wait_us: 0,
            is_broken: false,
            claim,
        }
    }

    /// The far side of a client's SYN, where the purse has the least. `emit` answers it.
    pub fn accept(syn: &Segment, mtu: usize, purse: &mut Purse, now_us: i64) -> Self {
        let mut this = Self::new(syn.key, mtu, Phase::SynReceived, purse, now_us);
        this.take_syn(syn, None, now_us);
        this.tx.first_window(syn);
        this
    }

    /// A call from the key's destination to its source, where the purse has the least. `emit` sends the SYN.
    pub fn call(key: Key, mtu: usize, purse: &mut Purse, now_us: i64) -> Self {
        Self::new(key, mtu, Phase::SynSent, purse, now_us)
    }

    fn take_syn(&mut self, syn: &Segment, rtt_us: Option<i64>, now_us: i64) {
        let default = if self.key.source.is_ipv4() { 536 } else { 1220 };
        let mss = self.key.mss(self.mtu).min(usize::from(syn.header.mss.unwrap_or(default).max(MSS_LEAST)));
        self.irs = syn.header.seq;
        self.has_sacks = syn.header.sack_permitted;
        self.has_scale = syn.header.scale.is_some();
        self.tx.establish(syn, mss, rtt_us, now_us);
        self.rx.establish(syn.header.seq.wrapping_add(1), mss, self.has_scale, self.has_sacks);
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// It ended otherwise than by both directions' end.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// One direction has ended, or both.
    pub fn is_ending(&self) -> bool {
        self.phase == Phase::TimeWait || self.rx.has_ended() || self.tx.is_finished()
    }

    /// Whether this SYN begins a new connection in this one's place (RFC 9293 §3.10.7.4): a number beyond all that the
    /// old one had, or an old one that its client has never confirmed.
    pub fn gives_way_to(&self, syn: &Segment) -> bool {
        let is_syn = syn.header.flags & (SYN | ACK | RST) == SYN;
        is_syn
            && match self.phase {
                Phase::TimeWait => before(self.rx.nxt(), syn.header.seq.wrapping_add(1)),
                Phase::SynReceived => syn.header.seq != self.irs,
                Phase::Closed => true,
                Phase::SynSent | Phase::Open => false,
            }
    }

    /// Takes a segment of this connection.
    pub fn ingest(&mut self, segment: &Segment, now_us: i64, outbox: &mut Outbox) {
        match self.phase {
            Phase::Closed => outbox.refuse(segment),
            Phase::SynSent => self.ingest_answer(segment, now_us, outbox),
            _ => self.ingest_synchronized(segment, now_us, outbox),
        }
    }

    /// RFC 9293 §3.10.7.3. A SYN without an acknowledgement is passed over: nobody else opens here.
    fn ingest_answer(&mut self, segment: &Segment, now_us: i64, outbox: &mut Outbox) {
        if !segment.has(ACK) {
            return;
        }
        if segment.header.ack != self.iss.wrapping_add(1) {
            outbox.refuse(segment);
            return;
        }
        if segment.has(RST) {
            self.close(true);
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        let rtt_us = (self.syn_count == 1).then_some(now_us - self.syn_first_us);
        self.take_syn(segment, rtt_us, now_us);
        self.rx.syn_window();
        self.tx.first_window(segment);
        self.open(now_us);
        self.rx.ack_now(now_us);
    }

    fn open(&mut self, now_us: i64) {
        self.phase = Phase::Open;
        self.heard_us = now_us;
    }

    /// RFC 9293 §3.10.7.4 with RFC 5961.
    fn ingest_synchronized(&mut self, segment: &Segment, now_us: i64, outbox: &mut Outbox) {
        let end = segment.header.seq.wrapping_add(segment.span());
        let nxt = self.rx.nxt();
        if self.phase == Phase::SynReceived && segment.has(SYN) && segment.header.seq == self.irs {
            // Our answer was lost, or is on its way.
            self.syn_due_us = self.syn_due_us.min(self.syn_sent_us + SYN_US / 2);
            return;
        }
        if before(end, nxt) || before(nxt.wrapping_add(self.rx.window()), segment.header.seq) {
            if !segment.payload.is_empty() && before(end, nxt) {
                self.rx.take_duplicate(segment.header.seq, end, now_us);
            } else if !segment.has(RST) {
                self.challenge(now_us, outbox);
            }
            return;
        }
        if segment.has(RST) {
            if segment.header.seq == nxt {
                self.close(true);
            } else {
                self.challenge(now_us, outbox);
            }
            return;
        }
        if segment.has(SYN) {
            self.challenge(now_us, outbox);
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        if self.phase == Phase::SynReceived {
            if segment.header.ack != self.iss.wrapping_add(1) {
                outbox.refuse(segment);
                return;
            }
            if self.syn_count == 1 {
                self.tx.first_rtt(now_us - self.syn_first_us, now_us);
            }
            self.tx.first_window(segment);
            self.open(now_us);
        }
        let oldest = self.tx.una().wrapping_sub(self.tx.window_max());
        if before(self.tx.nxt(), segment.header.ack) || before(segment.header.ack, oldest) {
            self.challenge(now_us, outbox);
            return;
        }
        self.heard_us = now_us;
        self.keep_probes = 0;
        self.tx.on_heard();
        if self.phase == Phase::TimeWait {
            if segment.span() > 0 {
                self.rx.ack_now(now_us);
                self.time_wait_us = now_us + TIME_WAIT_US;
            }
            return;
        }
        self.tx.on_ack(segment, now_us);
        self.take_span(segment, nxt, now_us);
        self.settle(now_us);
    }

    /// Takes what the segment carries; `nxt` is the number that was awaited before.
    fn take_span(&mut self, segment: &Segment, nxt: u32, now_us: i64) {
        if segment.span() == 0 {
            if before(segment.header.seq, nxt) {
                self.rx.ack_now(now_us);
            }
        } else if self.rx.has_ended() {
            self.rx.ack_now(now_us);
        } else {
            let ends_passively = !self.tx.is_finished();
            self.rx.take(segment.header.seq, segment.payload, segment.has(FIN), now_us);
            self.is_passive = self.rx.has_ended() && ends_passively;
        }
    }

    /// Both directions may have ended.
    fn settle(&mut self, now_us: i64) {
        if self.phase != Phase::Open || !self.rx.has_ended() || !self.tx.is_fin_acked() {
            return;
        }
        self.tx.clear();
        if self.is_passive {
            self.phase = Phase::Closed;
        } else {
            self.phase = Phase::TimeWait;
            self.time_wait_us = now_us + TIME_WAIT_US;
        }
    }

    /// Says where we are to whoever may be mistaken, some times in a second.
    fn challenge(&mut self, now_us: i64, outbox: &mut Outbox) {
        if now_us - self.challenge_us >= 1_000_000 {
            self.challenge_us = now_us;
            self.challenges = 0;
        }
        if self.challenges < CHALLENGES {
            self.challenges += 1;
            self.put_ack(self.tx.nxt(), outbox);
        }
    }

    fn close(&mut self, is_broken: bool) {
        self.phase = Phase::Closed;
        self.is_broken |= is_broken;
        self.tx.clear();
        if is_broken {
            self.rx.clear();
        }
    }

    /// Ends it with a reset.
    pub fn abort(&mut self, outbox: &mut Outbox) {
        if matches!(self.phase, Phase::SynReceived | Phase::Open) {
            let (seq, ack) = (self.tx.nxt(), self.rx.nxt());
            let header = Header { seq, ack, flags: RST | ACK, ..Header::default() };
            outbox.put(&self.key, &header, (&[], &[]));
        }
        self.close(true);
    }

    fn put_ack(&mut self, seq: u32, outbox: &mut Outbox) {
        let (ack, window, sacks) = self.rx.acknowledge(true);
        let header = Header { seq, ack, window, sacks, flags: ACK, ..Header::default() };
        outbox.put(&self.key, &header, (&[], &[]));
    }

    fn put_syn(&mut self, outbox: &mut Outbox) {
        let is_answer = self.phase == Phase::SynReceived;
        let header = Header {
            seq: self.iss,
            ack: if is_answer { self.rx.nxt() } else { 0 },
            flags: if is_answer { SYN | ACK } else { SYN },
            window: self.rx.syn_window(),
            mss: Some(self.key.mss(self.mtu) as u16),
            scale: self.has_scale.then_some(SCALE),
            sack_permitted: self.has_sacks,
            sacks: Sacks::default(),
        };
        outbox.put(&self.key, &header, (&[], &[]));
    }

    /// Sends what is due. Returns whether something more could leave at once and others should have their turn first.
    pub fn emit(&mut self, now_us: i64, outbox: &mut Outbox) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::SynSent | Phase::SynReceived => self.emit_syn(now_us, outbox),
            Phase::TimeWait => {
                if now_us >= self.time_wait_us {
                    self.close(false);
                } else if self.rx.ack_due_us().is_some_and(|due_us| due_us <= now_us) {
                    self.put_ack(self.tx.nxt(), outbox);
                }
                false
            }
            Phase::Open => self.emit_open(now_us, outbox),
        }
    }

    fn emit_syn(&mut self, now_us: i64, outbox: &mut Outbox) -> bool {
        if now_us - self.syn_first_us >= SYN_SILENT_US {
            self.abort(outbox);
        } else if now_us >= self.syn_due_us {
            self.put_syn(outbox);
            self.syn_sent_us = now_us;
            self.syn_due_us = now_us + (SYN_US << self.syn_count.min(5));
            self.syn_count += 1;
        }
        false
    }

    fn emit_open(&mut self, now_us: i64, outbox: &mut Outbox) -> bool {
        let is_stuck = self.tx.stuck_us().is_some_and(|since_us| now_us - since_us >= SILENT_US);
        let is_gone = self.keep_probes > 0 && now_us - self.heard_us >= KEEP_US + SILENT_US;
        if is_stuck || is_gone {
            self.abort(outbox);
            return false;
        }
        self.tx.tick(now_us);
        if self.rx.has_gaps() && self.rx.ack_due_us().is_some_and(|due_us| due_us <= now_us) {
            self.put_ack(self.tx.nxt(), outbox);
        }
        let mut is_held = true;
        for _ in 0..QUANTUM {
            if outbox.is_full() {
                break;
            }
            let Some(chunk) = self.tx.next(now_us) else {
                is_held = false;
                break;
            };
            let (ack, window, sacks) = self.rx.acknowledge(false);
            let end = if chunk.has_fin { FIN } else { 0 } | if chunk.is_last { PSH } else { 0 };
            let header = Header { seq: chunk.seq, ack, window, sacks, flags: ACK | end, ..Header::default() };
            outbox.put(&self.key, &header, self.tx.payload(&chunk));
        }
        if self.rx.ack_due_us().is_some_and(|due_us| due_us <= now_us) {
            self.put_ack(self.tx.nxt(), outbox);
        }
        let asks = self.tx.wants_probe(now_us) || self.wants_keep_probe(now_us);
        if asks {
            // A number that the peer has: it answers with where it is (RFC 9293 §3.8.4).
            self.put_ack(self.tx.una().wrapping_sub(1), outbox);
        }
        is_held
    }

    fn wants_keep_probe(&mut self, now_us: i64) -> bool {
        if self.keep_due_us() > now_us {
            return false;
        }
        self.keep_probes += 1;
        self.keep_probed_us = now_us;
        true
    }

    fn keep_due_us(&self) -> i64 {
        match self.keep_probes {
            0 => self.heard_us + KEEP_US,
            _ => self.keep_probed_us + KEEP_PROBE_US,
        }
    }

    /// When `emit` has something to do though nothing happens.
    pub fn due_us(&self) -> Option<i64> {
        match self.phase {
            Phase::Closed => None,
            Phase::SynSent | Phase::SynReceived => Some(self.syn_due_us),
            Phase::TimeWait => {
                Some(self.rx.ack_due_us().map_or(self.time_wait_us, |us| us.min(self.time_wait_us)))
            }
            Phase::Open => {
                let stuck_us = self.tx.stuck_us().map(|since_us| since_us + SILENT_US);
                let all = [self.tx.due_us(), self.rx.ack_due_us(), stuck_us, Some(self.keep_due_us())];
                all.into_iter().flatten().min()
            }
        }
    }

    /// The path takes packets of `mtu` bytes at most from here on.
    pub fn shrink_path(&mut self, mtu: usize) {
        self.mtu = self.mtu.min(mtu);
        self.tx.shrink_mss(self.key.mss(self.mtu));
    }

    /// Ends our direction, behind what waits.
    pub fn finish(&mut self) {
        self.tx.finish();
    }

    /// Takes bytes that were read out.
    pub fn consume(&mut self, count: usize) {
        self.rx.consume(count);
    }

    /// Lets both buffers grow with what the path carries. To be called after bytes came and were taken out, and before more
    /// are given to `tx.push`.
    pub fn grow(&mut self, purse: &mut Purse, now_us: i64) {
        if self.rx.wants_more(self.tx.srtt_us(), now_us) {
            // Twice the bytes are enough for what comes with them.
            let more = self.rx.limit.min(LIMIT_MAX.saturating_sub(self.rx.limit)).min(purse.spare() / 2);
            self.rx.limit += more;
            self.settle_claim(purse);
        }
        let wants = self.tx.wants().min(LIMIT_MAX);
        if wants > self.tx.limit {
            self.tx.limit += (wants - self.tx.limit).min(purse.spare());
            self.settle_claim(purse);
        }
        self.tx.grow_pieces(purse.spare());
        self.settle_claim(purse);
    }

    fn settle_claim(&mut self, purse: &mut Purse) {
        let claim = size_of::<Self>() + self.tx.bytes() + Receiver::bytes_of(self.rx.limit);
        purse.change(self.claim, claim);
        self.claim = claim;
    }

    /// Gives memory back that a connection without traffic does not need. What it has promised its peer it keeps.
    pub fn shrink(&mut self, purse: &mut Purse) {
        self.tx.shrink();
        self.rx.shrink();
        self.tx.limit = self.tx.limit.min(LIMIT_LEAST.max(self.tx.held()));
        self.rx.limit = self.rx.limit.min(LIMIT_FIRST.max(self.rx.window() as usize + self.rx.held()));
        self.settle_claim(purse);
    }

    /// Gives back all that it had claimed.
    pub fn release(&mut self, purse: &mut Purse) {
        purse.change(self.claim, 0);
        self.claim = 0;
    }
}
