//! Frames into few buffers, and those into one vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mainstay_base::Frame;

/// A payload from this size on is written from where it is; a smaller one is copied next to its head.
const LARGE_BYTES: usize = 16 << 10;
/// What is gathered at a time, so that a full queue does not hold up the thread.
const GATHER_BYTES: usize = 1 << 20;

/// What is being written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    scratch: BytesMut,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes frames off `queue` and answers how many.
    pub(super) fn gather(&mut self, queue: &mut VecDeque<Frame>) -> u64 {
        let mut count = 0;
        while self.bytes < GATHER_BYTES {
            let Some(frame) = queue.pop_front() else { break };
            self.bytes += frame.wire_len();
            count += 1;
            self.scratch.put_slice(&frame.encode_head());
            if frame.payload.len() < LARGE_BYTES {
                self.scratch.put_slice(&frame.payload);
            } else {
                self.cut();
                self.chunks.push_back(frame.payload);
            }
        }
        self.cut();
        count
    }

    fn cut(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
        }
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "no more is written than there is");
        self.bytes -= count;
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.len().min(self.chunks.len());
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that gathering writes the same bytes as frame by frame, whatever is written at a time, and copies no large
    /// payload.
    #[test]
    fn what_is_gathered_is_the_stream() {
        let sizes = [0, 1, LARGE_BYTES - 1, LARGE_BYTES, 5, 3 * LARGE_BYTES];
        let frames: Vec<Frame> = sizes
            .iter()
            .map(|&size| Frame { payload: vec![size as u8; size].into(), ..Frame::default() })
            .collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in [1, 7, 1000, usize::MAX] {
            let mut outbox = Outbox::default();
            assert_eq!(outbox.gather(&mut frames.clone().into()), frames.len() as u64);
            assert!(outbox.chunks.iter().any(|chunk| chunk.as_ptr() == frames[3].payload.as_ptr()));
            assert_eq!(outbox.chunks.len(), 4);
            let mut written = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = outbox.chunks_vectored(&mut slices);
                let bytes: Vec<u8> =
                    slices[..filled].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                outbox.advance(bytes.len());
                written.extend(bytes);
            }
            assert_eq!(written, stream);
        }
    }
}
