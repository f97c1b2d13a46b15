//! Frames out of the bytes of a client's connection.

use bytes::BytesMut;
use mainstay_base::frame::{BODY_SIZE_MAX, BODY_SIZE_MAX_EARLY, FrameError, HEADER_SIZE};
use mainstay_base::{Frame, Header};

/// Room made for one read (16 KiB).
const READ_BYTES: usize = 16 << 10;

/// What has been read and not been cut into frames yet. It grows with what comes, never with what a header claims.
pub(crate) struct Frames {
    buffer: BytesMut,
    body_max: usize,
}

impl Frames {
    /// Of a connection on which nothing has come yet.
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), body_max: BODY_SIZE_MAX_EARLY }
    }

    /// Whether the bytes end where a frame ends.
    #[cfg(feature = "node")]
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The buffer, with room to read into.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// The next whole frame. An error says that what comes is not a frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEADER_SIZE>() else { return Ok(None) };
        let header = Header::decode(head, self.body_max)?;
        let whole = HEADER_SIZE + header.body_len();
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(whole).freeze();
        let body = whole.split_off(HEADER_SIZE);
        let frame = Frame::decode(&header, body)?;
        self.body_max = BODY_SIZE_MAX;
        Ok(Some(frame))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Frames come out whole and in order however the bytes are cut; a large one only behind the first.
    #[test]
    fn frames_come_whole_and_in_order() {
        let frame = |size: usize| Frame { payload: Bytes::from(vec![7; size]), ..Frame::default() };
        let sent = [frame(0), frame(1), frame(BODY_SIZE_MAX_EARLY + 1), frame(3)];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.encode().to_vec()).collect();
        for step in [1, 31, 4_096, bytes.len()] {
            let mut frames = Frames::new();
            let mut got = Vec::new();
            for part in bytes.chunks(step) {
                frames.room().extend_from_slice(part);
                while let Some(frame) = frames.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, sent);
            assert!(frames.is_empty());
        }
        let mut frames = Frames::new();
        frames.room().extend_from_slice(&sent[2].encode());
        assert!(matches!(frames.next(), Err(FrameError::TooLarge { .. })));
    }
}
