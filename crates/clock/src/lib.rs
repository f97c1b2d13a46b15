//! Logical time: which event came before which, without asking what time it was.
//!
//! Events of processes that share no clock have an order all the same: *a happened before b* if both are of one process
//! and a was first, or a is the sending of a message and b its receipt, or there is a chain of such steps. Two events
//! without a chain between them are *concurrent*. Each module tells this order by other means, at another price:
//!
//! | module | a stamp is | tells | costs on the wire |
//! |---|---|---|---|
//! | [`scalar`] | one number | an order that never contradicts *happened before* | one number |
//! | [`vector`] | a number for each process | exactly *happened before* | one number for each, or what changed |
//! | [`multipart`] | a number for each replica | which updates a state has | one number for each replica |
//! | [`hybrid`] | a reading of the common time, and a small number | as `scalar`, and roughly when it was | two numbers |
//! | [`graph`] | the messages just before | exactly *happened before*, what is missing, what all have | one id for each leaf |
//!
//! [`sync`] keeps physical clocks together, with the features of its families.
//!
//! [`reserve`] keeps numbers from being used twice when a process restarts, [`timers`] fire on a reading of a clock that is
//! corrected meanwhile.
//!
//! All of it is plain data that its owner drives. Nothing here reads a clock, sends a message or knows of failures: who
//! is a member is said by [`Members`], what the time is by an argument.
//!
//! ```
//! use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId, ViewId};
//! use mainstay_clock::{Members, Relation, vector};
//!
//! let cluster = ClusterId::from_entropy(1);
//! let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
//! let [a, b, c] = ["a", "b", "c"].map(site);
//! let members = Members::new(ViewId { number: 1, nonce: 0 }, [a, b, c])?;
//! let clock = |own| vector::Clock::new(members.clone(), own, vector::Counting::Events);
//! let (mut at_a, mut at_b, mut at_c) = (clock(a)?, clock(b)?, clock(c)?);
//!
//! let asked = at_a.send();
//! at_b.receive(&asked)?;
//! let answered = at_b.send();
//! let meanwhile = at_c.send();
//!
//! assert_eq!(asked.relation(&answered)?, Relation::Before);
//! assert_eq!(answered.relation(&meanwhile)?, Relation::Concurrent);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "logical", feature = "graph"))]
mod counts;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fault;
#[cfg(feature = "graph")]
pub mod graph;
#[cfg(feature = "logical")]
pub mod hybrid;
mod members;
#[cfg(feature = "logical")]
pub mod multipart;
pub mod reserve;
#[cfg(feature = "logical")]
pub mod scalar;
#[cfg(any(
    feature = "averaging",
    feature = "agreement",
    feature = "synchroniser",
    feature = "probabilistic",
    feature = "interval",
    feature = "external"
))]
pub mod sync;
mod time;
pub mod timers;
#[cfg(feature = "logical")]
pub mod vector;

#[cfg(any(feature = "logical", feature = "graph"))]
pub use counts::{COUNT_MAX, Relation};
pub use members::{MEMBERS_MAX, Members, MembersError, NotAMember, Rank};
pub use time::Time;
