//! The state of the group: which jobs are open, and who has which. It is a function of the messages in their total order alone.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::SiteId;
use serde::{Deserialize, Serialize};

use crate::Planted;

/// Most jobs that a pool knows, done ones included. Further ones are not taken.
pub const JOBS_MAX: usize = 100_000;

/// Something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its number: a job that is submitted again is the same one.
    pub id: u64,
    /// What it is about.
    pub input: u64,
    /// How long it takes, in milliseconds.
    pub millis: u64,
}

impl Job {
    /// What comes of it.
    #[must_use]
    pub fn result(&self) -> u64 {
        (1..=self.input).fold(self.id, |sum, number| sum.wrapping_mul(31).wrapping_add(number))
    }
}

/// What the members tell each other, in total order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// A client wants this done.
    Submit(Job),
    /// The sender leads this view from here on, and its members are these.
    Begin {
        /// The number of the view.
        view: u64,
        /// Its members.
        members: Vec<SiteId>,
    },
    /// The leader of this view hands out a job.
    Assign {
        /// The number of the view.
        view: u64,
        /// Which job.
        job: u64,
        /// To whom.
        to: SiteId,
    },
    /// The store has the effect of a job.
    Done(u64),
}

/// An open job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Open {
    job: Job,
    holder: Option<SiteId>,
}

/// All jobs. Views are no part of what it is computed from: a member that recovers from its log is told the messages again, and
/// not the views between them. So a leader says by a message that its view begins.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Pool {
    view: u64,
    leader: Option<SiteId>,
    open: BTreeMap<u64, Open>,
    done: BTreeSet<u64>,
}

impl Pool {
    /// The next message.
    pub fn apply(&mut self, sender: SiteId, message: &Message, planted: Option<Planted>) {
        match message {
            Message::Submit(job) => {
                let is_known = self.open.contains_key(&job.id) || self.done.contains(&job.id);
                if !is_known && self.open.len() + self.done.len() < JOBS_MAX {
                    self.open.insert(job.id, Open { job: *job, holder: None });
                }
            }
            Message::Begin { view, members } if *view > self.view => {
                self.view = *view;
                self.leader = Some(sender);
                if planted != Some(Planted::Forgetful) {
                    for open in self.open.values_mut() {
                        open.holder = open.holder.filter(|holder| members.contains(holder));
                    }
                }
            }
            Message::Assign { view, job, to }
                if *view == self.view && self.leader == Some(sender) =>
            {
                if let Some(open) = self.open.get_mut(job) {
                    open.holder.get_or_insert(*to);
                }
            }
            Message::Done(job) => {
                if self.open.remove(job).is_some() {
                    self.done.insert(*job);
                }
            }
            // Of a leader that another one has taken over from.
            Message::Begin { .. } | Message::Assign { .. } => {}
        }
    }

    /// The last view that has begun.
    #[must_use]
    pub fn view(&self) -> u64 {
        self.view
    }

    /// The jobs of a member.
    pub fn of(&self, holder: SiteId) -> impl Iterator<Item = Job> + '_ {
        let its = move |open: &&Open| open.holder == Some(holder);
        self.open.values().filter(its).map(|open| open.job)
    }

    /// The jobs that nobody has.
    pub fn free(&self) -> impl Iterator<Item = Job> + '_ {
        self.open.values().filter(|open| open.holder.is_none()).map(|open| open.job)
    }

    /// Whether a job is to be done yet.
    #[must_use]
    pub fn is_open(&self, job: u64) -> bool {
        self.open.contains_key(&job)
    }

    /// Whether a member has this job.
    #[must_use]
    pub fn has(&self, holder: SiteId, job: u64) -> bool {
        self.open.get(&job).is_some_and(|open| open.holder == Some(holder))
    }
}
