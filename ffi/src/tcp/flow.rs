//! One flow of the splice: the client's connection on one side, a socket on the other, and what moves between both.
//! Invariant: an end that one side sees reaches the other as the same, and a full buffer holds its writer back.

use super::*;

/// A flow that is idle for YIELD_US gives way when there is no room, one that has half ended sooner. At most one search for
/// such flows runs in SEARCH_US, and it keeps the FOUND_MAX best.
const YIELD_US: i64 = 10_000_000;
const YIELD_HALF_US: i64 = 1_000_000;
const READS: usize = 4;

pub(super) enum Stage {
    /// The far end has not accepted yet; the client's SYN waits for its answer.
    /// Has claimed LEAST_BYTES of its source's memory, which the SYN is part of and the connection will need.
    Connecting {
        syn: Vec<u8>,
    },
    Open(Box<Connection>),
}

pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) generation: u32,
    /// -1 once both directions have ended.
    pub(super) fd: i32,
    pub(super) stage: Stage,
    /// Edge-triggered: true from the event until the call that would block.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The far end has sent its FIN.
    pub(super) far_ended: bool,
    /// The client has sent its FIN, and it was passed on.
    pub(super) near_ended: bool,
    pub(super) is_touched: bool,
    pub(super) kernel_bytes: usize,
    pub(super) active_us: i64,
    pub(super) due_us: Option<i64>,
}

impl Flow {
    /// What may end for another's sake: how soon, the least first.
    pub(super) fn yields(&self, now_us: i64) -> Option<(bool, i64)> {
        let is_ending = matches!(&self.stage, Stage::Open(connection) if connection.is_ending());
        let limit_us = if is_ending { YIELD_HALF_US } else { YIELD_US };
        (now_us - self.active_us >= limit_us).then_some((!is_ending, self.active_us))
    }

    /// Whether one end does not take what the other has for it.
    pub(super) fn is_stalled(&self) -> bool {
        match &self.stage {
            Stage::Connecting { .. } => false,
            Stage::Open(connection) => {
                connection.rx.held() > 0 && !self.writable || self.readable && connection.tx.room() == 0
            }
        }
    }

    /// Moves what can be moved between both ends. Returns false when the far end broke the connection.
    pub(super) fn splice(&mut self, purse: &mut Purse, scratch: &mut [u8], now_us: i64) -> bool {
        let Stage::Open(connection) = &mut self.stage else { return true };
        if self.fd < 0 {
            return true;
        }
        while self.writable && !connection.rx.front().is_empty() {
            match send(self.fd, connection.rx.front()) {
                Moved::Bytes(count) => connection.consume(count),
                Moved::Broken => return false,
                Moved::Blocked | Moved::End => self.writable = false,
            }
        }
        connection.grow(purse, now_us);
        for _ in 0..READS {
            if !self.readable || self.far_ended || connection.phase() != Phase::Open {
                break;
            }
            let room = connection.tx.room().min(scratch.len());
            if room == 0 {
                break;
            }
            match receive(self.fd, &mut scratch[..room]) {
                Moved::Bytes(count) => {
                    connection.tx.push(&scratch[..count]);
                }
                Moved::End => {
                    self.far_ended = true;
                    connection.finish(); // a FIN behind what is still to be sent
                }
                Moved::Broken => return false,
                Moved::Blocked => self.readable = false,
            }
        }
        if connection.rx.has_ended() && connection.rx.held() == 0 && !self.near_ended {
            self.near_ended = true;
            // SAFETY: no pointer crosses; the flow owns the descriptor.
            unsafe { libc::shutdown(self.fd, libc::SHUT_WR) };
        }
        true
    }
}
