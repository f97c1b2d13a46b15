//! The link as its users see it, still a machine: names, sends that are answered and wait for room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{BootId, BootNonce, Instant, Machine, NodeId};
use mainstay_runtime::Place;
use tokio::sync::oneshot;

use super::event::{LinkEvent, Names};
use super::handle::Sent;
use crate::{self as link, Event, Link, NotSent};

/// All messages of users go on one channel; 0 is the link's own.
const CHANNEL: u16 = 1;

/// A message on its way to the link.
pub(super) struct Post {
    pub(super) to: NodeId,
    /// Only to this boot of it.
    pub(super) boot: Option<BootNonce>,
    pub(super) payload: Bytes,
    /// For room, if there is none, and for a peer that was never met.
    pub(super) waits: bool,
    pub(super) answer: oneshot::Sender<Result<Sent, NotSent>>,
}

/// Something to be read between two inputs.
pub(super) type Look = Box<dyn FnOnce(&Link) + Send>;

pub(super) enum Input {
    Link(link::Input),
    Post(Post, Place),
    Look(Look),
}

pub(super) enum Output {
    Link(link::Output),
    Event(LinkEvent),
}

pub(super) struct Face {
    link: Link,
    names: Arc<Names>,
    /// What a full window keeps out, or is for a node never met, in order; the places bound it.
    waiting: BTreeMap<NodeId, VecDeque<(Post, Place)>>,
    /// Boots that take this one for dead, and have been told of.
    buried_by: BTreeSet<BootId>,
    out: VecDeque<Output>,
}

impl Face {
    pub(super) fn new(link: Link, names: Arc<Names>) -> Self {
        let (waiting, buried_by, out) = Default::default();
        Self { link, names, waiting, buried_by, out }
    }

    fn on_post(&mut self, now: Instant, post: Post, place: Place) {
        match self.waiting.get_mut(&post.to) {
            Some(waiting) if post.waits => waiting.push_back((post, place)),
            _ => drop(self.offer(now, post, place)),
        }
    }

    /// False: it waits.
    fn offer(&mut self, now: Instant, post: Post, place: Place) -> bool {
        if post.answer.is_closed() {
            return true;
        }
        let sent = match self.link.send(now, post.to, post.boot, CHANNEL, post.payload.clone()) {
            Err(NotSent::Full | NotSent::NoSession) if post.waits => {
                self.waiting.entry(post.to).or_default().push_front((post, place));
                return false;
            }
            sent => sent,
        };
        let sent = sent.map(|(boot, number)| Sent { to: self.names.peer(boot), number });
        // Nobody waits for the answer any more: then it is not given.
        let _ = post.answer.send(sent);
        true
    }

    /// The window has room again, or the node has been met.
    fn go_on(&mut self, now: Instant, node: NodeId) {
        while let Some((post, place)) = self.waiting.get_mut(&node).and_then(VecDeque::pop_front) {
            if !self.offer(now, post, place) {
                return;
            }
        }
        self.waiting.remove(&node);
    }

    /// Takes what the link puts out; the nodes whose windows have room.
    fn drain(&mut self) -> Vec<NodeId> {
        let mut roomy = Vec::new();
        while let Some(output) = self.link.poll_output() {
            match output {
                link::Output::Event(Event::Ready { to }) => roomy.push(to.node),
                link::Output::Event(event) => {
                    if let Event::Up { boot, .. } = event {
                        roomy.push(boot.node);
                    }
                    let told = self.told(event);
                    self.out.extend(told.map(Output::Event));
                }
                output => self.out.push_back(Output::Link(output)),
            }
        }
        roomy
    }

    fn told(&mut self, event: Event) -> Option<LinkEvent> {
        let peer = |boot| self.names.peer(boot);
        Some(match event {
            Event::Up { boot, .. } => LinkEvent::Up { peer: peer(boot) },
            Event::Down { boot } => LinkEvent::Down { peer: peer(boot) },
            Event::Deliver { from, payload, .. } => {
                LinkEvent::Message { from: peer(from), payload }
            }
            // What is void counts as sent for the link; here it is told with the replacement.
            Event::Sent { to, .. } if self.link.boot(to.node) != Some(to) => return None,
            Event::Sent { to, upto } => LinkEvent::Acknowledged { to: peer(to), upto },
            Event::Replaced { old, new, unsettled } => {
                let (old, new) = (peer(old), peer(new));
                for (post, _) in self.waiting.remove(&old.boot.node).into_iter().flatten() {
                    let _ = post.answer.send(Err(NotSent::OtherBoot));
                }
                LinkEvent::Replaced { old, new, unsettled }
            }
            Event::Dead { by } if self.buried_by.contains(&by) => return None,
            Event::Dead { by } => {
                let unsettled = self.link.unsettled(by.node).unwrap_or_default();
                let told = LinkEvent::Dead { by: peer(by), unsettled };
                // One a node: bounded by the roster.
                self.buried_by.retain(|it| it.node != by.node);
                self.buried_by.insert(by);
                told
            }
            Event::Mismatch { conn, why } => {
                tracing::warn!(?conn, ?why, "a connection is refused");
                return None;
            }
            // A link of its own has no guests, and is none.
            Event::Gone { .. }
            | Event::Heard { .. }
            | Event::Refused { .. }
            | Event::Ready { .. }
            | Event::NotSent { .. } => return None,
        })
    }
}

impl Machine for Face {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Link(input) => self.link.handle(now, input),
            Input::Post(post, place) => self.on_post(now, post, place),
            Input::Look(look) => look(&self.link),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
    }

    fn end_turn(&mut self, now: Instant) {
        // Half of a window is room for the largest message, so each round takes something in that waits.
        loop {
            self.link.end_turn(now);
            let roomy = self.drain();
            if roomy.is_empty() {
                return;
            }
            roomy.into_iter().for_each(|node| self.go_on(now, node));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }
}
