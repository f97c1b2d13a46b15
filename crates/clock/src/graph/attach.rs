//! A message becomes a node: its past, its depth, and what becomes stable by it.

use super::seat::{Node, Seat};
use super::{Graph, Id, Links, ReceiveError};
use crate::{Rank, counts};

impl<T> Graph<T> {
    /// Whether a message with its number may come from its sender.
    pub(super) fn check_sender(&self, links: &Links) -> Result<(), ReceiveError> {
        let ignores = mainstay_base::fault!(self, GraphIgnoresMask);
        let is_behind = |id: &Id| {
            let mask = self.seats[id.rank.index()].mask;
            mask.is_some_and(|last| id.number > last) && !ignores
        };
        let id = links.id();
        if let Some(behind) = links.before.iter().chain([&id]).find(|id| is_behind(id)) {
            return Err(ReceiveError::MaskedOut(behind.rank));
        }
        let seat = &self.seats[id.rank.index()];
        let (ours, theirs) = (seat.incarnation_of(id.number), links.incarnation);
        if ours != theirs && !ignores {
            return Err(ReceiveError::Incarnation { rank: id.rank, ours, theirs });
        }
        let most = self.chain_max() as u64;
        let is_ahead = |id: &&Id| id.number > self.seats[id.rank.index()].newest() + most;
        match links.before.iter().chain([&id]).find(is_ahead) {
            Some(Id { rank, number }) => {
                let newest = self.seats[rank.index()].newest();
                Err(ReceiveError::Ahead { rank: *rank, number: *number, newest })
            }
            None => Ok(()),
        }
    }

    /// The node of a message whose predecessors are all attached.
    pub(super) fn node(&self, links: &Links, body: T) -> Result<Node<T>, ReceiveError> {
        let shallow = mainstay_base::fault!(self, GraphShallow);
        let early = mainstay_base::fault!(self, GraphAttachesEarly);
        let mut past: Box<[u64]> = vec![0; self.seats.len()].into();
        let mut depth = 0;
        for id in &links.before {
            let node = self.seats[id.rank.index()].node(id.number);
            let node = node.ok_or(ReceiveError::NotALeaf(*id))?;
            counts::merge(&mut past, &node.past);
            depth = match depth {
                0 => node.depth,
                _ if shallow => node.depth.min(depth),
                _ => node.depth.max(depth),
            };
        }
        for Id { rank, number } in &links.before {
            let behind = &mut past[rank.index()];
            if *behind >= *number {
                return Err(ReceiveError::NotALeaf(Id { rank: *rank, number: *number }));
            }
            *behind = *number;
        }
        let sender = links.sender.index();
        if past[sender] + 1 != links.number && !early {
            let number = links.number - 1;
            return Err(ReceiveError::Unordered(Id { rank: links.sender, number }));
        }
        let seat = &self.seats[sender];
        let follows =
            |(rank, past): (usize, &u64)| rank == sender || *past >= self.seats[rank].stable;
        if !seat.is_masked() && !early && !past.iter().enumerate().all(follows) {
            return Err(ReceiveError::Behind(links.sender));
        }
        let before = links.before.as_slice().into();
        Ok(Node { before, past, depth: depth + 1, null: links.null, body })
    }

    /// Attaches a message of the own process to all leaves.
    pub(super) fn attach_own(&mut self, null: bool, body: T) -> Links {
        let seat = &self.seats[self.own.index()];
        let links = Links {
            sender: self.own,
            incarnation: seat.incarnation(),
            number: seat.newest() + 1,
            null,
            before: self.leaves().collect(),
        };
        let node = self.node(&links, body).expect("the own leaves make a right message");
        let ready = self.attach(links.id(), node);
        self.attach_held(ready);
        links
    }

    /// Attaches what was held for others that are attached, and what was held for room that there is now.
    pub(super) fn attach_held(&mut self, mut ready: Vec<Id>) {
        while self.hold.len() > 0 {
            let Some(id) = ready.pop().or_else(|| self.next_with_room()) else { return };
            if !self.has_room(id.rank) {
                continue;
            }
            let Some((links, body)) = self.hold.take(id) else { continue };
            match self.node(&links, body) {
                Ok(node) => ready.extend(self.attach(id, node)),
                Err(_) => self.refused += 1,
            }
        }
    }

    /// A held message that waits for nothing any more.
    fn next_with_room(&self) -> Option<Id> {
        let ranks = (0..self.seats.len()).map(Rank::of);
        let mut next = ranks
            .filter(|rank| self.has_room(*rank))
            .map(|rank| Id { rank, number: self.newest(rank) + 1 });
        next.find(|id| self.hold.is_ready(*id))
    }

    /// Attaches a node; those held messages that are ready by that.
    pub(super) fn attach(&mut self, id: Id, node: Node<T>) -> Vec<Id> {
        for before in &node.before {
            let seat = &mut self.seats[before.rank.index()];
            seat.leaf &= seat.newest() != before.number;
        }
        let sender = id.rank.index();
        // Who knows more now may have been the one who kept the number of the stable low.
        for rank in 0..self.seats.len() {
            let has = if rank == sender { id.number } else { node.past[rank] };
            let had = std::mem::replace(&mut self.seats[sender].known[rank], has);
            if has > had && had <= self.seats[rank].stable && rank != sender {
                self.count_stable(rank);
            }
        }
        let seat = &mut self.seats[sender];
        seat.push(node);
        self.attached.push_back(id);
        if seat.stable + 1 == id.number {
            // If nobody else takes part, it is stable at once.
            self.count_stable(sender);
        }
        self.forget_all();
        self.hold.attached(id)
    }

    /// Counts anew how many messages of a participant all others have.
    pub(super) fn count_stable(&mut self, rank: usize) {
        let by_one = mainstay_base::fault!(self, GraphStableByOne);
        let others = self
            .seats
            .iter()
            .enumerate()
            .filter(|(other, seat)| *other != rank && !seat.is_masked());
        let known = others.map(|(_, seat): (_, &Seat<T>)| seat.known[rank]);
        let least = if by_one { known.max() } else { known.min() };
        let seat = &mut self.seats[rank];
        seat.stable = seat.stable.max(least.unwrap_or_else(|| seat.newest()));
    }
}
