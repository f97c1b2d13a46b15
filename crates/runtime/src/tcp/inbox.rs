//! Bytes into frames.

use bytes::BytesMut;
use mainstay_base::frame::{BODY_SIZE_MAX, BODY_SIZE_MAX_EARLY, FrameError, HEADER_SIZE};
use mainstay_base::{Frame, Header};

/// Bytes of the buffer of one read, once the peer has shown that it speaks in frames.
const READ_BYTES: usize = 256 << 10;
/// Less room than this is not read into.
const READ_BYTES_MIN: usize = 16 << 10;
/// Before the first frame a stranger gets no more than this, or what a first frame needs.
const READ_BYTES_EARLY: usize = 4 << 10;

/// What has been read and not been cut into frames yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: BytesMut,
    /// Bytes of the frame whose beginning is in the buffer, if its header is.
    awaited: usize,
    greeted: bool,
}

impl Inbox {
    /// Whether no frame has come yet.
    pub(super) fn is_early(&self) -> bool {
        !self.greeted
    }

    /// Whether the bytes end where a frame ends.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The buffer, with room to read into.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let free = self.buffer.capacity() - self.buffer.len();
        let missing = self.awaited.saturating_sub(self.buffer.len());
        let (least, most) =
            if self.greeted { (READ_BYTES_MIN, READ_BYTES) } else { (1, READ_BYTES_EARLY) };
        if free < missing.max(least) {
            self.buffer.reserve(missing.max(most));
        }
        &mut self.buffer
    }

    /// Cuts all whole frames off the front. An error says that what follows them is not a frame.
    pub(super) fn take_frames(&mut self) -> (Vec<Frame>, Option<FrameError>) {
        let mut frames = Vec::new();
        loop {
            match self.take_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_SIZE>() else {
            self.awaited = HEADER_SIZE;
            return Ok(None);
        };
        let body_max = if self.greeted { BODY_SIZE_MAX } else { BODY_SIZE_MAX_EARLY };
        let header = Header::decode(head, body_max)?;
        self.awaited = HEADER_SIZE + header.body_len();
        if self.buffer.len() < self.awaited {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(self.awaited).freeze();
        let body = whole.split_off(HEADER_SIZE);
        let frame = Frame::decode(&header, body)?;
        self.greeted = true;
        Ok(Some(frame))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(seq: u32, size: usize) -> Frame {
        let meta = Bytes::from(vec![seq as u8; size % 7]);
        Frame { channel: 1, session: 2, seq, meta, payload: Bytes::from(vec![7; size]) }
    }

    fn feed(inbox: &mut Inbox, mut bytes: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let room = inbox.room();
            let size = bytes.len().min(room.capacity() - room.len());
            room.extend_from_slice(&bytes[..size]);
            bytes = &bytes[size..];
            let (frames, error) = inbox.take_frames();
            all.extend(frames);
            if error.is_some() {
                return (all, error);
            }
        }
        (all, None)
    }

    /// Checks that frames come out the same wherever the stream is cut in two, and byte by byte.
    #[test]
    fn a_cut_at_every_offset_changes_nothing() {
        let frames = [frame(0, 0), frame(1, 1), frame(2, 33), frame(3, 200)];
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for cut in 0..=stream.len() {
            let mut inbox = Inbox::default();
            let (mut seen, _) = feed(&mut inbox, &stream[..cut]);
            seen.extend(feed(&mut inbox, &stream[cut..]).0);
            assert_eq!(seen, frames);
            assert!(inbox.is_empty());
        }
        let mut inbox = Inbox::default();
        let seen: Vec<Frame> = stream.chunks(1).flat_map(|byte| feed(&mut inbox, byte).0).collect();
        assert_eq!(seen, frames);
    }

    /// Checks the sizes at the limits: 64 KiB for the first frame, 1 MiB afterwards, one byte more never.
    #[test]
    fn the_limit_rises_after_the_first_frame() {
        let largest = Frame { payload: vec![1; BODY_SIZE_MAX].into(), ..Frame::default() };
        let mut inbox = Inbox::default();
        let (frames, error) = feed(&mut inbox, &largest.encode());
        assert!(frames.is_empty() && matches!(error, Some(FrameError::TooLarge { .. })));

        let early = Frame { payload: vec![1; BODY_SIZE_MAX_EARLY].into(), ..Frame::default() };
        let mut inbox = Inbox::default();
        let mut stream = early.encode().to_vec();
        stream.extend_from_slice(&largest.encode());
        let mut beyond = Frame::default().encode().to_vec();
        beyond[12..16].copy_from_slice(&(BODY_SIZE_MAX as u32 + 1).to_le_bytes());
        stream.extend_from_slice(&beyond);
        let (frames, error) = feed(&mut inbox, &stream);
        assert_eq!(frames, [early, largest]);
        assert!(matches!(error, Some(FrameError::TooLarge { .. })));
    }

    /// Checks that a stranger who has said nothing sensible cannot make the buffer grow.
    #[test]
    fn a_stranger_gets_a_small_buffer() {
        let mut inbox = Inbox::default();
        assert!(inbox.room().capacity() < 2 * READ_BYTES_EARLY);
        let (frames, _) = feed(&mut inbox, &frame(0, 10).encode());
        assert_eq!(frames.len(), 1);
        assert!(inbox.room().capacity() >= READ_BYTES_MIN);
    }
}
