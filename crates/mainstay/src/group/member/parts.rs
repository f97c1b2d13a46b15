//! A state in parts.

use std::collections::VecDeque;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mainstay_base::service::Chunks;
use mainstay_runtime::{caught, drop_beside};

use super::Given;

/// Bytes of a part.
const PART_BYTES: usize = 256 << 10;
/// To free more than this at once takes longer than a turn may (8 MiB).
const FREED_BYTES_MAX: usize = 8 << 20;
/// So many empty pieces in a row are none that a state is made of.
const EMPTY_MAX: usize = 1_024;

/// Pieces of a state. Whoever is the last to have a large one frees it on another thread.
#[derive(Clone, Default)]
pub(super) struct Pieces(Vec<Bytes>);

impl Pieces {
    pub(super) fn push(&mut self, piece: Bytes) {
        self.0.push(piece);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.0.iter().cloned()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if self.bytes() > FREED_BYTES_MAX {
            drop_beside(std::mem::take(&mut self.0));
        }
    }
}

/// A state in parts of a size that fits a turn; at least one, perhaps an empty one.
pub(super) struct Parts {
    ready: VecDeque<Bytes>,
    /// Where more comes from.
    source: Option<Box<dyn Chunks>>,
    /// Nothing was handed out yet.
    is_whole: bool,
    /// Bytes read so far, and who is to know when all are.
    read: usize,
    size: Arc<AtomicUsize>,
}

impl Parts {
    pub(super) fn of(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let (ready, size) = (VecDeque::new(), Arc::default());
        let mut parts = Self { ready, source: None, is_whole: true, read: 0, size };
        pieces.into_iter().for_each(|piece| parts.split(piece));
        parts
    }

    /// `size` is told how many bytes it has, when that is known.
    pub(super) fn given(state: Given, size: &Arc<AtomicUsize>) -> Self {
        match state {
            Given::Whole(state) => {
                size.store(state.len(), Ordering::Relaxed);
                Self::of([state])
            }
            Given::Chunks(source) => {
                let mut parts = Self::of([]);
                (parts.source, parts.size) = (Some(source), Arc::clone(size));
                parts
            }
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

    /// Reads on until there is a part, or the end. What the user wrote runs in here: a panic of it is an error.
    fn fill(&mut self) -> Result<(), String> {
        let mut empty = 0;
        while self.ready.is_empty()
            && let Some(source) = &mut self.source
        {
            match caught(|| source.next_chunk())?? {
                Some(chunk) => {
                    empty += 1;
                    if empty > EMPTY_MAX {
                        return Err("it has nothing but empty pieces".to_owned());
                    }
                    self.read += chunk.len();
                    self.split(chunk);
                }
                None => {
                    drop_beside(self.source.take());
                    self.size.store(self.read, Ordering::Relaxed);
                }
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

impl Drop for Parts {
    /// How long a source takes to free what it reads nobody knows.
    fn drop(&mut self) {
        if self.source.is_some()
            || self.ready.iter().map(Bytes::len).sum::<usize>() > FREED_BYTES_MAX
        {
            drop_beside((self.source.take(), std::mem::take(&mut self.ready)));
        }
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
    use std::sync::mpsc;
    use std::thread;

    use super::super::told;
    use super::*;

    /// A large state is freed on another thread, whoever has it: as pieces, as parts, or as a source that was not read.
    #[test]
    fn a_large_state_is_freed_elsewhere() {
        struct Source(Bytes);
        impl Chunks for Source {
            fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
                Ok(Some(self.0.clone()))
            }
        }
        let (to, freed) = mpsc::channel();
        let large = |count| told::bytes(count, &to);
        let here = thread::current().id();
        let is_elsewhere = || freed.recv().is_ok_and(|it| it != here);
        drop(Pieces::from(vec![large(FREED_BYTES_MAX + 1)]));
        assert!(is_elsewhere());
        drop(Parts::of([large(FREED_BYTES_MAX + 1)]));
        assert!(is_elsewhere());
        let source = Given::Chunks(Box::new(Source(large(1))));
        drop(Parts::given(source, &Arc::default()));
        assert!(is_elsewhere());
        drop(Pieces::from(vec![large(1)]));
        assert!(!is_elsewhere(), "a thread for a small one costs more than it saves");
    }

    struct Listed(Vec<Result<usize, String>>);

    impl Chunks for Listed {
        fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0)).transpose()?;
            Ok(next.map(|size| Bytes::from(vec![7; size])))
        }
    }

    fn given(pieces: Vec<Result<usize, String>>) -> (Parts, Arc<AtomicUsize>) {
        let size = Arc::default();
        (Parts::given(Given::Chunks(Box::new(Listed(pieces))), &size), size)
    }

    fn parts(pieces: &[usize]) -> Parts {
        given(pieces.iter().copied().map(Ok).collect()).0
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
        let broken = || given(vec![Ok(5), Err("torn".to_owned())]).0;
        assert_eq!(broken().next(), Err("torn".to_owned()));
        let mut other = broken();
        assert!(other.next_chunk().is_ok_and(|it| it.is_some()));
        assert!(other.next_chunk().is_err());
    }

    /// How large a state is is known when all of it was read; a panic of whoever writes it ends that state and nothing else.
    #[test]
    fn the_size_is_told_and_a_panic_is_an_error() {
        let (mut parts, size) = given(vec![Ok(PART_BYTES), Ok(7)]);
        while let Ok((_, false)) = parts.next() {
            assert_eq!(size.load(Ordering::Relaxed), 0);
        }
        assert_eq!(size.load(Ordering::Relaxed), PART_BYTES + 7);
        struct Panics;
        impl Chunks for Panics {
            fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
                panic!("as told")
            }
        }
        let mut parts = Parts::given(Given::Chunks(Box::new(Panics)), &size);
        assert_eq!(parts.next(), Err("as told".to_owned()));
        assert!(given(vec![Ok(0); 2_000]).0.next().is_err(), "it would never end");
    }
}
