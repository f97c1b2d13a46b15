//! The messages of one sender in one lane, without holes.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::config::MESSAGE_OVERHEAD;

/// Payloads with consecutive sequence numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stream {
    /// The sequence number of the first payload that is still here.
    first: u64,
    items: VecDeque<Bytes>,
    /// What they count in a budget.
    bytes: usize,
}

impl Stream {
    /// An empty stream that goes on behind `last`.
    pub(crate) fn after(last: u64) -> Self {
        Self { first: last.saturating_add(1), items: VecDeque::new(), bytes: 0 }
    }

    /// The last sequence number that was put in.
    pub(crate) fn received(&self) -> u64 {
        self.first - 1 + self.items.len() as u64
    }

    /// The last sequence number before the first payload that is still here.
    pub(crate) fn gone(&self) -> u64 {
        self.first - 1
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, payload: Bytes) {
        self.bytes += payload.len() + MESSAGE_OVERHEAD;
        self.items.push_back(payload);
    }

    /// Puts in what a frame brought: `lens` payloads cut from `payload`. Those already here are skipped. False if they
    /// do not join on to what is here.
    pub(crate) fn extend(&mut self, first: u64, lens: &[u32], mut payload: Bytes) -> bool {
        let next = self.received() + 1;
        let Some(known) = next.checked_sub(first) else { return false };
        if lens.len() == 1 && known == 0 {
            self.push(payload);
            return true;
        }
        self.items.reserve(lens.len());
        for (index, len) in lens.iter().enumerate() {
            let one = payload.split_to((*len as usize).min(payload.len()));
            if index as u64 >= known {
                self.push(one);
            }
        }
        true
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Bytes> {
        self.items.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    /// The payloads with numbers from `first` to `last`, as far as they are here.
    pub(crate) fn range(&self, first: u64, last: u64) -> impl Iterator<Item = &Bytes> {
        let len = self.items.len();
        let index = |sequence: u64| {
            usize::try_from(sequence.saturating_sub(self.first)).unwrap_or(len).min(len)
        };
        let (from, to) = (index(first), index(last.saturating_add(1)));
        self.items.range(from..to.max(from))
    }

    /// Forgets all up to `last`; answers what they counted.
    pub(crate) fn trim(&mut self, last: u64) -> usize {
        let before = self.bytes;
        let count = last.saturating_add(1).saturating_sub(self.first).min(self.items.len() as u64);
        for payload in self.items.drain(..count as usize) {
            self.bytes -= payload.len() + MESSAGE_OVERHEAD;
        }
        self.first += count;
        before - self.bytes
    }

    /// Takes away all behind `last`.
    pub(crate) fn split_after(&mut self, last: u64) -> VecDeque<Bytes> {
        let keep = last.saturating_add(1).saturating_sub(self.first).min(self.items.len() as u64);
        let tail = self.items.split_off(keep as usize);
        self.bytes -= tail.iter().map(|payload| payload.len() + MESSAGE_OVERHEAD).sum::<usize>();
        tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_no_holes() {
        let mut stream = Stream::after(4);
        assert!(!stream.extend(6, &[1], Bytes::from_static(b"x")));
        assert!(stream.extend(5, &[1, 2], Bytes::from_static(b"abb")));
        assert!(stream.extend(5, &[1, 2, 1], Bytes::from_static(b"abbc")));
        assert_eq!((stream.received(), stream.bytes()), (7, 4 + 3 * MESSAGE_OVERHEAD));
        assert_eq!(stream.get(6).map(|it| &it[..]), Some(&b"bb"[..]));
        assert_eq!(stream.range(6, 9).count(), 2);
        assert_eq!(stream.trim(5), 1 + MESSAGE_OVERHEAD);
        assert_eq!(stream.get(5), None);
        assert_eq!(stream.split_after(6), [Bytes::from_static(b"c")]);
        assert_eq!((stream.received(), stream.bytes()), (6, 2 + MESSAGE_OVERHEAD));
    }
}
