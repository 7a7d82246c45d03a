//! Cutting against joining: random flows, damaged packets and a hostile device, with the checksums of a plain twin. Random
//! with a fixed seed, so that a failure repeats.

use crate::layout::{
    BURST_CAPACITY, Block, HEADROOM, PACKET_BYTES_MAX, SLOT_BYTES, TO_EXIT, ox_arena_register,
    ox_arena_release, ox_burst_register, ox_burst_release, with_burst,
};
use crate::packet::{
    IPV4_BYTES, IPV6_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, TCP_BYTES, TCP_CHECKSUM, UDP_BYTES, UDP_CHECKSUM,
    add, add_words, fold, pseudo_header, write_u16,
};
use crate::tun::cut::SuperPacket;
use crate::tun::join::{DONT_FRAGMENT, HEADERS_BYTES_MAX, Joiner};
use crate::tun::offload::{
    FLAG_ACK, FLAG_CWR, FLAG_FIN, FLAG_PSH, KIND_ECN, KIND_TCP_IPV4, KIND_TCP_IPV6, KIND_UDP, NEEDS_CHECKSUM,
    OffloadHeader, complete_checksum,
};
const SEED: u64 = 0x0e1a_7a1b;

/// xorshift64*, so that a failure repeats.
struct Random(u64);
impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// RFC 1071 by the letter: big-endian words, one after the other.
fn plain_checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What the next packet of a flow is made of.
#[derive(Clone)]
struct Flow {
    is_ipv6: bool,
    is_tcp: bool,
    host: u8,
    identifier: u16,
    sequence: u32,
    flags: u8,
    options: Vec<u8>,
    ttl: u8,
    traffic_class: u8,
    window: u16,
    acknowledged: u32,
}

impl Flow {
    fn new(is_ipv6: bool, is_tcp: bool, host: u8) -> Self {
        Self {
            is_ipv6,
            is_tcp,
            host,
            identifier: 0xfffe,
            sequence: u32::MAX - 2000,
            flags: FLAG_ACK,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            ttl: 64,
            traffic_class: 0,
            window: 500,
            acknowledged: 0,
        }
    }

    fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let transport = if self.is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        let header = transport + if self.is_tcp { TCP_BYTES + self.options.len() } else { UDP_BYTES };
        let length = header + payload.len();
        let mut out = vec![0; header];
        let addresses = if self.is_ipv6 {
            out[0] = 0x60;
            out[1] = self.traffic_class << 4;
            write_u16(&mut out, 4, (length - IPV6_BYTES) as u16);
            out[6] = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
            out[7] = self.ttl;
            out[23] = self.host;
            out[39] = 99;
            8..40
        } else {
            out[0] = 0x45;
            out[1] = self.traffic_class;
            write_u16(&mut out, 2, length as u16);
            write_u16(&mut out, 4, self.identifier);
            out[8] = self.ttl;
            out[9] = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
            out[12..20].copy_from_slice(&[10, 66, 0, self.host, 192, 0, 2, 99]);
            let sum = plain_checksum(&[&out[..20]]);
            write_u16(&mut out, 10, sum);
            12..20
        };
        write_u16(&mut out, transport, 40000 + u16::from(self.host));
        write_u16(&mut out, transport + 2, 443);
        let field = if self.is_tcp {
            out[transport + 4..transport + 8].copy_from_slice(&self.sequence.to_be_bytes());
            out[transport + 12] = ((header - transport) * 4) as u8;
            out[transport + 13] = self.flags;
            out[transport + 8..transport + 12].copy_from_slice(&self.acknowledged.to_be_bytes());
            write_u16(&mut out, transport + 14, self.window);
            out[transport + TCP_BYTES..].copy_from_slice(&self.options);
            transport + TCP_CHECKSUM
        } else {
            write_u16(&mut out, transport + 4, (length - transport) as u16);
            transport + UDP_CHECKSUM
        };
        out.extend(payload);
        let pseudo = [0, if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP }];
        let bytes = ((length - transport) as u16).to_be_bytes();
        let sum = plain_checksum(&[&out[addresses], &pseudo, &bytes, &out[transport..]]);
        write_u16(&mut out, field, if sum == 0 && !self.is_tcp { 0xffff } else { sum });
        self.identifier = self.identifier.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        out
    }
}

fn right_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = plain_checksum(&[&packet[..20]]);
    write_u16(packet, 10, sum);
}

/// Joins packets as rows of a burst, and returns each group's rows with what the device would be given.
fn join(packets: &[Vec<u8>]) -> Vec<(Vec<usize>, Option<OffloadHeader>, Vec<u8>)> {
    let mut memory = vec![0u8; BURST_CAPACITY * SLOT_BYTES];
    // SAFETY: for these columns all zero bytes are a valid value.
    let mut block: Box<Block> = Box::new(unsafe { std::mem::zeroed() });
    for (row, packet) in packets.iter().enumerate() {
        let start = row * SLOT_BYTES + HEADROOM;
        memory[start..start + packet.len()].copy_from_slice(packet);
        block.offset[row] = start as u32;
        block.length[row] = packet.len() as u32;
        block.next[row] = TO_EXIT;
    }
    // SAFETY: both outlive their handles.
    let (arena, burst) = unsafe {
        let arena = ox_arena_register(memory.as_mut_ptr(), memory.len() as u32);
        let block = (&raw mut *block).cast();
        (arena, ox_burst_register(block, size_of::<Block>() as u32, arena as u32))
    };
    let mut joined = Vec::new();
    with_burst(burst as u32, |block, arena| {
        let mut joiner = Joiner::new();
        joiner.join(block, arena, packets.len(), TO_EXIT, true);
        for group in &joiner.groups {
            let rows: Vec<usize> = joiner.rows(group).collect();
            assert_eq!(rows.len(), usize::from(group.rows));
            let (first, last) = (&packets[rows[0]], &packets[rows[rows.len() - 1]]);
            if rows.len() == 1 {
                joined.push((rows, None, first.clone()));
                continue;
            }
            let mut scratch = [0; HEADERS_BYTES_MAX];
            let (offload, header) = group.headers(first, last, &mut scratch);
            let mut bytes = scratch[..header].to_vec();
            rows.iter().for_each(|&row| bytes.extend(&packets[row][header..]));
            joined.push((rows, Some(offload), bytes));
        }
        0
    });
    ox_burst_release(burst as u32);
    ox_arena_release(arena as u32);
    joined
}

fn cut_all(offload: &OffloadHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
    let packet = SuperPacket::parse(offload, bytes).expect("it was made well");
    let mut out = vec![0; PACKET_BYTES_MAX];
    (0..packet.count())
        .map(|index| {
            let length = packet.cut(bytes, index, &mut out);
            out[..length].to_vec()
        })
        .collect()
}

/// Packets of these flows in turn, and the flow of each: `calm - 1` of `calm` are `size` bytes of payload and follow their
/// flow's last one; the others differ in one thing, or are damaged and nobody's.
fn mixed(random: &mut Random, flows: &mut [Flow], size: usize, calm: u64) -> (Vec<Vec<u8>>, Vec<usize>) {
    let mut packets = Vec::new();
    let mut owners = Vec::new();
    for _ in 0..1 + random.below(BURST_CAPACITY as u64) {
        let owner = random.below(flows.len() as u64) as usize;
        let flow = &mut flows[owner];
        flow.flags = FLAG_ACK;
        let mut length = size;
        if random.one_in(calm) {
            match random.below(12) {
                0 => length = random.below(1500) as usize,
                1 => flow.flags |= FLAG_PSH,
                2 => flow.flags = 1 << random.below(8),
                3 => flow.sequence = flow.sequence.wrapping_add(1),
                4 => flow.identifier = flow.identifier.wrapping_add(7),
                5 => flow.options[7] ^= 1,
                6 => flow.options.truncate(flow.options.len() / 8 * 4),
                7 => flow.ttl -= 1,
                8 => flow.traffic_class ^= 3,
                9 => flow.window ^= 1,
                10 => flow.acknowledged += 1,
                _ => {
                    // Damaged: a byte, or the end.
                    let mut packet = flow.packet(&random.bytes(length));
                    let at = random.below(packet.len() as u64) as usize;
                    if random.one_in(2) {
                        packet[at] ^= 1 << random.below(8);
                    } else {
                        packet.truncate(at);
                    }
                    packets.push(packet);
                    owners.push(usize::MAX);
                    continue;
                }
            }
            if flow.options.len() < 8 {
                flow.options = vec![1; 12];
            }
        }
        packets.push(flow.packet(&random.bytes(length)));
        owners.push(owner);
    }
    (packets, owners)
}

#[test]
fn what_was_joined_is_cut_into_the_same_packets_in_the_same_order() {
    let mut random = Random(SEED);
    let (mut packets_seen, mut groups_seen) = (0, 0);
    for _ in 0..300 {
        let size = 1 + random.below(1400) as usize;
        let calm = 1 + random.below(30);
        let mut flows: Vec<Flow> = (0..1 + random.below(6) as u8)
            .map(|host| Flow::new(random.one_in(2), random.one_in(2), host))
            .collect();
        let (packets, owners) = mixed(&mut random, &mut flows, size, calm);
        let joined = join(&packets);
        let mut written = Vec::new();
        for (rows, offload, bytes) in &joined {
            let pieces = offload.map_or_else(|| vec![bytes.clone()], |offload| cut_all(&offload, bytes));
            assert_eq!(pieces.len(), rows.len());
            for (piece, &row) in pieces.iter().zip(rows) {
                assert!(*piece == packets[row], "row {row} of {rows:?}");
            }
            written.extend(rows);
        }
        for owner in 0..flows.len() {
            let order: Vec<usize> = written.iter().copied().filter(|&row| owners[row] == owner).collect();
            assert!(order.is_sorted(), "flow {owner}: {order:?}");
        }
        written.sort();
        assert_eq!(written, (0..packets.len()).collect::<Vec<_>>());
        packets_seen += packets.len();
        groups_seen += joined.len();
    }
    // Or this was about nothing.
    assert!(packets_seen > 3 * groups_seen, "{packets_seen} packets in {groups_seen} groups");
}

#[test]
fn one_bulk_flow_is_one_super_packet_up_to_its_limits() {
    for (is_ipv6, is_tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut flow = Flow::new(is_ipv6, is_tcp, 1);
        let mut packets: Vec<Vec<u8>> = (0..100).map(|i| flow.packet(&[i; 1000])).collect();
        packets.push(flow.packet(&[7; 999]));
        packets.push(flow.packet(&[7; 999]));
        let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
        assert_eq!(sizes, [64, 37, 1]); // a shorter one ends it
        let packets: Vec<Vec<u8>> = (0..100).map(|i| flow.packet(&[i; 1400])).collect();
        let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
        assert_eq!(sizes, [46, 46, 8]); // 64 KB
    }
}

#[test]
fn identifications_matter_only_where_a_packet_may_be_fragmented() {
    for (flags, groups) in [(0, 3), (DONT_FRAGMENT, 1)] {
        let mut flow = Flow::new(false, false, 1);
        let packets: Vec<Vec<u8>> = (0..3)
            .map(|i| {
                flow.identifier = 0;
                let mut packet = flow.packet(&[i; 100]);
                packet[6] = flags;
                right_header(&mut packet);
                packet
            })
            .collect();
        assert_eq!(join(&packets).len(), groups);
    }
}

#[test]
fn what_is_wrong_stays_alone() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("its payload is not what the checksum says", |packet| packet[100] ^= 1),
        ("it has no checksum", |packet| packet[26..28].fill(0)),
        ("its header is not what the checksum says", |packet| packet[10] ^= 1),
        ("it is a fragment", |packet| {
            packet[6] |= 0x20;
            right_header(packet);
        }),
        ("it has IPv4 options", |packet| packet[0] = 0x46),
        ("it is longer than it says", |packet| packet.push(0)),
    ];
    for (what, change) in changes {
        let mut flow = Flow::new(false, false, 1);
        let mut packets: Vec<Vec<u8>> = (0..5).map(|i| flow.packet(&[i; 200])).collect();
        change(&mut packets[2]);
        let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
        assert_eq!(sizes, [2, 1, 2], "{what}");
    }
    let mut flow = Flow::new(false, false, 1);
    let mut fragments: Vec<Vec<u8>> = (0..2).map(|i| flow.packet(&[i; 200])).collect();
    for packet in &mut fragments {
        packet[6] |= 0x20;
        right_header(packet);
    }
    assert_eq!(join(&fragments).len(), 2, "fragments look like datagrams");
    let mut packets: Vec<Vec<u8>> = (0..2).map(|i| flow.packet(&[i; 200])).collect();
    packets[0][100] ^= 1;
    assert_eq!(join(&packets).len(), 2, "the first of a group is judged too");
}

#[test]
fn only_the_first_packet_has_cwr_and_only_the_last_psh_and_fin() {
    let mut flow = Flow::new(true, true, 1);
    flow.flags = FLAG_ACK | FLAG_PSH | FLAG_FIN | FLAG_CWR;
    let bytes = flow.packet(&[5; 2500]);
    let offload = OffloadHeader {
        flags: NEEDS_CHECKSUM,
        kind: KIND_TCP_IPV6 | KIND_ECN,
        header_bytes: 0,
        segment_bytes: 1000,
        checksum_start: 40,
        checksum_offset: 16,
    };
    let mut twin = Flow::new(true, true, 1);
    let mut expected = Vec::new();
    for (flags, length) in [(FLAG_CWR, 1000), (0, 1000), (FLAG_PSH | FLAG_FIN, 500)] {
        twin.flags = FLAG_ACK | flags;
        expected.push(twin.packet(&vec![5; length]));
    }
    assert_eq!(cut_all(&offload, &bytes), expected);
}

#[test]
fn a_checksum_left_to_the_device_is_completed() {
    for is_ipv6 in [false, true] {
        let whole = Flow::new(is_ipv6, false, 3).packet(&[9; 333]);
        let mut packet = whole.clone();
        let start = if is_ipv6 { 40 } else { 20 };
        let sum = fold(pseudo_header(&packet, is_ipv6, PROTOCOL_UDP, packet.len() - start));
        packet[start + 6..start + 8].copy_from_slice(&sum.to_ne_bytes());
        let mut offload =
            OffloadHeader { flags: NEEDS_CHECKSUM, checksum_start: start as u16, ..Default::default() };
        offload.checksum_offset = 6;
        assert!(complete_checksum(&offload, &mut packet));
        assert_eq!(packet, whole);
        offload.checksum_start = (packet.len() - 7) as u16;
        assert!(!complete_checksum(&offload, &mut packet));
    }
}

#[test]
fn sums_agree_with_the_plain_one_at_every_length() {
    let bytes = Random(SEED).bytes(300);
    for length in 0..bytes.len() {
        for start in 0..4.min(length) {
            let part = &bytes[start..length];
            assert_eq!(!fold(add(part)), plain_checksum(&[part]).to_be());
            assert_eq!(add(part), add_words(part));
        }
    }
}

#[test]
fn a_hostile_device_is_survived() {
    let mut random = Random(SEED);
    let mut parsed = 0;
    for round in 0..40_000 {
        let mut flow = Flow::new(random.one_in(2), random.one_in(2), 1);
        let mut packet = flow.packet(&vec![1; 1 + random.below(3000) as usize]);
        let mut offload = OffloadHeader {
            flags: NEEDS_CHECKSUM,
            kind: match (flow.is_tcp, flow.is_ipv6) {
                (true, false) => KIND_TCP_IPV4,
                (true, true) => KIND_TCP_IPV6,
                _ => KIND_UDP,
            },
            header_bytes: random.below(65536) as u16,
            segment_bytes: random.below(1600) as u16,
            checksum_start: if flow.is_ipv6 { 40 } else { 20 },
            checksum_offset: if flow.is_tcp { 16 } else { 6 },
        };
        for _ in 0..round % 4 {
            match random.below(7) {
                0 => offload.flags = random.below(256) as u8,
                1 => offload.kind = random.below(256) as u8,
                2 => offload.segment_bytes = random.below(65536) as u16,
                3 => offload.checksum_start = random.below(100) as u16,
                4 => offload.checksum_offset = random.below(65536) as u16,
                5 => packet.truncate(random.below(packet.len() as u64 + 1) as usize),
                _ => {
                    let end = packet.len().clamp(1, 60) as u64;
                    if let Some(byte) = packet.get_mut(random.below(end) as usize) {
                        *byte = random.below(256) as u8;
                    }
                }
            }
        }
        complete_checksum(&offload, &mut packet.clone());
        if let Some(announced) = SuperPacket::parse(&offload, &packet) {
            parsed += 1;
            assert!(announced.count() <= packet.len());
            for piece in cut_all(&offload, &packet) {
                assert!(piece.len() <= PACKET_BYTES_MAX && piece.len() > 28);
            }
        }
    }
    assert!(parsed > 10_000, "{parsed}");
}
