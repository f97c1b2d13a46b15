//! The sessions: duplicate filter and saved answers, as replicated state.
//!
//! Every change follows from an ordered message alone. The table is persistent, so a snapshot takes it in O(1), and its
//! hash is a sum over its parts, so that it is kept up to date in O(1).

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::ops::Bound;

use bytes::Bytes;
use mainstay_base::{Fingerprinter, Position};
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::envelope::Session;

/// What is kept of one session; also what a snapshot says of it, answers behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) session: Session,
    /// The position of the latest message of the session.
    pub(crate) last_use: Position,
    /// The client has the answers up to here.
    pub(crate) acked: u64,
}

/// What is kept of a command, for those who ask again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Executed, with this answer.
    Done(Bytes),
    /// Executed, but the answer was larger than is saved.
    NotSaved,
    /// Passed over as poison: no other copy is executed either.
    Skipped,
}

#[derive(Clone)]
struct Entry {
    head: Head,
    /// By number, all above `head.acked`; each with its share of the sum.
    answers: BTreeMap<u64, (Answer, u128)>,
}

/// What to do with a command of a session.
pub(crate) enum Admission {
    /// New: execute it and [`Sessions::save`] the answer.
    Execute,
    /// Executed before, with this answer.
    Duplicate(Answer),
    /// The session is not open.
    Expired,
    /// The client said that it has this answer.
    Acknowledged,
    /// Too far above what the client has acknowledged.
    Beyond,
}

/// The table of open sessions.
pub(crate) struct Sessions {
    open: RedBlackTreeMapSync<u128, Entry>,
    /// The order of eviction; follows from `open`. One message touches one session, so positions are unique.
    by_use: BTreeMap<Position, u128>,
    saved_bytes: usize,
    sum: u128,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            open: RedBlackTreeMapSync::new_sync(),
            by_use: BTreeMap::new(),
            saved_bytes: 0,
            sum: 0,
        }
    }

    /// Opens a session, or finds it open.
    pub(crate) fn open(&mut self, at: Position, id: u128) -> Session {
        if let Some(entry) = self.open.get(&id) {
            let head = entry.head;
            self.change(Head { last_use: at, ..head });
            return head.session;
        }
        let session = Session { id, opened: at };
        self.insert(Head { session, last_use: at, acked: 0 });
        session
    }

    /// Closes a session; false if it is not open.
    pub(crate) fn close(&mut self, session: Session) -> bool {
        let known = self.get(session).is_some();
        if known {
            self.remove(session.id);
        }
        known
    }

    /// Takes a command in: forgets the answers that it acknowledges and says what to do with it.
    pub(crate) fn admit(
        &mut self,
        config: &Config,
        at: Position,
        session: Session,
        number: u64,
        acked_upto: u64,
    ) -> Admission {
        let Some(entry) = self.get(session) else { return Admission::Expired };
        let acked = entry.head.acked.max(acked_upto);
        let duplicate = entry.answers.get(&number).map(|(answer, _)| answer.clone());
        let nothing_to_forget =
            entry.answers.first_key_value().is_none_or(|(first, _)| *first > acked);
        let head = Head { last_use: at, acked, ..entry.head };
        self.change(head);
        if !nothing_to_forget {
            self.forget(session.id, acked);
        }
        match duplicate {
            _ if number <= acked => Admission::Acknowledged,
            Some(answer) => Admission::Duplicate(answer),
            None if number - acked > config.answers_max => Admission::Beyond,
            None => Admission::Execute,
        }
    }

    /// Saves the answer of a command that was admitted as new.
    pub(crate) fn save(&mut self, config: &Config, id: u128, number: u64, reply: &[u8]) {
        let kept = reply.len() <= config.answer_bytes_max;
        let answer =
            if kept { Answer::Done(Bytes::copy_from_slice(reply)) } else { Answer::NotSaved };
        self.put(id, number, answer);
    }

    /// Evicts the sessions not used for longest while there are too many or they hold too much; answers how many.
    ///
    /// The session used last stays: one alone is within the bounds.
    pub(crate) fn evict(&mut self, config: &Config) -> u64 {
        let mut count = 0;
        while self.by_use.len() > 1
            && (self.by_use.len() > config.sessions_max
                || self.saved_bytes > config.saved_bytes_max)
        {
            if let Some((_, id)) = self.by_use.pop_first() {
                self.remove(id);
                count += 1;
            }
        }
        count
    }

    /// Inserts a session that is not open.
    pub(crate) fn insert(&mut self, head: Head) {
        self.sum = self.sum.wrapping_add(head_hash(&head));
        self.by_use.insert(head.last_use, head.session.id);
        self.open.insert_mut(head.session.id, Entry { head, answers: BTreeMap::new() });
    }

    /// Puts an answer to an open session; false if there is one of this number.
    pub(crate) fn put(&mut self, id: u128, number: u64, answer: Answer) -> bool {
        let Some(entry) = self.open.get_mut(&id) else { return false };
        if entry.answers.contains_key(&number) {
            return false;
        }
        let hash = answer_hash(entry.head.session, number, &answer);
        self.sum = self.sum.wrapping_add(hash);
        self.saved_bytes += size(&answer);
        entry.answers.insert(number, (answer, hash));
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.by_use.len()
    }

    /// Whether a session was used at `at`, or has this id.
    pub(crate) fn is_taken(&self, at: Position, id: u128) -> bool {
        self.by_use.contains_key(&at) || self.open.contains_key(&id)
    }

    pub(crate) fn saved_bytes(&self) -> usize {
        self.saved_bytes
    }

    /// The hash of the table.
    pub(crate) fn sum(&self) -> u128 {
        self.sum
    }

    /// The table as it is now, in O(1).
    pub(crate) fn frozen(&self) -> Frozen {
        Frozen { open: self.open.clone(), after: Bound::Unbounded }
    }

    fn get(&self, session: Session) -> Option<&Entry> {
        self.open.get(&session.id).filter(|entry| entry.head.session == session)
    }

    /// Replaces the head of an open session.
    fn change(&mut self, head: Head) {
        let entry = self.open.get_mut(&head.session.id).expect("only an open session is changed");
        self.sum = self.sum.wrapping_sub(head_hash(&entry.head)).wrapping_add(head_hash(&head));
        self.by_use.remove(&entry.head.last_use);
        self.by_use.insert(head.last_use, head.session.id);
        entry.head = head;
    }

    /// Drops the answers up to a number.
    fn forget(&mut self, id: u128, upto: u64) {
        let Some(entry) = self.open.get_mut(&id) else { return };
        while let Some(first) = entry.answers.first_entry().filter(|first| *first.key() <= upto) {
            let (answer, hash) = first.remove();
            self.sum = self.sum.wrapping_sub(hash);
            self.saved_bytes -= size(&answer);
        }
    }

    fn remove(&mut self, id: u128) {
        self.forget(id, u64::MAX);
        if let Some(entry) = self.open.get(&id) {
            self.sum = self.sum.wrapping_sub(head_hash(&entry.head));
            self.by_use.remove(&entry.head.last_use);
            self.open.remove_mut(&id);
        }
    }
}

/// A table of sessions at one position, walked in the order of ids.
pub(crate) struct Frozen {
    open: RedBlackTreeMapSync<u128, Entry>,
    after: Bound<u128>,
}

impl Frozen {
    /// The next session and its answers by ascending number.
    pub(crate) fn next(&mut self) -> Option<(Head, Vec<(u64, Answer)>)> {
        let range = (self.after, Bound::Unbounded);
        let (id, entry) = self.open.range(range).next()?;
        self.after = Bound::Excluded(*id);
        let answers = entry.answers.iter().map(|(number, (answer, _))| (*number, answer.clone()));
        Some((entry.head, answers.collect()))
    }
}

pub(crate) fn size(answer: &Answer) -> usize {
    match answer {
        Answer::Done(bytes) => bytes.len(),
        Answer::NotSaved | Answer::Skipped => 0,
    }
}

fn head_hash(head: &Head) -> u128 {
    let mut hasher = Fingerprinter::new();
    hasher.write(b"session");
    hasher.write_u128(head.session.id);
    hasher.write_u64(head.session.opened.0);
    hasher.write_u64(head.last_use.0);
    hasher.write_u64(head.acked);
    hasher.finish128()
}

fn answer_hash(session: Session, number: u64, answer: &Answer) -> u128 {
    let mut hasher = Fingerprinter::new();
    hasher.write(b"answer");
    hasher.write_u128(session.id);
    hasher.write_u64(session.opened.0);
    hasher.write_u64(number);
    match answer {
        Answer::Done(bytes) => {
            hasher.write_u8(1);
            hasher.write(bytes);
        }
        Answer::NotSaved => {}
        Answer::Skipped => hasher.write_u8(2),
    }
    hasher.finish128()
}
