//! Answers on their way to a client: bytes in pieces, so that large values are shared and not copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A piece of so many bytes is shared, a smaller one copied (1 KiB): of 1,024 keys at most 1 MiB is copied.
pub(crate) const SHARED_BYTES_MIN: usize = 1 << 10;
/// Bytes of a block into which small pieces are copied, at most (16 KiB).
const BLOCK_BYTES: usize = 16 << 10;
/// Bytes that one vectored write is offered (512 KiB), or one piece: a write takes well under a millisecond.
const WRITE_BYTES: usize = 512 << 10;

/// An answer as RESP.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Answer {
    /// How many bytes it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether it is no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece, copied if they are in several.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut joined = BytesMut::with_capacity(self.len());
        joined.extend_from_slice(&self.first);
        self.rest.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }
}

impl From<Bytes> for Answer {
    fn from(whole: Bytes) -> Self {
        Self { first: whole, rest: Vec::new() }
    }
}

impl FromIterator<Bytes> for Answer {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut pieces = pieces.into_iter();
        Self { first: pieces.next().unwrap_or_default(), rest: pieces.collect() }
    }
}

/// What is to be written to the socket, as a [`Buf`] for vectored writes.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    /// Small pieces behind the others.
    tail: BytesMut,
    /// Of `pieces` and `tail`.
    len: usize,
}

impl Output {
    pub(crate) fn push(&mut self, answer: Answer) {
        self.len += answer.len();
        for piece in std::iter::once(answer.first).chain(answer.rest) {
            if piece.len() >= SHARED_BYTES_MIN {
                self.end_block();
                self.pieces.push_back(piece);
            } else {
                if self.tail.len() + piece.len() > BLOCK_BYTES {
                    self.end_block();
                }
                self.tail.extend_from_slice(&piece);
            }
        }
    }

    fn end_block(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail, |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let (mut count, mut bytes) = (0, 0);
        let pieces = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        for (place, piece) in into.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            if count > 0 && bytes + piece.len() > WRITE_BYTES {
                break;
            }
            *place = IoSlice::new(piece);
            (count, bytes) = (count + 1, bytes + piece.len());
        }
        count
    }

    /// # Panics
    /// If there are fewer bytes.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "no more is written than there is");
        self.len -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let size = piece.len().min(count);
            piece.advance(size);
            count -= size;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces come out in order however they are written; large ones are not copied, and one write takes a bounded part.
    #[test]
    fn pieces_come_out_in_order_and_large_ones_uncopied() {
        let sizes = [1, 5_000, 20, 0, 4_096, 700_000, 3, 4_095, 20_000, 16_000, 7];
        let pieces = || sizes.iter().zip(0..).map(|(size, at)| Bytes::from(vec![at; *size]));
        let wanted: Vec<u8> = pieces().flatten().collect();
        for step in [1_000, 100_000, usize::MAX] {
            let mut output = Output::default();
            let large = Bytes::from(vec![9; 100_000]);
            output.push(pieces().collect());
            output.push(large.clone().into());
            assert_eq!(output.remaining(), wanted.len() + large.len());
            let (mut got, mut uncopied) = (Vec::new(), false);
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = output.chunks_vectored(&mut slices);
                assert!(count > 0);
                let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                assert!(count == 1 || offered <= WRITE_BYTES);
                uncopied |= slices[..count].iter().any(|slice| slice.as_ptr() == large.as_ptr());
                let taken: Vec<u8> =
                    slices[..count].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
                assert_eq!(taken.first(), output.chunk().first());
                output.advance(taken.len());
                got.extend(taken);
            }
            assert!(uncopied);
            assert_eq!(got, [&wanted[..], &large].concat());
        }
    }
}
