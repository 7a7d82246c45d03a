//! Control messages of sendmsg(2) and recvmsg(2) (cmsg(3)): written one behind the other into a buffer of fixed size, and
//! read from what the kernel has written. Invariant: no length in a buffer is believed before the bytes are known to be
//! there, and nothing is written beyond the buffer.

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

/// A buffer of `BYTES` bytes, aligned as cmsghdr must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control<const BYTES: usize>(pub [u8; BYTES]);

impl<const BYTES: usize> Control<BYTES> {
    pub const EMPTY: Self = Self([0; BYTES]);

    /// Writes a message behind the first `used` bytes, a sum of earlier results. Returns the bytes used in all. Panics where
    /// the buffer is too small, which its size is to rule out.
    pub fn push<T: Copy>(&mut self, used: usize, level: i32, kind: i32, value: T) -> usize {
        let (length, space) = (HEADER_BYTES + size_of::<T>(), space_of::<T>());
        assert!(used + space <= BYTES && used.is_multiple_of(align_of::<libc::cmsghdr>()));
        let at = self.0[used..].as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: the space was just seen to be there, and `used` is a multiple of cmsghdr's alignment, as the buffer's is.
        unsafe {
            at.write(libc::cmsghdr { cmsg_len: length, cmsg_level: level, cmsg_type: kind });
            at.add(1).cast::<T>().write_unaligned(value);
        }
        used + space
    }
}

/// Bytes that a message with a `T` takes in a buffer (CMSG_SPACE).
pub const fn space_of<T>() -> usize {
    (HEADER_BYTES + size_of::<T>()).next_multiple_of(align_of::<libc::cmsghdr>())
}

/// What a control message may hold.
///
/// # Safety
/// Every bit pattern is a valid value.
pub unsafe trait Plain: Copy {}
// SAFETY: integers.
unsafe impl Plain for i32 {}
// SAFETY: the same.
unsafe impl Plain for u32 {}
// SAFETY: C structures of integers and bytes.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: the same.
unsafe impl Plain for libc::in6_pktinfo {}
// SAFETY: the same.
unsafe impl Plain for libc::sock_extended_err {}

/// A message that the kernel has written.
pub struct Message<'a> {
    pub level: i32,
    pub kind: i32,
    pub data: &'a [u8],
}

impl Message<'_> {
    /// What it begins with; None where it is shorter.
    pub fn read<T: Plain>(&self) -> Option<T> {
        // SAFETY: a whole T lies there, and every bit pattern is one.
        (self.data.len() >= size_of::<T>())
            .then(|| unsafe { self.data.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// The messages in the bytes that the kernel has written; ends at the first whose length cannot be.
pub fn messages(control: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = control.get(at..).filter(|left| left.len() >= HEADER_BYTES)?;
        // SAFETY: a whole header lies there, and every bit pattern is one.
        let header: libc::cmsghdr = unsafe { left.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
        let data = left.get(HEADER_BYTES..header.cmsg_len)?;
        at += header.cmsg_len.next_multiple_of(align_of::<libc::cmsghdr>());
        Some(Message { level: header.cmsg_level, kind: header.cmsg_type, data })
    })
}

#[test]
fn messages_are_read_as_they_were_written_and_no_length_is_believed() {
    let mut control = Control::<64>::EMPTY;
    let used = control.push(0, 1, 2, 0x0102_0304_i32);
    let used = control.push(used, 3, 4, 7_u16);
    assert_eq!(used, space_of::<i32>() + space_of::<u16>());
    // SAFETY: CMSG_SPACE only computes.
    assert_eq!(space_of::<u16>(), unsafe { libc::CMSG_SPACE(2) } as usize);
    let seen: Vec<(i32, i32, Option<i32>)> =
        messages(&control.0[..used]).map(|message| (message.level, message.kind, message.read())).collect();
    assert_eq!(seen, [(1, 2, Some(0x0102_0304)), (3, 4, None)]);
    for end in 0..used {
        let whole =
            usize::from(end >= HEADER_BYTES + 4) + usize::from(end >= space_of::<i32>() + HEADER_BYTES + 2);
        assert_eq!(messages(&control.0[..end]).count(), whole, "{end}");
    }
    for length in [0, 1, HEADER_BYTES - 1, 65, usize::MAX, usize::MAX - 7] {
        control.0[..8].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(messages(&control.0[..used]).count(), 0, "{length}");
    }
}
