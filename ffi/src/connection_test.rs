//! Two connections over a path of one's choice, on a clock of their own: what arrives, how quickly, and what ends them.

use crate::connection::{Connection, KEEP_US, LEAST_BYTES, Phase};
use crate::connection_sim::{End, FIRST_US, MTU, Pair, Path, SECOND_US, key};
use crate::receiver::Receiver;
use crate::segment::{ACK, Header, Parsed, RST, SYN, Sacks, Segment, parse, write};
use crate::sender::Sender;
use crate::stack::{Account, Purse};

#[test]
fn data_arrives_whole_and_once_over_a_path_that_loses_delays_and_reorders() {
    for (loss, reordering) in [(0.0, 0.0), (0.005, 0.01), (0.05, 0.2), (0.15, 0.0)] {
        let path = || Path { loss, reordering, ..Path::new(20_000) };
        let bytes = 300_000;
        let mut pair = Pair::new(path(), Path { random: 77, ..path() }, bytes);
        pair.transfer(bytes, 600);
        assert!(
            pair.callee.as_ref().is_some_and(|callee| callee.read == pair.supply),
            "loss {loss}, reordering {reordering}"
        );
        pair.callee().connection.finish();
        let later_us = pair.now_us + 300 * SECOND_US;
        pair.run(later_us);
        assert_eq!(pair.callee().connection.phase(), Phase::Closed, "loss {loss}");
        assert_eq!(pair.caller.connection.phase(), Phase::Closed, "loss {loss}");
        let callee = pair.callee();
        assert_eq!(callee.account.used, callee.source.used);
    }
}

const LINK: f64 = 12.5e6;

/// The share of the link that a transfer takes, its beginning included, and its longest round trip as smoothed.
fn share_of_link(rtt_us: i64, loss: f64, reordering: f64) -> (f64, i64) {
    let up = Path { bytes_a_second: LINK, loss, reordering, ..Path::new(rtt_us / 2) };
    let bytes = 60_000_000;
    let mut pair = Pair::new(Path { queue_us: 1_000_000.0, ..up }, Path::new(rtt_us / 2), bytes);
    let seconds = pair.transfer(bytes, 100);
    (bytes as f64 / LINK / seconds, pair.longest_us)
}

#[test]
fn a_transfer_fills_the_path_whatever_its_round_trip_and_its_stray_losses() {
    // The beginning counts, which takes a second of the five on the long path.
    for (rtt_us, clean, rough) in [(1_000, 0.8, 0.8), (40_000, 0.8, 0.8), (150_000, 0.72, 0.65)] {
        for (loss, reordering, least) in [(0.0, 0.0, clean), (0.005, 0.01, rough)] {
            let (share, _) = share_of_link(rtt_us, loss, reordering);
            println!("rtt {rtt_us} us, loss {loss}, reordering {reordering}: {share:.2} of the link");
            assert!(share > least, "{rtt_us} us, loss {loss}: {share}");
        }
    }
}

#[test]
fn a_queue_that_could_hold_a_second_holds_a_few_round_trips_at_most() {
    for rtt_us in [40_000, 150_000] {
        let (_, longest_us) = share_of_link(rtt_us, 0.0, 0.0);
        println!("rtt {rtt_us} us: at most {longest_us}");
        assert!(longest_us < 3 * rtt_us, "{rtt_us} us: {longest_us}");
    }
}

#[test]
fn a_sender_without_data_does_not_forget_what_the_path_bears() {
    let up = Path { bytes_a_second: LINK, ..Path::new(20_000) };
    let mut pair = Pair::new(up, Path::new(20_000), 20_000_000);
    pair.is_kept_open = true;
    pair.transfer(20_000_000, 30);
    let before = pair.caller.connection.tx.model().0;
    for _ in 0..100 {
        let more = pair.supply.len() + 3_000;
        pair.supply.resize(more, 7);
        let later_us = pair.now_us + 100_000;
        pair.run(later_us);
    }
    let after = pair.caller.connection.tx.model().0;
    assert!(before > 0.8 * LINK && after > 0.8 * before, "{before} {after}");
}

/// Runs both transfers in steps over one link, which is the second's path in turn.
#[test]
fn two_transfers_share_a_link() {
    let new = |random| {
        let up = Path { bytes_a_second: LINK, queue_us: 100_000.0, random, ..Path::new(20_000) };
        Pair::new(up, Path::new(20_000), 150_000_000)
    };
    let mut pairs = [new(11), new(77)];
    for step in 1..=20_000i64 {
        for i in 0..2 {
            let busy_us = pairs[1 - i].up.busy_until_us;
            pairs[i].up.busy_until_us = busy_us.max(pairs[i].up.busy_until_us);
            pairs[i].run(FIRST_US + step * 500);
        }
    }
    let got = pairs.map(|pair| pair.callee.map_or(0, |callee| callee.read.len()) as f64);
    let jain = (got[0] + got[1]).powi(2) / (2.0 * (got[0].powi(2) + got[1].powi(2)));
    println!("{got:?}: {jain:.3}");
    assert!(jain >= 0.8 && got[0] + got[1] > 0.7 * 10.0 * LINK, "{got:?}");
}

#[test]
fn what_is_lost_is_sent_once_more_and_what_is_late_is_not() {
    for rtt_us in [1_000, 40_000, 150_000] {
        for (loss, reordering) in [(0.005, 0.0), (0.0, 0.01), (0.005, 0.01)] {
            let up = Path { bytes_a_second: 12.5e6, loss, reordering, ..Path::new(rtt_us / 2) };
            let bytes = 8_000_000;
            let mut pair = Pair::new(up, Path::new(rtt_us / 2), bytes);
            let seconds = pair.transfer(bytes, 300);
            println!(
                "rtt {} ms, loss {loss}, reordering {reordering}: {:.1} Mbit/s, {:.3} sent",
                rtt_us / 1000,
                bytes as f64 * 8e-6 / seconds,
                pair.sent as f64 / bytes as f64
            );
            // Beyond the data: headers (3 %), what was lost, and what slow start overshoots on a long path.
            let overshoot = match rtt_us {
                150_000 => 0.3,
                40_000 => 0.04,
                _ => 0.01,
            };
            assert!((pair.sent as f64) < bytes as f64 * (1.03 + overshoot + 2.0 * loss));
        }
    }
}

#[test]
fn an_idle_connection_outlives_two_hours_and_its_dead_peer_does_not() {
    let mut pair = Pair::new(Path::new(10_000), Path::new(10_000), 0);
    pair.run(FIRST_US + SECOND_US);
    let probed_us = FIRST_US + 10 * KEEP_US + 600 * SECOND_US;
    pair.run(probed_us);
    assert_eq!(pair.caller.connection.phase(), Phase::Open);
    assert_eq!(pair.callee().connection.phase(), Phase::Open);
    pair.up.loss = 1.0;
    pair.run(probed_us + KEEP_US - 700 * SECOND_US);
    assert_eq!(pair.callee().connection.phase(), Phase::Open);
    pair.run(probed_us + KEEP_US + 200 * SECOND_US);
    assert_eq!(pair.callee().connection.phase(), Phase::Closed);
    assert!(pair.callee().connection.is_broken());
}

#[test]
fn unanswered_data_ends_the_connection_after_two_minutes_and_a_shut_window_does_not() {
    let mut pair = Pair::new(Path::new(10_000), Path::new(10_000), 400_000);
    pair.run(FIRST_US + 50_000);
    pair.callee().reads = false;
    pair.run(FIRST_US + 3600 * SECOND_US);
    assert_eq!(pair.caller.connection.phase(), Phase::Open);
    assert!(pair.callee().connection.rx.held() > 0);
    pair.callee().reads = true;
    pair.run(FIRST_US + 3700 * SECOND_US);
    assert_eq!(pair.callee().read.len(), 400_000);

    let mut pair = Pair::new(Path::new(10_000), Path::new(10_000), 40_000);
    pair.run(FIRST_US + 25_000);
    pair.up.loss = 1.0;
    pair.run(FIRST_US + 110 * SECOND_US);
    assert_eq!(pair.caller.connection.phase(), Phase::Open);
    pair.run(FIRST_US + 130 * SECOND_US);
    assert!(pair.caller.connection.is_broken());
}

fn forged(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&mut packet, &key(), &header, (payload, &[]), 1);
    packet
}

#[test]
fn what_is_not_exactly_due_gets_a_challenge_and_changes_nothing() {
    let mut pair = Pair::new(Path::new(10_000), Path::new(10_000), 1000);
    pair.supply.clear();
    pair.run(FIRST_US + SECOND_US);
    let nxt = pair.callee().connection.rx.nxt();
    let una = pair.callee().connection.tx.una();
    let wrong = [
        Header { seq: nxt, flags: SYN, ..Header::default() },
        Header { seq: nxt.wrapping_add(7_000_000), flags: SYN, ..Header::default() },
        Header { seq: nxt.wrapping_add(1), flags: RST, ..Header::default() },
        Header { seq: nxt, ack: una.wrapping_add(1), flags: ACK, window: 9, ..Header::default() },
        Header { seq: nxt, ack: una.wrapping_sub(70_000_000), flags: ACK, window: 9, ..Header::default() },
    ];
    for header in wrong {
        let packet = forged(header, &[]);
        pair.arrive(true, &packet);
        let answer = pair.callee().outbox.take().expect("a challenge");
        let Parsed::Segment(answer) = parse(&answer) else { panic!("readable") };
        assert_eq!((answer.header.flags, answer.header.seq, answer.header.ack), (ACK, una, nxt));
        assert_eq!(pair.callee().connection.phase(), Phase::Open);
    }
    let beyond = forged(Header { seq: nxt.wrapping_add(7_000_000), flags: RST, ..Header::default() }, &[]);
    pair.arrive(true, &beyond);
    assert!(pair.callee().outbox.take().is_none());
    let exact = forged(Header { seq: nxt, flags: RST, ..Header::default() }, &[]);
    pair.arrive(true, &exact);
    assert!(pair.callee().connection.is_broken());
}

#[test]
fn buffers_grow_with_the_path_and_are_given_back() {
    let up = Path { bytes_a_second: 12.5e6, ..Path::new(50_000) };
    let mut pair = Pair::new(up, Path::new(50_000), 30_000_000);
    let first = pair.caller.account.used;
    pair.run(FIRST_US + 2 * SECOND_US);
    assert!(pair.caller.account.used > 8 * first, "{} {first}", pair.caller.account.used);
    assert!(pair.callee().account.used > 8 * first);
    pair.supply.clear();
    pair.run(FIRST_US + 20 * SECOND_US);
    let End { connection, account, source, .. } = &mut pair.caller;
    connection.shrink(&mut Purse { total: account, source });
    assert!(account.used <= first, "{} {first}", account.used);
    connection.release(&mut Purse { total: account, source });
    assert_eq!((account.used, source.used), (0, 0));
}

#[test]
fn a_source_gets_connections_while_their_least_fits_and_then_none() {
    let (mut total, mut source) = (Account::new(1 << 20), Account::new(256 << 10));
    let mut purse = Purse { total: &mut total, source: &mut source };
    let mut connections = Vec::new();
    while purse.has(LEAST_BYTES) {
        connections.push(Connection::call(key(), MTU, &mut purse, FIRST_US));
    }
    assert!(purse.source.used <= purse.source.max, "{} {}", purse.source.used, purse.source.max);
    assert_eq!(connections.len(), purse.source.max / LEAST_BYTES);
    for mut connection in connections {
        connection.release(&mut purse);
    }
    assert_eq!((total.used, source.used), (0, 0));
}

#[test]
fn a_quarter_of_all_connections_fits_into_half_of_a_quarter_of_the_memory() {
    assert!(1024 * LEAST_BYTES <= (96 << 20) / 4 / 2 + (1 << 20), "{LEAST_BYTES}");
    let (mut total, mut source) = (Account::new(96 << 20), Account::new(24 << 20));
    let mut purse = Purse { total: &mut total, source: &mut source };
    // However much the first have taken.
    let mut great = Connection::call(key(), MTU, &mut purse, FIRST_US);
    great.rx.establish(0, 1000, true, true);
    let first = great.rx.limit;
    for _ in 0..64 {
        great.rx.acknowledge(false);
        let bytes = vec![0; great.rx.window() as usize];
        great.rx.take(great.rx.nxt(), &bytes, false, FIRST_US);
        while great.rx.held() > 0 {
            great.consume(great.rx.front().len());
        }
        great.grow(&mut purse, FIRST_US);
    }
    assert!(great.rx.limit > 8 * first, "{} {first}", great.rx.limit);
    assert!(purse.source.left() >= purse.source.max / 2);
}

/// A connection that has `pieces` of `mss` bytes on their way, to a client that has selective acknowledgements.
fn flooded(mss: u16, pieces: usize) -> (End, u32, u32) {
    let syn = Header {
        seq: 100,
        flags: SYN,
        window: 0xffff,
        mss: Some(mss),
        scale: Some(7),
        sack_permitted: true,
        ..Header::default()
    };
    let syn = forged(syn, &[]);
    let Parsed::Segment(syn) = parse(&syn) else { panic!("readable") };
    let mut now_us = FIRST_US;
    let mut end = End::new(|purse| Connection::accept(&syn, MTU, purse, now_us));
    end.connection.emit(now_us, &mut end.outbox);
    let answer = end.outbox.take().expect("an answer");
    let Parsed::Segment(answer) = parse(&answer) else { panic!("readable") };
    let mut una = answer.header.seq.wrapping_add(1);
    let supply = vec![7; 8 << 20];
    let mut given = 0;
    let mut nxt = una;
    while end.connection.tx.on_way() < pieces {
        now_us += 1000;
        let ack = Header { seq: 101, ack: una, flags: ACK, window: 0xffff, ..Header::default() };
        answer_with(&mut end, ack, now_us);
        let mut had_any = false;
        for _ in 0..1000 {
            end.work(now_us, &supply, &mut given, false);
            while end.outbox.take().is_some() {
                had_any = true;
            }
            now_us += 10;
        }
        nxt = end.connection.tx.nxt();
        // All but the last few are acknowledged until the window is great enough.
        if end.connection.tx.on_way() < pieces {
            una = nxt;
        }
        assert!(had_any && now_us < FIRST_US + 100 * SECOND_US, "{}", end.connection.tx.on_way());
    }
    (end, una, nxt)
}

fn answer_with(end: &mut End, header: Header, now_us: i64) {
    let packet = forged(header, &[]);
    let Parsed::Segment(segment) = parse(&packet) else { panic!("readable") };
    end.connection.ingest(&segment, now_us, &mut end.outbox);
}

#[test]
fn an_acknowledgement_costs_no_more_for_all_that_is_on_its_way() {
    let (mut end, una, nxt) = flooded(1, 4000);
    let least = 88;
    let now_us = FIRST_US + 200 * SECOND_US;
    let before_steps = end.connection.tx.steps;
    let rounds = 4000;
    for i in 0..rounds {
        // All but the first is there; where the range begins changes.
        let from = una.wrapping_add(least * (1 + i % 3000));
        let mut sacks = Sacks::default();
        sacks.push((from, nxt));
        let ack = Header { seq: 101, ack: una, flags: ACK, window: 0xffff, sacks, ..Header::default() };
        answer_with(&mut end, ack, now_us + i64::from(i));
    }
    let steps = end.connection.tx.steps - before_steps;
    println!("{} pieces, {} steps an acknowledgement", end.connection.tx.on_way(), steps / rounds as usize);
    assert!(steps < 20 * rounds as usize, "{steps}");
}

#[test]
fn no_more_pieces_than_are_accounted_for_are_on_their_way() {
    let (mut end, _, _) = flooded(1, 8192);
    let supply = vec![7; 8 << 20];
    let mut given = 0;
    for i in 0..1000 {
        end.work(FIRST_US + 200 * SECOND_US + i, &supply, &mut given, false);
    }
    assert!(end.connection.tx.on_way() <= 8192);
    let Receiver { limit, .. } = end.connection.rx;
    assert!(end.account.used >= end.connection.tx.bytes() + Receiver::bytes_of(limit));
}

#[test]
fn lost_pieces_go_again_by_their_numbers_and_what_was_late_does_not() {
    let mut now_us = FIRST_US;
    let syn =
        Header { flags: SYN, window: 0xffff, scale: Some(7), sack_permitted: true, ..Header::default() };
    let mut tx = Sender::new(0, 100_000);
    tx.establish(&Segment { key: key(), header: syn, payload: &[] }, 1000, Some(10_000), now_us);
    tx.first_window(&Segment { key: key(), header: Header { flags: ACK, ..syn }, payload: &[] });
    tx.push(&[7; 10_000]);
    let mut take = |tx: &mut Sender, rounds: i64| -> Vec<u32> {
        let mut starts = Vec::new();
        for _ in 0..rounds {
            now_us += 1000;
            starts.extend(std::iter::from_fn(|| tx.next(now_us)).map(|chunk| chunk.seq));
        }
        starts
    };
    let all: Vec<u32> = (0..10).map(|piece| 1000 * piece).collect();
    assert_eq!(take(&mut tx, 10), all);
    let told = |tx: &mut Sender, range, at_us| {
        let mut sacks = Sacks::default();
        sacks.push(range);
        let header = Header { flags: ACK, window: 0xffff, sacks, ..Header::default() };
        tx.on_ack(&Segment { key: key(), header, payload: &[] }, at_us);
    };
    // The last three are there, so the seven before them are lost; then the third turns out to have been late.
    told(&mut tx, (7000, 10_000), FIRST_US + 30_000);
    told(&mut tx, (2000, 3000), FIRST_US + 30_001);
    assert_eq!(take(&mut tx, 100), [0, 1000, 3000, 4000, 5000, 6000]);
}
