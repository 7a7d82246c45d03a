//! The splice as the relay calls it: handles, bursts and numbers in, numbers out. Decides nothing.

use super::*;

thread_local! {
    static SPLICES: RefCell<Table<Splice>> = const { RefCell::new(Table::new()) };
}

/// Runs `act` on a splice, or returns -EINVAL for a wrong handle. A panic in the TCP stack costs the splice and its
/// flows, -EIO, and not the relay.
fn with_splice(handle: u32, act: impl FnOnce(&mut Splice) -> i32) -> i32 {
    SPLICES.with_borrow_mut(|splices| splices.guarded(handle, act))
}

/// Makes a splice for inner packets of up to `mtu` bytes (576 to 1952) and 1 to 65536 flows. Returns its handle.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_open(mtu: u32, max_flows: u32) -> i32 {
    if !(576..=1952).contains(&mtu) || !(1..=65536).contains(&max_flows) {
        return -libc::EINVAL;
    }
    match Splice::new(mtu as usize, max_flows as usize) {
        Ok(splice) => SPLICES.with_borrow_mut(|splices| splices.insert(splice)),
        Err(reason) => -reason,
    }
}

/// Resets every flow and forgets the splice.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_close(handle: u32) -> i32 {
    SPLICES.with_borrow_mut(|splices| splices.release(handle))
}

/// A descriptor that polls readable when the far end of some flow has something, or time has come for something.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_descriptor(handle: u32) -> i32 {
    with_splice(handle, |splice| splice.epoll)
}

/// Live flows.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_flows(handle: u32) -> i32 {
    with_splice(handle, |splice| splice.by_key.len() as i32)
}

/// Flows that were ended for newcomers, and newcomers that were reset, since this was last asked.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_crowded(handle: u32) -> i32 {
    with_splice(handle, |splice| std::mem::take(&mut splice.crowded).min(i32::MAX as u32) as i32)
}

/// Kilobytes of buffers that flows may fill now, and with `kernel` those that the system keeps for flows whose one end does
/// not read.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_kilobytes(handle: u32, kernel: u32) -> i32 {
    with_splice(handle, |splice| {
        let account = if kernel == 0 { splice.buffers } else { splice.kernel };
        (account.used / 1024) as i32
    })
}

/// Takes the TCP packets among the burst's TO_EXIT rows: such a row's `next` becomes `done`, or `full` when a flow
/// more cannot be had. Rows that are no TCP, or belong to no flow and begin none, stay. Returns the rows taken.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_send(handle: u32, burst: u32, count: u32, done: u32, full: u32) -> i32 {
    with_splice(handle, |splice| {
        with_burst(burst, |block, arena| {
            let now = now_us();
            let mut taken = 0;
            for row in 0..(count as usize).min(block.next.len()) {
                if block.next[row] != TO_EXIT {
                    continue;
                }
                let Some(packet) = arena.slice(block.offset[row], block.length[row] as usize) else {
                    continue;
                };
                match splice.ingest(packet, block.peer[row], now) {
                    Taken::No => continue,
                    Taken::Yes => block.next[row] = done as u8,
                    Taken::Full => block.next[row] = full as u8,
                }
                taken += 1;
            }
            splice.attend_touched(now);
            splice.arm();
            taken
        })
    })
}

/// Takes what happened outside and what is due. Returns the packets that wait for clients.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_turn(handle: u32) -> i32 {
    with_splice(handle, |splice| {
        splice.turn(now_us());
        splice.arm();
        splice.outbox.waiting() as i32
    })
}

/// Fills rows `from` to `to` - 1, which own slots, with waiting packets as TO_TUNNEL rows. Returns the rows filled.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_receive(handle: u32, burst: u32, from: u32, to: u32) -> i32 {
    with_splice(handle, |splice| {
        with_burst(burst, |block, arena| splice.outbox.fill(block, arena, from as usize, to as usize))
    })
}

/// Resets, outside, the flows of every inner source in a prefix, 16 bytes with IPv4 mapped and 0 to 128 bits, and closes the
/// ports that lead to it; nothing more of them goes inside.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_tcp_forget(handle: u32, address: *const u8, bits: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(prefix) = (unsafe { read_prefix(address, bits) }) else { return -libc::EINVAL };
    with_splice(handle, |splice| {
        splice.close_doors_of(prefix, bits);
        for index in 0..splice.flows.len() {
            let flow = splice.flows[index].as_ref();
            if flow.is_some_and(|flow| lies_in(mapped(flow.key.source), prefix, bits)) {
                splice.end(index, true);
            }
        }
        splice.outbox.retain(|packet| !lies_in(destination(packet), prefix, bits));
        splice.arm();
        0
    })
}

/// Listens at a port outside for an inner source, 16 bytes with IPv4 mapped and a port. Returns 0, or -EADDRINUSE for a port that
/// is another's.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_tcp_listen(handle: u32, address: *const u8, port: u32, outer_port: u32) -> i32 {
    // SAFETY: as the caller says.
    let Some(inner) = (unsafe { read_prefix(address, 128) }) else { return -libc::EINVAL };
    if !(1..=65535).contains(&port) || !(1..=65535).contains(&outer_port) {
        return -libc::EINVAL;
    }
    with_splice(handle, |splice| match splice.open_door(inner, port as u16, outer_port as u16) {
        Ok(()) => 0,
        Err(reason) => -reason,
    })
}

/// Closes a port that `ox_tcp_listen` opened, IPv6's or else IPv4's, and resets what came by it.
#[unsafe(no_mangle)]
pub extern "C" fn ox_tcp_unlisten(handle: u32, is_ipv6: u32, outer_port: u32) -> i32 {
    with_splice(handle, |splice| {
        splice.close_door(is_ipv6 != 0, outer_port as u16);
        splice.arm();
        0
    })
}
