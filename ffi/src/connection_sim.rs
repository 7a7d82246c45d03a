//! A simulator for tests: two connections over a path with a delay, a rate, a queue, losses and reordering, on a virtual
//! clock. Invariant: the same path and seeds give the same run. Asserts nothing of what it carries.

use crate::connection::{Connection, Phase};
use crate::segment::{Key, Parsed, parse};
use crate::stack::{Account, Outbox, Purse};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

pub const MTU: usize = 1420;
pub const SECOND_US: i64 = 1_000_000;
pub const FIRST_US: i64 = 5 * SECOND_US;

pub struct Path {
    pub delay_us: i64,
    pub loss: f64,
    pub reordering: f64,
    /// 0: as quick as one likes.
    pub bytes_a_second: f64,
    pub queue_us: f64,
    pub busy_until_us: f64,
    pub random: u64,
}

impl Path {
    pub fn new(delay_us: i64) -> Self {
        Self {
            delay_us,
            loss: 0.0,
            reordering: 0.0,
            bytes_a_second: 0.0,
            queue_us: 50_000.0,
            busy_until_us: 0.0,
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn arrival_us(&mut self, now_us: i64, bytes: usize) -> Option<i64> {
        if self.chance() < self.loss {
            return None;
        }
        let mut leaves_us = now_us as f64;
        if self.bytes_a_second > 0.0 {
            if self.busy_until_us - leaves_us > self.queue_us {
                return None;
            }
            leaves_us = self.busy_until_us.max(leaves_us) + bytes as f64 * 1e6 / self.bytes_a_second;
            self.busy_until_us = leaves_us;
        }
        let late_us = if self.chance() < self.reordering { (self.delay_us / 8).max(300) } else { 0 };
        Some(leaves_us as i64 + self.delay_us + late_us)
    }
}

pub struct End {
    pub connection: Connection,
    pub outbox: Outbox,
    pub account: Account,
    pub source: Account,
    pub read: Vec<u8>,
    pub reads: bool,
}

impl End {
    pub fn new(make: impl FnOnce(&mut Purse) -> Connection) -> Self {
        let (mut account, mut source) = (Account::new(64 << 20), Account::new(32 << 20));
        let connection = make(&mut Purse { total: &mut account, source: &mut source });
        Self { connection, outbox: Outbox::default(), account, source, read: Vec::new(), reads: true }
    }

    pub fn work(&mut self, now_us: i64, supply: &[u8], given: &mut usize, is_kept_open: bool) {
        let mut purse = Purse { total: &mut self.account, source: &mut self.source };
        while self.reads && self.connection.rx.held() > 0 {
            let front = self.connection.rx.front();
            self.read.extend_from_slice(front);
            let count = front.len();
            self.connection.consume(count);
        }
        self.connection.grow(&mut purse, now_us);
        if *given < supply.len() && self.connection.phase() == Phase::Open {
            *given += self.connection.tx.push(&supply[*given..]);
            if *given == supply.len() && !is_kept_open {
                self.connection.finish();
            }
        }
        self.connection.emit(now_us, &mut self.outbox);
    }
}

pub struct Pair {
    pub now_us: i64,
    /// Calls, and sends the supply.
    pub caller: End,
    /// Accepts, on the far side.
    pub callee: Option<End>,
    pub up: Path,
    pub down: Path,
    pub flying: BTreeMap<(i64, u64), (bool, Vec<u8>)>,
    pub count: u64,
    pub supply: Vec<u8>,
    pub given: usize,
    pub sent: usize,
    /// The caller does not end when all is given.
    pub is_kept_open: bool,
    pub longest_us: i64,
}

pub fn key() -> Key {
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    Key { source: address(2), destination: address(1), source_port: 80, destination_port: 50_000 }
}

impl Pair {
    pub fn new(up: Path, down: Path, bytes: usize) -> Self {
        let supply = (0..bytes).map(|i| (i * 31 ^ i >> 8) as u8).collect();
        let caller = End::new(|purse| Connection::call(key(), MTU, purse, FIRST_US));
        Self {
            now_us: FIRST_US,
            caller,
            callee: None,
            up,
            down,
            flying: BTreeMap::new(),
            count: 0,
            supply,
            given: 0,
            sent: 0,
            is_kept_open: false,
            longest_us: 0,
        }
    }

    pub fn collect(&mut self) {
        while let Some(packet) = self.caller.outbox.take() {
            self.sent += packet.len();
            if let Some(at) = self.up.arrival_us(self.now_us, packet.len()) {
                self.count += 1;
                self.flying.insert((at, self.count), (true, packet));
            }
        }
        while let Some(packet) = self.callee.as_mut().and_then(|callee| callee.outbox.take()) {
            if let Some(at) = self.down.arrival_us(self.now_us, packet.len()) {
                self.count += 1;
                self.flying.insert((at, self.count), (false, packet));
            }
        }
    }

    pub fn arrive(&mut self, goes_up: bool, packet: &[u8]) {
        let Parsed::Segment(segment) = parse(packet) else { panic!("a packet of our own is readable") };
        if !goes_up {
            self.caller.connection.ingest(&segment, self.now_us, &mut self.caller.outbox);
            return;
        }
        match &mut self.callee {
            Some(callee) => callee.connection.ingest(&segment, self.now_us, &mut callee.outbox),
            None => {
                let now_us = self.now_us;
                self.callee = Some(End::new(|purse| Connection::accept(&segment, MTU, purse, now_us)));
            }
        }
    }

    /// Goes on until the time, or until nothing is due.
    pub fn run(&mut self, until_us: i64) {
        loop {
            self.caller.work(self.now_us, &self.supply, &mut self.given, self.is_kept_open);
            self.longest_us = self.longest_us.max(self.caller.connection.tx.srtt_us());
            if let Some(callee) = &mut self.callee {
                callee.work(self.now_us, &[], &mut 0, true);
            }
            self.collect();
            let callee_due = self.callee.as_ref().and_then(|callee| callee.connection.due_us());
            let due =
                [self.flying.keys().next().map(|key| key.0), self.caller.connection.due_us(), callee_due];
            let Some(next_us) = due.into_iter().flatten().min() else { break };
            if next_us > until_us {
                break;
            }
            self.now_us = next_us.max(self.now_us + 1);
            while let Some((&at, _)) = self.flying.iter().next()
                && at.0 <= self.now_us
            {
                let (goes_up, packet) = self.flying.remove(&at).expect("just seen");
                self.arrive(goes_up, &packet);
            }
        }
        self.now_us = until_us;
    }

    pub fn callee(&mut self) -> &mut End {
        self.callee.as_mut().expect("somebody has called")
    }

    /// Until all has arrived: seconds.
    pub fn transfer(&mut self, bytes: usize, limit_s: i64) -> f64 {
        let began_us = self.now_us;
        while self.callee.as_ref().is_none_or(|callee| callee.read.len() < bytes) {
            assert!(
                self.now_us < began_us + limit_s * SECOND_US,
                "too slow: {:?}",
                self.callee.as_ref().map(|c| c.read.len())
            );
            let step_us = self.now_us + 10_000;
            self.run(step_us);
        }
        (self.now_us - began_us) as f64 / 1e6
    }
}
