//! Vector stamps: exactly *happened before* (Fidge 1988, Mattern 1989).
//!
//! A scalar says that b was *not* before a; it cannot say that a was before b. For that, a stamp has to tell what its
//! event knew of each process. V\[i\] is the number of events of process i in the past of the event. The steps: V\[own\] is
//! raised by one at each event; a message carries the vector of its sending; at the receipt each entry is raised to that
//! of the message, then V\[own\] by one. Then a → b exactly if V(a) < V(b), that is: no entry is greater, and one is less
//! (CLK-32). One way, entries only grow along a chain. The other way, V(b)\[p\] ≥ V(a)\[p\] for a's process p can only have
//! come from p, over messages sent at a or later.
//!
//! **Two ways to count** ([`Counting`]). With `Events` all events are told apart. With `Sends` only the sending of
//! messages counts and a receipt takes the greater entries, so entry i is the number of messages of process i that are
//! known: what causal delivery needs (Birman, Schiper and Stephenson 1991). Then the equivalence holds for sendings. A
//! message is next in causal order if it is the next one of its sender and its receiver has all that the sender had:
//! [`Clock::turn`].
//!
//! **Views.** Entries are indexed by rank in [`Members`], and those are sites, incarnation included. At a view change
//! ([`Clock::install`]) sites that stay keep their entries, those that left lose them, and those that came begin with 0. Stamps
//! of two views do not compare: both sides of a view change are told apart by the view and not by counters.
//!
//! **On the wire** is [`Packed`]: the whole array, or what has changed since the last stamp on the same channel (Singhal
//! and Kshemkalyani 1992). Theirs needs channels that lose nothing. Here a difference names its base by the sender's own
//! count, which is the same for no two sendings; if that is not the stamp that came last, the difference is refused
//! and the sender is asked for a whole one.

use std::fmt;

use mainstay_base::{SiteId, ViewId};
use thiserror::Error;

use crate::counts;
use crate::{COUNT_MAX, Members, NotAMember, Rank, Relation};

mod packed;

pub use packed::{Packed, Packer, UnpackError, Unpacker};

/// What an entry counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Counting {
    /// All events of a process.
    Events,
    /// The messages that it sent.
    Sends,
}

/// What the event knew, one count for each member of a view.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    view: ViewId,
    counts: Box<[u64]>,
}

impl Stamp {
    /// Of this view.
    #[must_use]
    pub fn view(&self) -> ViewId {
        self.view
    }

    /// By rank.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How its event stands to the one of `other`.
    ///
    /// # Errors
    /// [`OtherView`].
    pub fn relation(&self, other: &Self) -> Result<Relation, OtherView> {
        self.check_view(other)?;
        Ok(counts::relation(&self.counts, &other.counts))
    }

    /// Makes it the least stamp that neither exceeds: the past of both.
    ///
    /// # Errors
    /// [`OtherView`]; it is as before.
    pub fn merge(&mut self, other: &Self) -> Result<(), OtherView> {
        self.check_view(other)?;
        counts::merge(&mut self.counts, &other.counts);
        Ok(())
    }

    fn check_view(&self, other: &Self) -> Result<(), OtherView> {
        let is_same = self.view == other.view && self.counts.len() == other.counts.len();
        is_same.then_some(()).ok_or(OtherView { ours: self.view, theirs: other.view })
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.counts, self.view)
    }
}

/// Two stamps of different views have no relation. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("a stamp of {theirs:?} where those of {ours:?} are")]
pub struct OtherView {
    /// What was compared with it.
    pub ours: ViewId,
    /// What it is of.
    pub theirs: ViewId,
}

/// Why a received stamp is refused. The clock is as before, and the message counts as not received.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The sender was in another view. It may be taken after the view change, or was overtaken by one.
    #[error(transparent)]
    OtherView(#[from] OtherView),
    /// It knows more events of this process than there were: the sender is at fault, or this process forgot some at a
    /// restart under its old incarnation.
    #[error("a stamp knows {theirs} events of this process, which had {ours}")]
    Unheard {
        /// How many there were.
        ours: u64,
        /// How many the stamp says.
        theirs: u64,
    },
    /// A count is above [`COUNT_MAX`], which no counting reaches. The sender is at fault.
    #[error("the count of {0:?} is more than any that counting reaches")]
    TooLarge(Rank),
}

/// Where a message stands in causal order at its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Turn {
    /// It may be delivered.
    Next,
    /// Others have to be delivered before it; the first of them is by this member.
    Early(Rank),
    /// It was delivered, or never will be.
    Old,
}

/// The vector clock of one process in one view.
///
/// ```
/// use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId, ViewId};
/// use mainstay_clock::Members;
/// use mainstay_clock::vector::{Clock, Counting, Turn};
///
/// let cluster = ClusterId::from_entropy(1);
/// let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
/// let [a, b, c] = ["a", "b", "c"].map(site);
/// let members = Members::new(ViewId { number: 1, nonce: 0 }, [a, b, c])?;
/// let clock = |own| Clock::new(members.clone(), own, Counting::Sends);
/// let (mut at_a, mut at_b, mut at_c) = (clock(a)?, clock(b)?, clock(c)?);
///
/// let question = at_a.send();
/// at_b.receive(&question)?;
/// let answer = at_b.send();
/// // The answer is at c before the question.
/// assert_eq!(at_c.turn(b, &answer)?, Turn::Early(members.rank(a)?));
/// assert_eq!(at_c.turn(a, &question)?, Turn::Next);
/// at_c.receive(&question)?;
/// assert_eq!(at_c.turn(b, &answer)?, Turn::Next);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock {
    members: Members,
    own: Rank,
    counting: Counting,
    now: Stamp,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl Clock {
    /// The clock of `own` before its first event in the view.
    ///
    /// # Errors
    /// [`NotAMember`]: `own` is none of the members.
    pub fn new(members: Members, own: SiteId, counting: Counting) -> Result<Self, NotAMember> {
        let rank = members.rank(own)?;
        let now = Stamp { view: members.view(), counts: vec![0; members.len()].into() };
        Ok(Self {
            members,
            own: rank,
            counting,
            now,
            #[cfg(feature = "test-util")]
            fault: None,
        })
    }

    /// Breaks it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(self, fault: Option<crate::fault::Fault>) -> Self {
        Self { fault, ..self }
    }

    /// An event that is neither a sending nor a receipt. It counts with [`Counting::Events`].
    pub fn event(&mut self) {
        if self.counting == Counting::Events {
            self.count();
        }
    }

    /// Stamps the sending of a message.
    pub fn send(&mut self) -> Stamp {
        self.count();
        self.now.clone()
    }

    /// Takes in the stamp of a message, once it is delivered; of a copy, too.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive(&mut self, stamp: &Stamp) -> Result<(), ReceiveError> {
        self.check(stamp)?;
        if mainstay_base::fault!(self, VectorOverwrites) {
            let own = self.now.counts[self.own.index()];
            self.now.counts.copy_from_slice(&stamp.counts);
            self.now.counts[self.own.index()] = own;
        } else {
            counts::merge(&mut self.now.counts, &stamp.counts);
        }
        if !mainstay_base::fault!(self, VectorSkipsReceipts) {
            self.event();
        }
        Ok(())
    }

    /// Whether a message of `from` may be delivered now, in causal order. Counts have to be those of
    /// [`Counting::Sends`].
    ///
    /// # Errors
    /// [`TurnError`].
    pub fn turn(&self, from: SiteId, stamp: &Stamp) -> Result<Turn, TurnError> {
        let from = self.members.rank(from)?.index();
        self.check(stamp)?;
        if stamp.counts[from] <= self.now.counts[from] {
            return Ok(Turn::Old);
        }
        let lacks = |rank: &usize| {
            let had = stamp.counts[*rank] - u64::from(*rank == from);
            had > self.now.counts[*rank]
        };
        let lacking = (0..self.members.len()).find(lacks);
        Ok(lacking.map_or(Turn::Next, |rank| Turn::Early(Rank::of(rank))))
    }

    /// Goes over to another view: who stays keeps its entry, who left loses it, who came begins with 0.
    ///
    /// # Errors
    /// [`NotAMember`]: this process is not in it. The clock is as before.
    pub fn install(&mut self, members: Members) -> Result<(), NotAMember> {
        let own = members.rank(self.members.sites()[self.own.index()])?;
        let kept = |(rank, site): (usize, &SiteId)| {
            let former = if mainstay_base::fault!(self, VectorKeepsLeavers) {
                Some(rank).filter(|rank| *rank < self.now.counts.len())
            } else {
                self.members.rank(*site).ok().map(Rank::index)
            };
            former.map_or(0, |former| self.now.counts[former])
        };
        let counts = members.sites().iter().enumerate().map(kept).collect();
        self.now = Stamp { view: members.view(), counts };
        (self.members, self.own) = (members, own);
        Ok(())
    }

    /// The stamp of the last event.
    #[must_use]
    pub fn now(&self) -> &Stamp {
        &self.now
    }

    /// Who has an entry.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    fn count(&mut self) {
        let own = &mut self.now.counts[self.own.index()];
        *own = own.checked_add(1).expect("fewer than 2^63 events of a process");
    }

    fn check(&self, stamp: &Stamp) -> Result<(), ReceiveError> {
        self.now.check_view(stamp)?;
        let (ours, theirs) = (self.now.counts[self.own.index()], stamp.counts[self.own.index()]);
        if theirs > ours {
            return Err(ReceiveError::Unheard { ours, theirs });
        }
        match stamp.counts.iter().position(|count| *count > COUNT_MAX) {
            Some(rank) => Err(ReceiveError::TooLarge(Rank::of(rank))),
            None => Ok(()),
        }
    }
}

/// Why a message has no place in causal order. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TurnError {
    /// Its sender is no member.
    #[error(transparent)]
    NotAMember(#[from] NotAMember),
    /// Its stamp would be refused.
    #[error(transparent)]
    Refused(#[from] ReceiveError),
}
