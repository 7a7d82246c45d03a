//! Steering: which of several Workers the kernel gives a datagram or an inner packet to. A classic BPF program picks the
//! socket of a reuseport group by the receiver index, whose top four bits name the Worker; an eBPF program picks the queue
//! of a TUN device by the inner destination, in a table of prefixes. Invariant: a datagram or packet that no rule fits
//! still goes to some Worker, which hands it on. Moves no packet itself.

use crate::layout::Table;
use crate::port::bpf::{MapCreate, change_map, create_map, instruction, load_program};
use crate::sys::name::{Name, read_host};
use crate::sys::{bind, errno, local_port, set_option, socket};
use std::cell::RefCell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

/// What four bits can name.
const WORKERS_MAX: usize = 16;
/// Prefixes that the table takes: peers and their networks.
const PREFIXES_MAX: u32 = 1 << 20;

const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
/// Loads below this offset of classic BPF are relative to the network header (linux/filter.h, SKF_NET_OFF).
const NETWORK_HEADER: u32 = 0xfff0_0000;

const TUNSETSTEERINGEBPF: libc::c_ulong = 0x8004_54e0;
const BPF_MAP_TYPE_LPM_TRIE: u32 = 11;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;
const HELPER_MAP_LOOKUP_ELEM: i32 = 1;
const HELPER_SKB_LOAD_BYTES: i32 = 26;

/// A UDP socket bound to `address`, alone or as one more of a reuseport group. Err is the errno.
fn open(address: &SocketAddr, shared: bool) -> Result<OwnedFd, i32> {
    let socket = socket(address.is_ipv6(), libc::SOCK_DGRAM)?;
    let fd = socket.as_raw_fd();
    if shared && !set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1) {
        return Err(errno());
    }
    // One socket for both families where the host has both, whatever its default is.
    if address.is_ipv6() && !set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0) {
        return Err(errno());
    }
    let (name, length) = Name::of(address);
    bind(fd, &name, length)?;
    Ok(socket)
}

/// The program that picks a socket of the group. It sees the UDP payload.
fn steer_datagrams(socket: &OwnedFd, workers: u32) -> Result<(), i32> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const SHIFT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
    const TIMES: u16 = (libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K) as u16;
    const MODULO: u16 = (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_A) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let program = [
        step(LOAD_BYTE, 0, 0, 0),  // the message type (PROTOCOL.md sections 2 and 9, R45)
        step(EQUAL, 4, 8, 0),      // WireGuard's data and
        step(EQUAL, 3, 7, 0),      // cookie reply,
        step(EQUAL, 0xc3, 6, 0),   // and OxTunnel's: receiver index at 4
        step(EQUAL, 2, 3, 0),      // both responses:
        step(EQUAL, 0xc2, 2, 0),   // at 8
        step(ANY_BIT, 0x80, 8, 0), // other long forms have none
        step(ANY_BIT, 0x40, 4, 7), // OxTunnel's data: at 1
        step(LOAD_BYTE, 11, 0, 0),
        step(JUMP, 3, 0, 0),
        step(LOAD_BYTE, 7, 0, 0),
        step(JUMP, 1, 0, 0),
        step(LOAD_BYTE, 4, 0, 0),
        // The top four bits. One that names no Worker is out of range, and the kernel then goes by its own hash.
        step(SHIFT, 4, 0, 0),
        step(ANSWER, 0, 0, 0),
        // Anything else by its source, so that one source meets one Worker's limits: the word at 12 is an IPv4 source
        // address, and of an IPv6 one the part of its /64 that tells networks apart.
        step(LOAD_WORD, NETWORK_HEADER + 12, 0, 0),
        step(TIMES, 0x9e37_79b1, 0, 0),
        step(SHIFT, 16, 0, 0),
        step(MODULO, workers, 0, 0),
        step(ANSWER, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // The kernel copies the program, which lives through the call.
    let attached = set_option(socket.as_raw_fd(), libc::SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter);
    if attached { Ok(()) } else { Err(errno()) }
}

/// Sockets of one address and port, for each Worker one. Err is the errno.
fn bind_group(host: &str, port: u16, workers: usize) -> Result<Vec<OwnedFd>, i32> {
    let mut last = libc::EADDRNOTAVAIL;
    let addresses =
        (host, port).to_socket_addrs().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    for mut address in addresses {
        // First alone: a group would take in the sockets of another relay of the same user.
        match open(&address, false) {
            Ok(socket) if workers == 1 => return Ok(vec![socket]),
            Ok(socket) => address.set_port(local_port(socket.as_raw_fd())),
            Err(reason) => {
                last = reason;
                continue;
            }
        }
        let group = (0..workers).map(|_| open(&address, true)).collect::<Result<Vec<_>, _>>()?;
        steer_datagrams(&group[0], workers as u32)?;
        return Ok(group);
    }
    Err(last)
}

/// Binds UDP to a host name or address of `length` bytes (UTF-8) and a port (0 lets the system choose), once for each of
/// 1 to 16 `workers`, with the program that steers among them. Writes the descriptors, in the Workers' order, which they
/// keep for as long as all are open. Returns 0, or -errno with nothing left open.
///
/// # Safety
/// `host` is valid for `length` bytes and `out` for `workers` i32s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_udp_bind(
    host: *const u8,
    length: u32,
    port: u32,
    workers: u32,
    out: *mut i32,
) -> i32 {
    if out.is_null() || workers == 0 || workers as usize > WORKERS_MAX {
        return -libc::EINVAL;
    }
    // SAFETY: as the caller says.
    let host = unsafe { read_host(host, length) };
    let (Some(host), Ok(port)) = (host, u16::try_from(port)) else { return -libc::EINVAL };
    match bind_group(host, port, workers as usize) {
        Ok(group) => {
            for (i, socket) in group.into_iter().enumerate() {
                // SAFETY: the group has `workers` sockets, and an ArrayBuffer need not be aligned for us.
                unsafe { out.add(i).write_unaligned(socket.into_raw_fd()) };
            }
            0
        }
        Err(reason) => -reason,
    }
}

/// A prefix as the kernel's table has it: IPv4 as ::ffff:a.b.c.d, bits of 128.
#[repr(C)]
struct Prefix {
    bits: u32,
    address: [u8; 16],
}

/// The program that picks a queue: the value of the longest prefix that holds the destination, or 0. It sees the packet
/// from its IP header on.
fn queue_program(map: i32) -> Vec<u64> {
    const FRAME: u8 = 10;
    const KEY: i16 = -24; // a Prefix on the stack, with the version byte below it
    const VERSION: i16 = -32;
    let move_register = |to, from| instruction(0xbf, to, from, 0, 0);
    let move_value = |to, value| instruction(0xb7, to, 0, 0, value);
    let add = |to, value| instruction(0x07, to, 0, 0, value);
    let store_word = |at, value| instruction(0x62, FRAME, 0, at, value);
    let call = |helper| instruction(0x85, 0, 0, 0, helper);
    let jump_not_equal = |register, value, by| instruction(0x55, register, 0, by, value);
    let jump_equal = |register, value, by| instruction(0x15, register, 0, by, value);
    // Four arguments: the packet, where in it, where to, how many bytes.
    let load = |from: i32, to: i16, bytes: i32| {
        [
            move_register(1, 6),
            move_value(2, from),
            move_register(3, FRAME),
            add(3, i32::from(to)),
            move_value(4, bytes),
            call(HELPER_SKB_LOAD_BYTES),
        ]
    };
    let mut program = vec![move_register(6, 1)];
    program.extend(load(0, VERSION, 1));
    program.extend([
        jump_not_equal(0, 0, 31),                // to the end
        instruction(0x71, 7, FRAME, VERSION, 0), // the byte that was loaded
        instruction(0x77, 7, 0, 0, 4),
        jump_equal(7, 6, 12),     // to IPv6
        jump_not_equal(7, 4, 27), // to the end
        store_word(KEY + 4, 0),
        store_word(KEY + 8, 0),
        store_word(KEY + 12, i32::from_ne_bytes([0, 0, 0xff, 0xff])),
    ]);
    program.extend(load(16, KEY + 16, 4));
    program.push(jump_not_equal(0, 0, 17)); // to the end
    program.push(instruction(0x05, 0, 0, 7, 0)); // to the look-up
    program.extend(load(24, KEY + 4, 16));
    program.push(jump_not_equal(0, 0, 9)); // to the end
    program.extend([
        store_word(KEY, 128),
        instruction(0x18, 1, 1, 0, map), // the map, by its descriptor, in two words
        0,
        move_register(2, FRAME),
        add(2, i32::from(KEY)),
        call(HELPER_MAP_LOOKUP_ELEM),
        jump_equal(0, 0, 2),
        instruction(0x61, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
        move_value(0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    program
}

/// The table of prefixes and the program that reads it.
struct Steering {
    map: OwnedFd,
    program: OwnedFd,
}

impl Steering {
    fn new() -> Result<Self, i32> {
        let map = create_map(&MapCreate {
            kind: BPF_MAP_TYPE_LPM_TRIE,
            key_bytes: size_of::<Prefix>() as u32,
            value_bytes: size_of::<u32>() as u32,
            entries_max: PREFIXES_MAX,
            flags: BPF_F_NO_PREALLOC,
        })?;
        let program = load_program(BPF_PROG_TYPE_SOCKET_FILTER, &queue_program(map.as_raw_fd()))?;
        Ok(Self { map, program })
    }
}

thread_local! {
    static STEERINGS: RefCell<Table<Steering>> = const { RefCell::new(Table::new()) };
}

fn with_steering(handle: u32, act: impl FnOnce(&mut Steering) -> i32) -> i32 {
    STEERINGS.with_borrow_mut(|steerings| steerings.get(handle).map_or(-libc::EINVAL, act))
}

/// Makes an empty table of prefixes and its program. Returns the handle, or -errno: EPERM without CAP_BPF.
#[unsafe(no_mangle)]
pub extern "C" fn ox_steer_new() -> i32 {
    match Steering::new() {
        Ok(steering) => STEERINGS.with_borrow_mut(|steerings| steerings.insert(steering)),
        Err(reason) => -reason,
    }
}

/// Lets the table pick the queues of the TUN device that `fd` is a queue of. Returns 0, or -errno.
#[unsafe(no_mangle)]
pub extern "C" fn ox_steer_attach(handle: u32, fd: i32) -> i32 {
    with_steering(handle, |steering| {
        let program = steering.program.as_raw_fd();
        // SAFETY: this ioctl reads one i32.
        let result = unsafe { libc::ioctl(fd, TUNSETSTEERINGEBPF, &raw const program) };
        if result < 0 { -errno() } else { 0 }
    })
}

/// Sends what goes to a prefix (16 bytes in network order, IPv4 as ::ffff:a.b.c.d; bits of 128) to a Worker's queue, or to
/// none in particular when `worker` is 16 or more. Returns 0, or -errno.
///
/// # Safety
/// `address` is valid for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ox_steer_set(handle: u32, address: *const u8, bits: u32, worker: u32) -> i32 {
    if address.is_null() || bits > 128 {
        return -libc::EINVAL;
    }
    // SAFETY: the caller gives 16 bytes.
    let prefix = Prefix { bits, address: unsafe { *address.cast::<[u8; 16]>() } };
    with_steering(handle, |steering| {
        let worker = Some(worker).filter(|worker| (*worker as usize) < WORKERS_MAX);
        change_map(&steering.map, &prefix, worker.as_ref()).map_or_else(|reason| -reason, |()| 0)
    })
}

/// Gives table and program up. A device that uses the program keeps it until it goes.
#[unsafe(no_mangle)]
pub extern "C" fn ox_steer_release(handle: u32) -> i32 {
    STEERINGS.with_borrow_mut(|steerings| steerings.release(handle))
}
