//! The context graph of Psync (Peterson, Buchholz and Schlichting 1989): messages, each with those just before it.
//!
//! A conversation of a few processes. When one sends a message, what it has received so far is the message's *context*: the
//! sender may have thought of all of it. The graph holds the messages as nodes and has an edge from each message to its
//! immediate predecessors. There is a path from a to b exactly if a happened before b (CLK-35).
//!
//! **Attaching.** A message names the *leaves* of its sender's graph at the sending: the messages that nothing follows yet.
//! That is enough, since everything else is behind them. Of each participant only the newest message can be a leaf, so
//! there are never more than one for each. Who receives a message attaches it if it has all that the message names; else
//! it holds the message, and says what is missing and who must have it: the sender of the message that names it (MC-44). So
//! nobody ever has a message without its past (MC-42), over channels that lose, repeat and reorder.
//!
//! **Reachability.** Each node keeps how many messages of each participant are in its past. That is a vector stamp which
//! never went over the wire: it is computed when the node is attached, from those of its predecessors. "Is there a path?"
//! is then one comparison.
//!
//! **Stability.** A message is stable when each participant but its sender has sent one that follows it: then all have it
//! (MC-43). For each participant the newest message tells what it has, and what is in the past of the newest messages of
//! all others is stable: for each sender the messages up to a number, the least of the others. When a message is attached,
//! only the numbers of those are counted again for whom its sender had the least.
//!
//! **Waves.** The depth of a message is 1 and the greatest depth of its predecessors. Messages of one depth are
//! concurrent, at most one is of each participant, and every participant has the same depths. So the order by depth, and
//! in a wave by sender, is a total order that follows causes. A wave is complete, so that nothing can come into it any
//! more, as soon as one of its messages is stable: whatever comes later follows that one, and is deeper (MC-45).
//!
//! **Forgetting.** What is stable is not asked for again, but it may still be *named*: by its own sender, which may have
//! received nothing since. So a message is forgotten when it is stable, its sender has sent another one behind it, and it
//! was taken by the user. Hence the memory is that of the unstable part, and one message for each participant.
//!
//! **Nulls.** Who has nothing to say keeps all others' messages from becoming stable. So there are messages that say nothing
//! but "I have these" ([`Graph::acknowledge`]). A null is due when a message of another one that is no null does not have
//! an own one behind it. Nulls are not acknowledged, so a conversation falls silent when everything is stable.
//!
//! **Bounds.** A process says no more while [`Config::window`] of its own messages that are no nulls are not forgotten (wrong:
//! to count nulls, too: when all windows are full nobody could say any more that he has the others' messages). How long can a
//! chain become? Let g be the oldest message of p that is not stable. Each null of p behind g has a message of another one
//! first behind it, say of q. Before q attached g none of these could be stable at q, so they were at most a window; those that
//! q sent after that become stable only by messages that follow g, too. So there are at most two windows of each participant.
//! A chain that would be longer is not right, or this process does not take what is attached: what comes then is held.
//! And as others have what is stable, a number that is further ahead cannot be right, and is refused. Hence no more is held
//! than attached.
//!
//! **Leaving.** A participant that fails sends nothing, so nothing becomes stable until it is *masked out*. All survivors
//! must do that with the same number of its last message: the greatest that any of them has. To find it each is *wedged*
//! first: it attaches nothing more of the one who failed, and says what it has. Up to the agreed number its
//! messages still count, are missing and wait to be attached; behind it they are refused (wrong: to ignore at once
//! whatever comes of it, since what one survivor had seen others would never get). A wave waits for those as well.
//!
//! **Coming back.** A participant that restarts is another incarnation at the same rank and counts on behind its last
//! number. First all others mask it in, then it takes over the graph of one of them, then it sends. Messages carry the
//! incarnation, so none of its former life passes for a new one. Until its first message is there nothing more
//! becomes stable and nothing is forgotten: what has followers here may be a leaf in the graph that it took over. A first
//! message that does not follow all that was stable when it was masked in is refused, as it would come into
//! waves that are gone.

use std::collections::VecDeque;

use mainstay_base::{Incarnation, SiteId};
use thiserror::Error;

use crate::{Members, NotAMember, Rank};

mod attach;
mod hold;
mod links;
mod mask;
mod order;
mod seat;

pub use hold::Missing;
pub use links::{Id, Links};
pub use mask::{MaskInError, MaskOutError};
pub use order::Wave;

use hold::Hold;
use seat::Seat;

/// Bounds and settings of a graph; those of all participants have to be equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Most messages of one participant, nulls aside, that are not forgotten; at least 2. A full window refuses the next
    /// message of the own process. With nulls, two windows for each participant are attached at most of each, and as many
    /// are held. Default 256.
    pub window: usize,
    /// Whether [`Graph::poll_wave`] is used: then a message is not forgotten before its wave was taken. Default false.
    pub waves: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { window: 256, waves: false }
    }
}

impl Config {
    /// With another window.
    #[must_use]
    pub fn window(self, window: usize) -> Self {
        Self { window: window.max(2), ..self }
    }

    /// For total order by waves.
    #[must_use]
    pub fn with_waves(self) -> Self {
        Self { waves: true, ..self }
    }
}

/// A message was not sent. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The own messages of a whole window are not forgotten yet. A retry is safe, when the others have acknowledged them and
    /// what was attached has been taken.
    #[error("{0} own messages are not known to be everywhere")]
    Full(usize),
    /// This process was masked out.
    #[error("this process is masked out")]
    MaskedOut,
}

/// Why a message is refused. The graph is as before.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Ranks that nobody has, no ascending ranks, a message that names itself or one behind it, a number out of range. The
    /// sender is at fault.
    #[error("the links of a message are malformed")]
    Malformed,
    /// Its number is further ahead than a chain can be long. The sender is at fault, or has masked this process out.
    #[error("message {number} of {rank:?} is too far ahead of {newest}")]
    Ahead {
        /// Of this participant.
        rank: Rank,
        /// Its number.
        number: u64,
        /// The newest that is attached.
        newest: u64,
    },
    /// It is of a participant that was masked out, and behind its last message; or it names such a message.
    #[error("{0:?} is masked out")]
    MaskedOut(Rank),
    /// It is of another incarnation than the one that sends messages with its number: of a former life, or of one that is
    /// not masked in yet.
    #[error("a message of incarnation {theirs:?} of {rank:?}, where {ours:?} sends")]
    Incarnation {
        /// Of this participant.
        rank: Rank,
        /// Who sends it.
        ours: Incarnation,
        /// Who it says.
        theirs: Incarnation,
    },
    /// It names a message that its sender must have known not to be a leaf. The sender is at fault.
    #[error("a message names {0:?}, which is no leaf for its sender")]
    NotALeaf(Id),
    /// It does not follow the message before it of its own sender. The sender is at fault.
    #[error("a message does not follow {0:?} of its own sender")]
    Unordered(Id),
    /// The first message of a participant that came back does not follow what was stable when it did. The participant
    /// has to take over a newer graph.
    #[error("a message of {0:?} does not follow what is stable")]
    Behind(Rank),
}

/// What became of a message that was received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Received {
    /// It is attached, and with it so many, itself included: those that were held for it.
    Attached(usize),
    /// It waits: [`Graph::missing`] says for what; if for nothing, then for room.
    Held,
    /// It is there already, or was.
    Duplicate,
}

/// How large a graph is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Messages that are attached and not forgotten.
    pub attached: usize,
    /// Of these, those that are not stable.
    pub unstable: usize,
    /// Messages that wait for others.
    pub held: usize,
    /// Messages that were held and turned out to be wrong, ever.
    pub refused: u64,
}

/// The context graph at one participant; messages carry a `T`.
///
/// ```
/// use mainstay_base::{ClusterId, Incarnation, NodeId, SiteId, ViewId};
/// use mainstay_clock::Members;
/// use mainstay_clock::graph::{Config, Graph, Received};
///
/// let cluster = ClusterId::from_entropy(1);
/// let site = |name| SiteId { node: NodeId::new(cluster, name), incarnation: Incarnation(1) };
/// let [a, b, c] = ["a", "b", "c"].map(site);
/// let members = Members::new(ViewId { number: 1, nonce: 0 }, [a, b, c])?;
/// let graph = |own| Graph::new(Config::default(), &members, own);
/// let (mut at_a, mut at_b, mut at_c) = (graph(a)?, graph(b)?, graph(c)?);
///
/// let question = at_a.send("who is there?")?;
/// at_b.receive(question.clone(), "who is there?")?;
/// let answer = at_b.send("I am")?;
/// // The question was lost on its way to c: the answer waits, and its sender is asked.
/// assert_eq!(at_c.receive(answer.clone(), "I am")?, Received::Held);
/// let missing = at_c.missing().next().expect("something is missing");
/// assert_eq!((missing.id, missing.ask), (question.id(), answer.sender));
/// let (links, body) = at_b.message(missing.id).expect("who follows it has it");
/// assert_eq!(at_c.receive(links, body)?, Received::Attached(2));
/// assert_eq!(at_c.poll_attached(), Some(question.id()));
/// assert_eq!(at_c.precedes(question.id(), answer.id()), Some(true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph<T> {
    config: Config,
    own: Rank,
    seats: Vec<Seat<T>>,
    hold: Hold<T>,
    attached: VecDeque<Id>,
    /// Whose message was taken last.
    polled: Option<Rank>,
    /// The depth of the next wave.
    depth: u64,
    refused: u64,
    #[cfg(feature = "test-util")]
    fault: Option<crate::fault::Fault>,
}

impl<T> Graph<T> {
    /// An empty graph of these members, at `own`.
    ///
    /// # Errors
    /// [`NotAMember`].
    pub fn new(config: Config, members: &Members, own: SiteId) -> Result<Self, NotAMember> {
        let own = members.rank(own)?;
        let count = members.len();
        let seat = |site: &SiteId| Seat::new(site.incarnation, count);
        Ok(Self {
            config: config.window(config.window),
            own,
            seats: members.sites().iter().map(seat).collect(),
            hold: Hold::default(),
            attached: VecDeque::new(),
            polled: None,
            depth: 1,
            refused: 0,
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

    /// The graph with which a participant that comes back begins: that of another one, which has masked it in. What
    /// that one had taken counts as taken.
    #[must_use]
    pub fn taken_over(&self, own: Rank) -> Self
    where
        T: Clone,
    {
        assert!(own.index() < self.seats.len(), "a participant has a rank");
        Self { own, hold: Hold::default(), ..self.clone() }
    }

    /// Attaches a message of the own process to all leaves. The answer and the body are to be sent to the others.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&mut self, body: T) -> Result<Links, SendError> {
        let seat = &self.seats[self.own.index()];
        if seat.is_masked() {
            return Err(SendError::MaskedOut);
        }
        if seat.said >= self.config.window || seat.chain.len() >= self.chain_max() {
            return Err(SendError::Full(seat.said));
        }
        Ok(self.attach_own(false, body))
    }

    /// As [`send`](Self::send), but a null, if one is due: a message of another participant has no own one behind it. To be
    /// called when there has been nothing else to send for a while.
    pub fn acknowledge(&mut self, body: T) -> Option<Links> {
        let seat = &self.seats[self.own.index()];
        let mut others = self.seats.iter().zip(&seat.known);
        let is_due = others.any(|(other, known)| other.newest_said > *known);
        let may = !seat.is_masked() && seat.chain.len() < self.chain_max();
        (is_due && may).then(|| self.attach_own(true, body))
    }

    /// Takes a message of another process, or of the own one in a former life, in any order and any number of times.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive(&mut self, mut links: Links, body: T) -> Result<Received, ReceiveError> {
        let id = links.id();
        if !links.is_well_formed(self.seats.len()) {
            return Err(ReceiveError::Malformed);
        }
        if id.number <= self.seats[id.rank.index()].newest() || self.hold.has(id) {
            return Ok(Received::Duplicate);
        }
        self.check_sender(&links)?;
        let newest = |id: &Id| self.seats[id.rank.index()].newest();
        if mainstay_base::fault!(self, GraphAttachesEarly) && id.number == newest(&id) + 1 {
            links.before.retain(|before| before.number <= newest(before));
        }
        let is_lacking = |before: &&Id| before.number > newest(before);
        let lacking: Vec<Id> = links.before.iter().filter(is_lacking).copied().collect();
        if lacking.is_empty() && self.has_room(id.rank) {
            let node = self.node(&links, body)?;
            let before = self.attached.len();
            let ready = self.attach(id, node);
            self.attach_held(ready);
            return Ok(Received::Attached(self.attached.len() - before));
        }
        self.hold.put(links, body, &lacking);
        Ok(Received::Held)
    }

    /// What has to be asked for, and whom, in order of ids. To be asked again until it has come.
    pub fn missing(&self) -> impl Iterator<Item = Missing> + '_ {
        let none = mainstay_base::fault!(self, GraphForgetsMissing);
        self.hold.missing().filter(move |_| !none)
    }

    /// The messages that nothing follows yet, in order of ids.
    pub fn leaves(&self) -> impl Iterator<Item = Id> + '_ {
        let leaf = |(rank, seat): (usize, &Seat<T>)| {
            seat.leaf.then(|| Id { rank: Rank::of(rank), number: seat.newest() })
        };
        self.seats.iter().enumerate().filter_map(leaf)
    }

    /// A message with its links: for its user, and for whoever asks for it. `None` if it is not attached or forgotten.
    #[must_use]
    pub fn message(&self, id: Id) -> Option<(Links, &T)> {
        let seat = self.seats.get(id.rank.index())?;
        let node = seat.node(id.number)?;
        let links = Links {
            sender: id.rank,
            incarnation: seat.incarnation_of(id.number),
            number: id.number,
            null: node.null,
            before: node.before.to_vec(),
        };
        Some((links, &node.body))
    }

    /// Whether there is a path from `one` to `other`: one happened before the other. `None` if `other` is not attached or
    /// forgotten.
    #[must_use]
    pub fn precedes(&self, one: Id, other: Id) -> Option<bool> {
        let node = self.seats.get(other.rank.index())?.node(other.number)?;
        if mainstay_base::fault!(self, GraphOneStep) {
            return Some(node.before.contains(&one));
        }
        Some(node.past.get(one.rank.index()).is_some_and(|count| *count >= one.number))
    }

    /// How many messages are on the longest path to it, itself included. `None` if it is not attached or forgotten.
    #[must_use]
    pub fn depth(&self, id: Id) -> Option<u64> {
        Some(self.seats.get(id.rank.index())?.node(id.number)?.depth)
    }

    /// Whether all participants are known to have it; also if it is forgotten.
    #[must_use]
    pub fn is_stable(&self, id: Id) -> bool {
        self.seats.get(id.rank.index()).is_some_and(|seat| id.number <= seat.stable)
    }

    /// The number of the newest message of a participant that is attached; 0: none.
    #[must_use]
    pub fn newest(&self, rank: Rank) -> u64 {
        self.seats.get(rank.index()).map_or(0, Seat::newest)
    }

    /// How large it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let unstable = |seat: &Seat<T>| (seat.newest() - seat.stable.max(seat.forgotten)) as usize;
        Stats {
            attached: self.seats.iter().map(|seat| seat.chain.len()).sum(),
            unstable: self.seats.iter().map(unstable).sum(),
            held: self.hold.len(),
            refused: self.refused,
        }
    }

    /// Whether the next message of a participant may be attached now.
    fn has_room(&self, rank: Rank) -> bool {
        let seat = &self.seats[rank.index()];
        !seat.wedged && seat.chain.len() < self.chain_max()
    }

    /// How many messages of one participant may be attached and not forgotten.
    fn chain_max(&self) -> usize {
        2 * self.config.window * self.seats.len()
    }

    /// Panics if relations between the fields do not hold.
    pub fn check_invariants(&self) {
        for seat in &self.seats {
            seat.check_invariants(self.config.waves, self.chain_max());
        }
        assert!(self.hold.len() <= self.seats.len() * self.chain_max(), "the hold is bounded");
        for one in self.leaves() {
            for other in self.leaves() {
                assert_ne!(self.precedes(one, other), Some(true), "leaves are concurrent");
            }
        }
    }
}
