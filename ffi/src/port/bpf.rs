//! eBPF by bpf(2): maps, programs, and the one instruction that programs are assembled of by hand. Invariant: what is made
//! here goes with its descriptor, unless the kernel keeps it for a device. Knows no program.

use crate::sys::errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// Of linux/bpf.h.
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_PROG_LOAD: i32 = 5;

/// The first fields of union bpf_attr for making a map.
#[repr(C)]
pub struct MapCreate {
    pub kind: u32,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub entries_max: u32,
    pub flags: u32,
}

/// For changing one.
#[repr(C)]
struct MapChange {
    pub map: u32,
    pub padding: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

/// For loading a program.
#[repr(C)]
struct ProgramLoad {
    pub kind: u32,
    pub instructions: u32,
    pub program: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_bytes: u32,
    pub log: u64,
    pub kernel_version: u32,
    pub flags: u32,
}

/// Runs bpf(2). Err is the errno.
///
/// # Safety
/// `T` begins as union bpf_attr does for `command`, and what it points at lives through the call.
unsafe fn bpf<T>(command: i32, attributes: &T) -> Result<i32, i32> {
    // SAFETY: the caller's part, and the kernel reads no more than the size given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, (&raw const *attributes), size_of::<T>() as u32) };
    if result < 0 { Err(errno()) } else { Ok(result as i32) }
}

/// Makes a map. Err is the errno: EPERM without CAP_BPF.
pub fn create_map(create: &MapCreate) -> Result<OwnedFd, i32> {
    // SAFETY: MapCreate begins as the union does for this command; the descriptor is new and nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(BPF_MAP_CREATE, create)?)) }
}

/// Gives a map's key a value, or takes the key out. `Key` and `Value` have the sizes that the map was made with. Err is the
/// errno: ENOENT for a key that is not there.
pub fn change_map<Key, Value>(map: &OwnedFd, key: &Key, value: Option<&Value>) -> Result<(), i32> {
    let change = MapChange {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const *key) as u64,
        value: value.map_or(0, |value| (&raw const *value) as u64),
        flags: 0,
    };
    let command = if value.is_some() { BPF_MAP_UPDATE_ELEM } else { BPF_MAP_DELETE_ELEM };
    // SAFETY: MapChange begins as the union does for both commands, and key and value live through the call.
    unsafe { bpf(command, &change) }.map(|_| ())
}

/// Loads a program of a kind (BPF_PROG_TYPE_...). Err is the errno: EPERM without CAP_BPF, EACCES from the verifier.
pub fn load_program(kind: u32, program: &[u64]) -> Result<OwnedFd, i32> {
    let load = ProgramLoad {
        kind,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: ProgramLoad begins as the union does for this command, program and licence live through the call, and the
    // descriptor is new and nobody else's.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(BPF_PROG_LOAD, &load)?)) }
}

/// One instruction of eBPF (RFC 9669 section 3): opcode, registers, offset, immediate.
pub fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(opcode)
        | u64::from(destination) << 8
        | u64::from(source) << 12
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}
