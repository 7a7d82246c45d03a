//! Who may have a flow more, and which flow ends for its sake (RFC 5382 leaves both to the NAT). Invariant: no source has more
//! than its share of flows and memory, and a search among all flows runs at most once in SEARCH_US.

use super::*;

const SEARCH_US: i64 = 2_000;
const FOUND_MAX: usize = 32;

impl Splice {
    /// Gives a flow its place, without memory yet. None, and the socket still the caller's, when it cannot be watched.
    pub(super) fn place(
        &mut self,
        key: Key,
        owner: Owner,
        fd: i32,
        stage: Stage,
        now_us: i64,
    ) -> Option<usize> {
        self.generation = self.generation.wrapping_add(1) % DOOR_GENERATION;
        let index = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() - 1
        });
        let generation = self.generation;
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32,
            u64: u64::from(generation) << 32 | index as u64,
        };
        // SAFETY: `event` is valid; the kernel copies it.
        if unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, fd, &mut event) } < 0 {
            self.free.push(index);
            return None;
        }
        self.flows[index] = Some(Flow {
            key,
            owner,
            generation,
            fd,
            stage,
            readable: false,
            writable: false,
            far_ended: false,
            near_ended: false,
            is_touched: false,
            kernel_bytes: 0,
            active_us: now_us,
            due_us: None,
        });
        self.by_key.insert(key, index);
        let source = self.sources.entry(owner).or_insert_with(|| Source {
            flows: 0,
            buffers: Account::new(BUFFER_BYTES / SOURCE_SHARE),
            kernel: Account::new(KERNEL_BYTES / SOURCE_SHARE),
        });
        source.flows += 1;
        Some(index)
    }

    pub(super) fn turn_away(&mut self, segment: &Segment) -> Taken {
        self.crowded += 1;
        if !self.outbox.is_full() {
            self.outbox.refuse(segment);
        }
        Taken::Full
    }

    fn share(&self) -> usize {
        self.max_flows.div_ceil(SOURCE_SHARE)
    }

    pub(super) fn has_room(&self, owner: Owner) -> bool {
        let held = self.sources.get(&owner).map_or(0, |source| source.flows);
        self.by_key.len() < self.max_flows && held < self.share()
    }

    /// Whether both accounts can lend what a connection needs at least.
    pub(super) fn has_memory(&self, owner: Owner) -> bool {
        let of_source = self.sources.get(&owner).map_or(usize::MAX, |source| source.buffers.left());
        self.buffers.left().min(of_source) >= LEAST_BYTES
    }

    /// Ends the flow that is missed least: of the source itself when it has its share, else of who has most.
    pub(super) fn make_room(&mut self, owner: Owner, now_us: i64) -> bool {
        let held = self.sources.get(&owner).map_or(0, |source| source.flows);
        let of = if held >= self.share() {
            owner
        } else {
            let most = self.sources.iter().max_by_key(|(_, source)| source.flows);
            most.map_or(owner, |(&greatest, _)| greatest)
        };
        if let Some(index) = self.next_found(of, now_us) {
            self.give_way(index);
            return true;
        }
        if now_us - self.searched_us < SEARCH_US {
            return false;
        }
        self.searched_us = now_us;
        let mut all: Vec<_> = self
            .flows
            .iter()
            .enumerate()
            .filter_map(|(index, flow)| {
                let flow = flow.as_ref().filter(|flow| flow.owner == of)?;
                Some((flow.yields(now_us)?, index, flow.generation))
            })
            .collect();
        all.sort_unstable();
        self.found.clear();
        self.found
            .extend(all.iter().take(FOUND_MAX).rev().map(|&(_, index, generation)| (index, generation)));
        let next = self.next_found(of, now_us);
        if let Some(index) = next {
            self.give_way(index);
        }
        next.is_some()
    }

    fn next_found(&mut self, of: Owner, now_us: i64) -> Option<usize> {
        while let Some((index, generation)) = self.found.pop() {
            let flow = self.flows[index].as_ref().filter(|flow| flow.generation == generation);
            if flow.is_some_and(|flow| flow.owner == of && flow.yields(now_us).is_some()) {
                return Some(index);
            }
        }
        None
    }

    fn give_way(&mut self, index: usize) {
        self.crowded += 1;
        if let Some(flow) = self.flows[index].as_mut() {
            if let Stage::Open(connection) = &mut flow.stage {
                connection.abort(&mut self.outbox);
            }
            self.end(index, true);
        }
    }
}
