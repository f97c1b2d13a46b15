//! How far casts have got: a few numbers for each group, and none for each cast.
//!
//! Casts are numbered as they are put into the inbox of the group. The group reaches each level in that order, so one number
//! a level says which of them have reached it. A boot that dies leaves a gap: what it cast and had not seen reach a level has an
//! unknown fate, for ever.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_base::{Level, Order};
use mainstay_multicast::Durability;
use thiserror::Error;
use tokio::sync::Notify;

/// Where FIFO messages are counted, behind the levels of total order: they have but one, delivered.
const FIFO: usize = 4;
/// Levels, in the order of their numbers.
const LEVELS: [Level; 4] = [Level::Delivered, Level::Majority, Level::Safe, Level::Disk];
/// Deaths of boots that are told apart. Of earlier ones all casts are unknown.
const GAPS_MAX: usize = 64;

fn index(level: Level) -> usize {
    match level {
        Level::Delivered => 0,
        Level::Majority => 1,
        Level::Safe => 2,
        Level::Disk => 3,
    }
}

/// Whether messages of this order can reach the level in such a group.
pub(super) fn is_to_be_had(order: Order, level: Level, durability: Durability) -> bool {
    match order {
        Order::Fifo => level == Level::Delivered,
        Order::Total => level != Level::Disk || durability == Durability::Disk,
    }
}

/// Why it is not known that a message has reached a level.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReached {
    /// It was not cast: nobody keeps the state of the group at this node any more. To cast it elsewhere is safe.
    #[error("not cast: nobody keeps the state of the group at this node any more")]
    Left,
    /// It was not cast: the node ended before. To cast it elsewhere is safe.
    #[error("not cast: the node has ended")]
    Closed,
    /// The boot that cast it is dead, or the node has ended: it may have reached the level, may yet reach it, or be lost.
    #[error("nobody knows whether the message has reached the level, or will")]
    Unknown,
    /// The level is not to be had for this message. The caller's fault.
    #[error("level {0:?} is not to be had for this message")]
    Level(Level),
}

/// What is known of all casts of a group at this node.
#[derive(Debug)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    moved: Notify,
    durability: Durability,
}

#[derive(Default, Debug)]
struct Pages {
    /// All up to here, but for the gaps, have reached the level; the last one is of FIFO.
    reached: [u64; 5],
    /// All up to here are cast.
    cast: u64,
    /// Of each death: what had reached the levels, and what was cast.
    gaps: Vec<([u64; 5], u64)>,
    end: Option<NotReached>,
}

impl Pages {
    /// `None`: that is yet to come.
    fn look(&self, number: u64, order: Order, level: Level) -> Option<Result<(), NotReached>> {
        let at = if order == Order::Fifo { FIFO } else { index(level) };
        if self.gaps.iter().any(|(reached, cast)| (reached[at] + 1..=*cast).contains(&number)) {
            return Some(Err(NotReached::Unknown));
        }
        if number <= self.reached[at] {
            return Some(Ok(()));
        }
        let cast = number <= self.cast;
        self.end.map(|end| Err(if cast { NotReached::Unknown } else { end }))
    }
}

impl Book {
    pub(crate) fn new(durability: Durability) -> Self {
        Self { pages: Mutex::default(), moved: Notify::new(), durability }
    }

    fn open(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All up to this number are cast.
    pub(super) fn cast(&self, number: u64) {
        self.open().cast = number;
    }

    /// The cast with this number and all before it have reached a level.
    pub(super) fn reached(&self, level: Level, number: u64) {
        let mut pages = self.open();
        let reached = &mut pages.reached[index(level)];
        *reached = (*reached).max(number);
    }

    /// The FIFO cast with this number and all before it are delivered here.
    pub(super) fn delivered_fifo(&self, number: u64) {
        self.open().reached[FIFO] = number;
    }

    /// Wakes whoever waits; at the end of a turn in which something moved.
    pub(super) fn tell(&self) {
        self.moved.notify_waiters();
    }

    /// The boot that cast them is dead.
    pub(super) fn killed(&self) {
        let mut pages = self.open();
        let gap = (pages.reached, pages.cast);
        pages.gaps.push(gap);
        if pages.gaps.len() > GAPS_MAX {
            let (first, _) = pages.gaps.remove(0);
            pages.gaps[0].0 = first;
        }
        drop(pages);
        self.tell();
    }

    /// Nobody keeps the state here any more.
    pub(super) fn has_left(&self) -> bool {
        self.open().end == Some(NotReached::Left)
    }

    /// Nothing more is cast.
    pub(super) fn end(&self, why: NotReached) {
        self.open().end.get_or_insert(why);
        self.tell();
    }
}

/// A message that was cast, or is going to be: how far it has got.
#[derive(Clone)]
pub struct Receipt {
    number: u64,
    order: Order,
    book: Arc<Book>,
}

impl Receipt {
    pub(super) fn new(number: u64, order: Order, book: Arc<Book>) -> Self {
        Self { number, order, book }
    }

    /// Its number among the casts of this group at this node, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it has reached the level by now; `None`: not yet.
    #[must_use]
    pub fn has_reached(&self, level: Level) -> Option<Result<(), NotReached>> {
        if !is_to_be_had(self.order, level, self.book.durability) {
            return Some(Err(NotReached::Level(level)));
        }
        self.book.open().look(self.number, self.order, level)
    }

    /// Waits until it has reached the level. In a group that stands still that is until it goes on.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn reached(&self, level: Level) -> Result<(), NotReached> {
        loop {
            let moved = self.book.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(result) = self.has_reached(level) {
                return result;
            }
            moved.await;
        }
    }

    /// It is delivered at this node.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn delivered(&self) -> Result<(), NotReached> {
        self.reached(Level::Delivered).await
    }

    /// A majority of the configured nodes has received it, and it is delivered at this node.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn majority(&self) -> Result<(), NotReached> {
        self.reached(Level::Majority).await
    }

    /// All members of the view have received it, and it is delivered at this node.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn safe(&self) -> Result<(), NotReached> {
        self.reached(Level::Safe).await
    }

    /// A majority of the configured nodes has forced it to its log, and it is delivered at this node.
    ///
    /// # Errors
    /// [`NotReached`].
    pub async fn disk(&self) -> Result<(), NotReached> {
        self.reached(Level::Disk).await
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |level: &&Level| self.has_reached(**level) == Some(Ok(()));
        let reached: Vec<_> = LEVELS.iter().filter(has).collect();
        f.debug_struct("Receipt").field("number", &self.number).field("reached", &reached).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(book: &Book, number: u64, level: Level) -> Option<Result<(), NotReached>> {
        book.open().look(number, Order::Total, level)
    }

    /// What a dead boot had cast is unknown where it had not reached the level, and stays so whatever the next one reaches.
    #[test]
    fn a_dead_boot_leaves_a_gap() {
        let book = Book::new(Durability::Disk);
        book.cast(10);
        book.reached(Level::Delivered, 8);
        book.reached(Level::Disk, 5);
        book.killed();
        book.cast(12);
        book.reached(Level::Delivered, 12);
        assert_eq!(look(&book, 8, Level::Delivered), Some(Ok(())));
        assert_eq!(look(&book, 9, Level::Delivered), Some(Err(NotReached::Unknown)));
        assert_eq!(look(&book, 11, Level::Delivered), Some(Ok(())));
        assert_eq!(look(&book, 5, Level::Disk), Some(Ok(())));
        assert_eq!(look(&book, 6, Level::Disk), Some(Err(NotReached::Unknown)));
        assert_eq!(look(&book, 11, Level::Disk), None);
        (0..2 * GAPS_MAX).for_each(|_| book.killed());
        assert_eq!(look(&book, 9, Level::Delivered), Some(Err(NotReached::Unknown)));
        book.cast(13);
        book.reached(Level::Delivered, 13);
        assert_eq!(look(&book, 13, Level::Delivered), Some(Ok(())));
    }

    /// A FIFO cast is delivered when it is, and not when it is cast: a boot that dies in between leaves its fate unknown.
    #[test]
    fn fifo_is_counted_by_deliveries() {
        let book = Book::new(Durability::Memory);
        let fifo = |number| book.open().look(number, Order::Fifo, Level::Delivered);
        book.cast(3);
        book.delivered_fifo(2);
        assert_eq!((fifo(2), fifo(3)), (Some(Ok(())), None));
        book.killed();
        assert_eq!((fifo(2), fifo(3)), (Some(Ok(())), Some(Err(NotReached::Unknown))));
    }

    /// At the end, what was cast is unknown, and what was not is certainly not.
    #[test]
    fn the_end_tells_cast_from_not_cast() {
        let book = Book::new(Durability::Memory);
        book.cast(2);
        book.reached(Level::Majority, 1);
        book.end(NotReached::Closed);
        assert_eq!(look(&book, 1, Level::Majority), Some(Ok(())));
        assert_eq!(look(&book, 2, Level::Majority), Some(Err(NotReached::Unknown)));
        assert_eq!(look(&book, 3, Level::Majority), Some(Err(NotReached::Closed)));
    }
}
