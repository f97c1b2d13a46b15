//! What is known of one participant.

use std::collections::VecDeque;

use mainstay_base::Incarnation;

use super::Id;

/// An attached message.
#[derive(Clone, Debug)]
pub(super) struct Node<T> {
    pub(super) before: Box<[Id]>,
    /// By rank how many messages are in its past.
    pub(super) past: Box<[u64]>,
    pub(super) depth: u64,
    pub(super) null: bool,
    pub(super) body: T,
}

/// One participant: its messages are a chain, as each follows the one before it.
///
/// `forgotten <= waved, taken, stable <= newest`.
#[derive(Clone, Debug)]
pub(super) struct Seat<T> {
    /// From which number on which incarnation sends, the oldest first; never empty.
    eras: VecDeque<(u64, Incarnation)>,
    /// The messages behind `forgotten`.
    pub(super) chain: VecDeque<Node<T>>,
    pub(super) forgotten: u64,
    /// How many in the chain are no nulls.
    pub(super) said: usize,
    /// The number of the newest one that is no null.
    pub(super) newest_said: u64,
    /// Up to here all others have its messages.
    pub(super) stable: u64,
    /// Up to here the user has taken its messages.
    pub(super) taken: u64,
    /// Up to here its messages are in waves that were taken.
    pub(super) waved: u64,
    /// By rank how many messages it has: those in the past of its newest one, and that.
    pub(super) known: Box<[u64]>,
    /// Of its newest message.
    pub(super) depth: u64,
    /// Nothing follows its newest message.
    pub(super) leaf: bool,
    /// Nothing of it is attached: the others are agreeing on which message was its last.
    pub(super) wedged: bool,
    /// It is masked out, and this is its last number.
    pub(super) mask: Option<u64>,
}

impl<T> Seat<T> {
    pub(super) fn new(incarnation: Incarnation, participants: usize) -> Self {
        Self {
            eras: VecDeque::from([(1, incarnation)]),
            chain: VecDeque::new(),
            forgotten: 0,
            said: 0,
            newest_said: 0,
            stable: 0,
            taken: 0,
            waved: 0,
            known: vec![0; participants].into(),
            depth: 0,
            leaf: false,
            wedged: false,
            mask: None,
        }
    }

    /// The number of its newest message; 0: none.
    pub(super) fn newest(&self) -> u64 {
        self.forgotten + self.chain.len() as u64
    }

    pub(super) fn node(&self, number: u64) -> Option<&Node<T>> {
        let index = number.checked_sub(self.forgotten + 1)?;
        self.chain.get(usize::try_from(index).ok()?)
    }

    pub(super) fn is_masked(&self) -> bool {
        self.mask.is_some()
    }

    /// No more of its messages can come.
    pub(super) fn is_complete(&self) -> bool {
        self.mask == Some(self.newest())
    }

    /// It is masked out and not all of its messages are here.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_masked() && !self.is_complete()
    }

    /// It was masked in, and no message of its new life is here.
    pub(super) fn is_returning(&self) -> bool {
        let begun = self.eras.back().expect("there is always one").0;
        !self.is_masked() && begun > 1 && begun > self.newest()
    }

    /// Who sends now.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.eras.back().expect("there is always one").1
    }

    /// Who sends, or sent, the message with that number.
    pub(super) fn incarnation_of(&self, number: u64) -> Incarnation {
        let era = self.eras.iter().rev().find(|(first, _)| *first <= number);
        era.or_else(|| self.eras.front()).expect("there is always one").1
    }

    /// Another incarnation sends from that number on.
    pub(super) fn begin_era(&mut self, first: u64, incarnation: Incarnation) {
        self.eras.retain(|(begun, _)| *begun < first);
        self.eras.push_back((first, incarnation));
    }

    /// The next message.
    pub(super) fn push(&mut self, node: Node<T>) {
        (self.leaf, self.depth) = (true, node.depth);
        if !node.null {
            self.said += 1;
            self.newest_said = self.newest() + 1;
        }
        self.chain.push_back(node);
    }

    /// Forgets the oldest message.
    pub(super) fn forget_one(&mut self) {
        let node = self.chain.pop_front().expect("what is forgotten was attached");
        self.said -= usize::from(!node.null);
        self.forgotten += 1;
        while self.eras.get(1).is_some_and(|(first, _)| *first <= self.forgotten) {
            self.eras.pop_front();
        }
    }

    pub(super) fn check_invariants(&self, waves: bool, chain_max: usize) {
        assert!(self.forgotten <= self.taken, "what is forgotten was taken");
        assert!(self.forgotten <= self.stable, "what is forgotten is stable");
        assert!(!waves || self.forgotten <= self.waved, "what is forgotten was in a wave");
        assert!(self.taken <= self.newest() && self.waved <= self.newest(), "it was attached");
        assert!(self.stable <= self.newest(), "what is stable is here");
        assert!(self.chain.len() <= chain_max, "a chain is bounded");
        assert!(self.mask.is_none_or(|last| self.newest() <= last), "nothing is behind the mask");
        assert!(self.eras.iter().zip(self.eras.iter().skip(1)).all(|(one, next)| one < next));
    }
}
