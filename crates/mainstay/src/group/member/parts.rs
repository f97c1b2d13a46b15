//! A state in parts.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_base::service::Chunks;

use super::Given;

/// Bytes of a part.
const PART_BYTES: usize = 256 << 10;

/// A state in parts of a size that fits a turn; at least one, perhaps an empty one.
pub(super) struct Parts {
    ready: VecDeque<Bytes>,
    /// Where more comes from.
    source: Option<Box<dyn Chunks>>,
    /// Nothing was handed out yet.
    is_whole: bool,
}

impl Parts {
    pub(super) fn of(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let mut parts = Self { ready: VecDeque::new(), source: None, is_whole: true };
        pieces.into_iter().for_each(|piece| parts.split(piece));
        parts
    }

    pub(super) fn given(state: Given) -> Self {
        match state {
            Given::Whole(state) => Self::of([state]),
            Given::Chunks(source) => Self { source: Some(source), ..Self::of([]) },
        }
    }

    fn split(&mut self, mut piece: Bytes) {
        while piece.len() > PART_BYTES {
            self.ready.push_back(piece.split_to(PART_BYTES));
        }
        if !piece.is_empty() {
            self.ready.push_back(piece);
        }
    }

    /// Reads on until there is a part, or the end.
    fn fill(&mut self) -> Result<(), String> {
        while self.ready.is_empty()
            && let Some(source) = &mut self.source
        {
            match source.next_chunk()? {
                Some(chunk) => self.split(chunk),
                None => self.source = None,
            }
        }
        Ok(())
    }

    /// The next part, and whether it is the last one. Not called after that.
    pub(super) fn next(&mut self) -> Result<(Bytes, bool), String> {
        self.fill()?;
        let part = self.ready.pop_front().unwrap_or_default();
        self.is_whole = false;
        self.fill()?;
        Ok((part, self.ready.is_empty()))
    }
}

impl Chunks for Parts {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        self.fill()?;
        let is_empty = std::mem::take(&mut self.is_whole) && self.ready.is_empty();
        Ok(self.ready.pop_front().or_else(|| is_empty.then(Bytes::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<Result<usize, String>>);

    impl Chunks for Pieces {
        fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0)).transpose()?;
            Ok(next.map(|size| Bytes::from(vec![7; size])))
        }
    }

    fn parts(pieces: &[usize]) -> Parts {
        Parts::given(Given::Chunks(Box::new(Pieces(pieces.iter().copied().map(Ok).collect()))))
    }

    /// Whatever the pieces, the parts fit a turn, the last one says so, and none is missing. Even of nothing there is one.
    #[test]
    fn a_state_is_cut_into_parts() {
        for pieces in [
            &[][..],
            &[0],
            &[1],
            &[0, 3, 0],
            &[PART_BYTES],
            &[PART_BYTES + 1, 5],
            &[3 * PART_BYTES, 0],
        ] {
            let total: usize = pieces.iter().sum();
            let (mut one, mut sizes) = (parts(pieces), Vec::new());
            loop {
                let (part, last) = one.next().unwrap_or_else(|why| panic!("{why}"));
                sizes.push(part.len());
                if last {
                    break;
                }
            }
            assert!(
                sizes.iter().sum::<usize>() == total && sizes.iter().all(|it| *it <= PART_BYTES)
            );
            assert!(sizes.len() == 1 || sizes.iter().all(|it| *it > 0), "{sizes:?}");
            let (mut other, mut again) = (parts(pieces), Vec::new());
            while let Ok(Some(part)) = other.next_chunk() {
                again.push(part.len());
            }
            assert_eq!(again, sizes);
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        let broken = || {
            let pieces = vec![Ok(5), Err("torn".to_owned())];
            Parts::given(Given::Chunks(Box::new(Pieces(pieces))))
        };
        assert_eq!(broken().next(), Err("torn".to_owned()));
        let mut other = broken();
        assert!(other.next_chunk().is_ok_and(|it| it.is_some()));
        assert!(other.next_chunk().is_err());
    }
}
