//! The rack: services of any types on one node, turned together.
//!
//! Inputs go to the service that they are for. At the end of a turn each service that was touched, or is due, is turned; what it
//! asks of another one goes there at once, and what it tells goes to those that listen, in the same turn. That repeats until
//! nobody has anything to say, at most [`ROUNDS_MAX`] times; what is left comes in the next turn. A service that nobody
//! touches costs nothing.

pub mod beside;
mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use crate::codec::DecodeError;
use crate::service::{
    Address, Ask, Figures, Io, Kind, MESSAGE_BYTES_MAX, PeerChange, RECORD_BYTES_MAX, Service, Told,
};
use crate::{Instance, Instant, View, Work};

pub use beside::{Placement, Proxy};
pub use mounted::{
    BadRecord, Done, Effect, Given, LogEntry, Mounted, Offered, Reader, Tenant, Turned, fold,
};

/// How often services may answer each other in one turn.
pub const ROUNDS_MAX: usize = 8;

/// Why a service cannot be mounted. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountError {
    /// There is one of this kind and instance.
    #[error("{of} is mounted already as {instance:?}")]
    Taken {
        /// What was to be mounted.
        of: Kind,
        /// Under which name.
        instance: Instance,
    },
    /// It needs a kind of service of which there is none.
    #[error("{of} needs {needs}, and none is mounted")]
    Missing {
        /// What was to be mounted.
        of: Kind,
        /// What it lacks.
        needs: Kind,
    },
}

/// The rule that a service broke, for which its host has stopped it. Its node goes on, and so do the other services. Nothing of the turn in
/// which it broke the rule was sent or written; what is in its log stays there. Its readers were told nothing of that turn, unless it lives
/// beside its node and the first record of its run has a wrong number.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breach {
    /// It has a message to send that is larger than [`MESSAGE_BYTES_MAX`].
    #[error("it has a message of {bytes} bytes to send, and {MESSAGE_BYTES_MAX} is the most")]
    Message {
        /// Of both parts.
        bytes: usize,
    },
    /// It has a record to write that is larger than [`RECORD_BYTES_MAX`].
    #[error("it has a record of {bytes} bytes to write, and {RECORD_BYTES_MAX} is the most")]
    Record {
        /// Of both parts.
        bytes: usize,
    },
    /// The record that it writes does not follow its last one: its log would have a gap, or a number twice.
    #[error("it writes record {} behind record {}", io.0, last.0)]
    Number {
        /// The record's.
        io: Io,
        /// The last one's.
        last: Io,
    },
    /// The log has a record that is none of it. It was not begun.
    #[error("record {} of its log is not one of this service: {why}", io.0)]
    Unreadable {
        /// The record's number.
        io: Io,
        /// What is wrong with it.
        why: DecodeError,
    },
    /// It panicked when it [folded](Service::fold) its log. It was not begun.
    #[error("it panicked over what its log has")]
    Fold,
    /// A service that it needs was stopped before it could begin. It was not begun.
    #[error("it needs {0}, which was stopped")]
    Needs(Kind),
}

/// Whether there is a place for a service of type `S` beside those that are mounted.
///
/// # Errors
/// [`MountError`].
pub fn check_place<'a, S: Service, I: Iterator<Item = &'a Address>>(
    of: Address,
    mounted: impl Fn() -> I,
) -> Result<(), MountError> {
    if mounted().any(|it| *it == of) {
        return Err(MountError::Taken { of: Kind::of::<S>(), instance: of.instance });
    }
    let is_missing = |kind: &&Kind| mounted().all(|it| it.channel != kind.channel);
    match S::NEEDS.iter().find(is_missing) {
        Some(needs) => Err(MountError::Missing { of: Kind::of::<S>(), needs: *needs }),
        None => Ok(()),
    }
}

/// What could not be handed to anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RackStats {
    /// Inputs for an instance that is not mounted.
    pub unknown: u64,
    /// Messages that were none of the service that they were for.
    pub malformed: u64,
    /// Asks of a service that is not mounted, or of another kind.
    pub unasked: u64,
}

/// Services on one node. The owner feeds it, turns it, and carries out the [`Effect`]s.
#[derive(Default)]
pub struct Rack {
    tenants: BTreeMap<Address, Box<dyn Tenant>>,
    /// Who hears what a service tells.
    listeners: BTreeMap<Address, Vec<Address>>,
    /// Who has taken something in since its last turn.
    touched: BTreeSet<Address>,
    /// Who was told to come to its end.
    closing: BTreeSet<Address>,
    /// Who has left.
    left: Vec<Left>,
    deadlines: Deadlines,
    work: Work,
    stats: RackStats,
}

/// A service that has left the rack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Which.
    pub of: Address,
    /// The oldest record that it still needed.
    pub keeps: Io,
    /// The rule that it broke; `None`: it was dismounted, or fell beside its node.
    pub breach: Option<Breach>,
}

/// When each service is due, by time.
#[derive(Default)]
struct Deadlines {
    at: BTreeMap<Address, Instant>,
    /// The same the other way round.
    due: BTreeSet<(Instant, Address)>,
}

impl Deadlines {
    fn set(&mut self, of: Address, deadline: Option<Instant>) {
        let before = match deadline {
            Some(at) => self.at.insert(of, at),
            None => self.at.remove(&of),
        };
        if let Some(before) = before {
            self.due.remove(&(before, of));
        }
        self.due.extend(deadline.map(|at| (at, of)));
    }

    fn first(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn until(&self, now: Instant) -> impl Iterator<Item = Address> + '_ {
        self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, of)| *of)
    }
}

impl Rack {
    /// Nothing on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a service its place. It is turned for the first time with the next turn.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount<S: Service>(&mut self, service: Mounted<S>) -> Result<Address, MountError> {
        self.seat::<S>(Box::new(service))
    }

    /// The same for a service `S` that lives [beside] the node.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount_beside<S: Service>(&mut self, proxy: Proxy) -> Result<Address, MountError> {
        self.seat::<S>(Box::new(proxy))
    }

    fn seat<S: Service>(&mut self, tenant: Box<dyn Tenant>) -> Result<Address, MountError> {
        let of = tenant.address();
        check_place::<S, _>(of, || self.tenants.keys())?;
        self.tenants.insert(of, tenant);
        self.touched.insert(of);
        Ok(of)
    }

    /// Whether nobody is on it.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Who has left the rack since the last call.
    pub fn take_left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// A service has broken a rule of its host: it is turned no more, and leaves with the next turn.
    pub fn stop(&mut self, of: Address, breach: Breach) {
        if let Some(tenant) = self.tenants.get_mut(&of) {
            tenant.stop(breach);
            self.touched.insert(of);
        }
    }

    /// A service comes to its end: it is told so, turned once more, and gone; one beside the node when its actor has done that. False
    /// if there is none.
    pub fn dismount(&mut self, now: Instant, of: Address) -> bool {
        let is_there = self.give(now, of, Given::Close);
        if is_there {
            self.closing.insert(of);
        }
        is_there
    }

    /// From here on `to` is told what `of` tells, in the same turn.
    pub fn listen(&mut self, of: Address, to: Address) {
        let listeners = self.listeners.entry(of).or_default();
        if !listeners.contains(&to) {
            listeners.push(to);
        }
    }

    /// Takes an input in for one instance. False, and counted: it is not mounted, or the bytes are no message of it.
    pub fn give(&mut self, now: Instant, to: Address, given: Given) -> bool {
        let Some(tenant) = self.tenants.get_mut(&to) else {
            self.stats.unknown += 1;
            return false;
        };
        let taken = tenant.give(now, given);
        if taken {
            self.touched.insert(to);
        } else {
            self.stats.malformed += 1;
        }
        taken
    }

    /// The change of a peer, for one instance: whether it is up there depends on what the other end has mounted.
    pub fn peer(&mut self, now: Instant, to: Address, change: PeerChange) -> bool {
        self.give(now, to, Given::Peer(change))
    }

    /// A view of the sites, for all.
    pub fn view(&mut self, now: Instant, view: &Arc<View>) {
        for (of, tenant) in &mut self.tenants {
            tenant.give(now, Given::View(Arc::clone(view)));
            self.touched.insert(*of);
        }
    }

    /// Whether the disk is short, for all.
    pub fn disk_short(&mut self, now: Instant, short: bool) {
        for (of, tenant) in &mut self.tenants {
            tenant.give(now, Given::DiskShort(short));
            self.touched.insert(*of);
        }
    }

    /// Commands for a service. False, and counted: there is none of that kind and instance.
    pub fn ask(&mut self, now: Instant, ask: Ask) -> bool {
        let to = ask.to;
        let asked = self.tenants.get_mut(&to).is_some_and(|tenant| tenant.asked(now, ask));
        if asked {
            self.touched.insert(to);
        } else {
            self.stats.unasked += 1;
        }
        asked
    }

    /// Turns whom something has touched, and who is due. Effects of one service are in its order.
    pub fn turn(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.touched.extend(self.deadlines.until(now));
        let mut again = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let round = std::mem::take(&mut self.touched);
            if round.is_empty() {
                break;
            }
            let mut told = Vec::new();
            for of in round {
                told.extend(self.turn_one(now, of, &mut effects, &mut again));
            }
            for (to, told) in told {
                if let Some(tenant) = self.tenants.get_mut(&to) {
                    tenant.told(now, told);
                    self.touched.insert(to);
                }
            }
        }
        self.touched.extend(again);
        effects
    }

    fn turn_one(
        &mut self,
        now: Instant,
        of: Address,
        effects: &mut Vec<Effect>,
        again: &mut BTreeSet<Address>,
    ) -> Vec<(Address, Told)> {
        let Some(tenant) = self.tenants.get_mut(&of) else { return Vec::new() };
        let listeners = self.listeners.get(&of).map_or(&[][..], Vec::as_slice);
        let mut turned = Turned::default();
        tenant.turn(now, listeners.len(), &mut turned);
        self.work.add(tenant.take_work());
        self.deadlines.set(of, tenant.timeout());
        effects.append(&mut turned.effects);
        if turned.again {
            again.insert(of);
        }
        if turned.touched {
            self.touched.insert(of);
        }
        let told = listeners.iter().copied().zip(turned.told).collect();
        self.stats.malformed += turned.malformed;
        let is_over = tenant.is_over(self.closing.contains(&of));
        let (keeps, breach) = (tenant.keeps(), tenant.breach());
        for ask in turned.asks {
            self.ask(now, ask);
        }
        if is_over {
            self.left.push(Left { of, keeps, breach });
            self.closing.remove(&of);
            self.tenants.remove(&of);
            self.touched.remove(&of);
            again.remove(&of);
            self.deadlines.set(of, None);
        }
        told
    }

    /// When the next turn is due; the past if there is more to do at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.touched.is_empty() { self.deadlines.first() } else { Some(Instant::ZERO) }
    }

    /// What all did since the last call.
    pub fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.work)
    }

    /// The oldest record that each instance still needs.
    pub fn keeps(&self) -> impl Iterator<Item = (Address, Io)> + '_ {
        self.tenants.iter().map(|(of, tenant)| (*of, tenant.keeps()))
    }

    /// Who is mounted, each with the hash of what must be equal at both ends.
    pub fn mounted(&self) -> impl Iterator<Item = (Address, u128)> + '_ {
        self.tenants.iter().map(|(of, tenant)| (*of, tenant.agreed()))
    }

    /// What those who are mounted say of themselves; without those who say nothing.
    pub fn figures(&self) -> impl Iterator<Item = Figures> + '_ {
        self.tenants.iter().filter_map(|(of, tenant)| {
            let (kind, figures) = tenant.figures();
            (!figures.is_empty()).then_some(Figures { of: *of, kind, figures })
        })
    }

    /// A service, if there is one of this type and instance.
    #[must_use]
    pub fn get<S: Service>(&self, instance: Instance) -> Option<&Mounted<S>> {
        let of = Address { channel: S::CHANNEL, instance };
        self.tenants.get(&of)?.as_any().downcast_ref()
    }

    /// The same, to subscribe to it.
    pub fn get_mut<S: Service>(&mut self, instance: Instance) -> Option<&mut Mounted<S>> {
        let of = Address { channel: S::CHANNEL, instance };
        self.tenants.get_mut(&of)?.as_any_mut().downcast_mut()
    }

    /// What could not be handed to anybody so far.
    #[must_use]
    pub fn stats(&self) -> RackStats {
        self.stats
    }

    /// Panics if a service is not as it should be.
    pub fn check_invariants(&self) {
        self.tenants.values().for_each(|tenant| tenant.check_invariants());
    }
}
