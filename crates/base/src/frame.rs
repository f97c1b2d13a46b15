//! The frame of the peer protocol: a 32-byte header, a meta part, a raw payload.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `b"MSTY"` |
//! | 4 | 1 | version | [`VERSION`] |
//! | 5 | 1 | flags | 0, reserved |
//! | 6 | 2 | channel | which service the meta part is for |
//! | 8 | 4 | `meta_len` | bytes |
//! | 12 | 4 | `payload_len` | bytes |
//! | 16 | 8 | session | from the hello |
//! | 24 | 4 | seq | place in the session's channel; wraps |
//! | 28 | 4 | crc32c | of bytes 0..28, then meta, then payload |
//!
//! All numbers are little-endian. The layout up to `version` is frozen for all releases; golden vectors are in the tests.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"MSTY";
/// The version of the frame layout that this build writes and reads.
pub const VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_SIZE: usize = 32;
/// Most bytes in meta and payload of one frame after the hello (1 MiB); a frame that claims more is refused unread.
pub const BODY_SIZE_MAX: usize = 1 << 20;
/// Most bytes in meta and payload of one frame before the hello is done (64 KiB, S10).
pub const BODY_SIZE_MAX_EARLY: usize = 64 << 10;

/// The numbers at the start of a frame, but for magic, version and checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Which service the meta part is for.
    pub channel: u16,
    /// Bytes of the meta part.
    pub meta_len: u32,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// The session agreed in the hello.
    pub session: u64,
    /// Place in the session's channel.
    pub seq: u32,
    crc: u32,
}

/// A frame: what a service says to its counterpart at another site.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Frame {
    /// Which service the meta part is for.
    pub channel: u16,
    /// The session agreed in the hello.
    pub session: u64,
    /// Place in the session's channel.
    pub seq: u32,
    /// MessagePack of the service's message type.
    pub meta: Bytes,
    /// Raw bytes; shared with the socket buffer, never copied.
    pub payload: Bytes,
}

/// Why bytes are not a frame. The connection they came on is of no more use; nothing else is affected.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes do not begin with [`MAGIC`]: not this protocol.
    #[error("not a frame of this protocol")]
    Magic,
    /// The sender speaks another version of the frame layout.
    #[error("frame version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// A reserved flag is set.
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    /// Meta and payload claim more than the limit.
    #[error("a body of {claimed} bytes, the limit is {limit}")]
    TooLarge {
        /// What the header says.
        claimed: u64,
        /// What is allowed here.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`], by everything that can be known without the body; `body_max` bounds meta and payload together.
    pub fn decode(bytes: &[u8; HEADER_SIZE], body_max: usize) -> Result<Self, FrameError> {
        if bytes[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        if bytes[5] != 0 {
            return Err(FrameError::Flags(bytes[5]));
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let header = Self {
            channel: u16::from_le_bytes([bytes[6], bytes[7]]),
            meta_len: word(8),
            payload_len: word(12),
            session: u64::from(word(16)) | (u64::from(word(20)) << 32),
            seq: word(24),
            crc: word(28),
        };
        let claimed = u64::from(header.meta_len) + u64::from(header.payload_len);
        if claimed > body_max as u64 {
            return Err(FrameError::TooLarge { claimed, limit: body_max });
        }
        Ok(header)
    }

    /// Bytes of meta and payload together.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.meta_len as usize + self.payload_len as usize
    }

    fn encode_without_crc(&self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&self.channel.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.session.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }
}

impl Frame {
    /// Header and meta part in one buffer; the payload follows them on the wire, unchanged.
    ///
    /// # Panics
    /// If meta and payload are together larger than [`BODY_SIZE_MAX`]: senders split before they frame.
    #[must_use]
    pub fn encode_head(&self) -> Bytes {
        assert!(self.body_len() <= BODY_SIZE_MAX, "senders split what does not fit a frame");
        let header = Header {
            channel: self.channel,
            meta_len: self.meta.len() as u32,
            payload_len: self.payload.len() as u32,
            session: self.session,
            seq: self.seq,
            crc: 0,
        };
        let start = header.encode_without_crc();
        let crc = checksum(&start, &self.meta, &self.payload);
        let mut head = BytesMut::with_capacity(HEADER_SIZE + self.meta.len());
        head.put_slice(&start);
        head.put_u32_le(crc);
        head.put_slice(&self.meta);
        head.freeze()
    }

    /// The whole frame as one buffer (copies the payload; the transport writes the parts instead).
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let head = self.encode_head();
        let mut whole = BytesMut::with_capacity(head.len() + self.payload.len());
        whole.put_slice(&head);
        whole.put_slice(&self.payload);
        whole.freeze()
    }

    /// The frame of `header` with the body that followed it; shares the body's buffer.
    ///
    /// # Errors
    /// [`FrameError::Checksum`] if the body is not what was sent, or not as long as the header says.
    pub fn decode(header: &Header, mut body: Bytes) -> Result<Self, FrameError> {
        if body.len() != header.body_len() {
            return Err(FrameError::Checksum);
        }
        let meta = body.split_to(header.meta_len as usize);
        if checksum(&header.encode_without_crc(), &meta, &body) != header.crc {
            return Err(FrameError::Checksum);
        }
        let Header { channel, session, seq, .. } = *header;
        Ok(Self { channel, session, seq, meta, payload: body })
    }

    /// Bytes of meta and payload together.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.meta.len() + self.payload.len()
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        HEADER_SIZE + self.body_len()
    }
}

fn checksum(start: &[u8; 28], meta: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(start), meta), payload)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Frame {
        Frame {
            channel: 3,
            session: 0x0102_0304_0506_0708,
            seq: 9,
            meta: Bytes::from_static(b"meta"),
            payload: Bytes::from_static(b"payload"),
        }
    }

    fn split(bytes: &Bytes) -> ([u8; HEADER_SIZE], Bytes) {
        let mut head = [0; HEADER_SIZE];
        head.copy_from_slice(&bytes[..HEADER_SIZE]);
        (head, bytes.slice(HEADER_SIZE..))
    }

    /// The golden vector of frame version 1: it may never change.
    #[test]
    fn the_layout_is_frozen() {
        let hex: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "4d5354590100030004000000070000000807060504030201090000009452f7c16d6574617061796c6f6164"
        );
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_before_its_body_is_read() {
        let (mut head, _) = split(&sample().encode());
        head[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = Header::decode(&head, BODY_SIZE_MAX);
        assert!(matches!(refused, Err(FrameError::TooLarge { claimed, .. }) if claimed > 1 << 32));
        head[4] = 2;
        assert_eq!(Header::decode(&head, BODY_SIZE_MAX), Err(FrameError::Version(2)));
        head[0] = b'H';
        assert_eq!(Header::decode(&head, BODY_SIZE_MAX), Err(FrameError::Magic));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(channel: u16, session: u64, seq: u32, meta: Vec<u8>, payload: Vec<u8>) {
            let frame = Frame { channel, session, seq, meta: meta.into(), payload: payload.into() };
            let (head, body) = split(&frame.encode());
            let header = Header::decode(&head, BODY_SIZE_MAX).unwrap();
            prop_assert_eq!(Frame::decode(&header, body).unwrap(), frame);
        }

        #[test]
        fn one_flipped_bit_is_noticed(at in 0usize..43, bit in 0u8..8) {
            let mut bytes = sample().encode().to_vec();
            bytes[at] ^= 1 << bit;
            let (head, body) = split(&Bytes::from(bytes));
            let read = Header::decode(&head, BODY_SIZE_MAX).and_then(|header| Frame::decode(&header, body));
            prop_assert!(read.is_err());
        }
    }
}
