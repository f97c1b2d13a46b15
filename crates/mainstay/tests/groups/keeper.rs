//! A group's member on each node, with an actor that keeps the state.

use std::cell::RefCell;
use std::rc::Rc;

use actix::{Actor, Addr, Context, Handler};
use bytes::Bytes;
use mainstay::{Events, GroupConfig, GroupEvent, GroupHandle, Node, Order, StateRequest};
use tokio::sync::Notify;

use crate::common::{Cluster, NAMES};

/// What a member's actor has: the payloads in its state, and what it was told of views.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) state: Vec<Bytes>,
    /// What has come of a state that is told in parts.
    pub(crate) partial: Vec<u8>,
    pub(crate) fifo: Vec<Bytes>,
    pub(crate) views: Vec<Vec<String>>,
    pub(crate) states: usize,
    pub(crate) requests: Vec<StateRequest>,
    pub(crate) blocked: usize,
    pub(crate) maybe_lost: usize,
    pub(crate) minority: Vec<bool>,
    pub(crate) ended: bool,
}

/// Keeps every message in total order; its state is all of them.
pub(crate) struct Keeper {
    pub(crate) kept: Rc<RefCell<Kept>>,
    pub(crate) changed: Rc<Notify>,
    /// Gives no state.
    pub(crate) is_mute: bool,
    /// Answers each message in its handler, once.
    pub(crate) answers: Option<GroupHandle>,
    /// Gives its state piece by piece.
    pub(crate) in_chunks: bool,
}

/// A state that is written as it is read, a message a piece.
pub(crate) struct Pieces(std::collections::VecDeque<Bytes>);

impl mainstay::service::Chunks for Pieces {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.pop_front().map(|payload| encode(&[payload]).into()))
    }
}

impl Actor for Keeper {
    type Context = Context<Self>;
}

pub(crate) fn encode(state: &[Bytes]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in state {
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

pub(crate) fn decode(mut bytes: Bytes) -> Vec<Bytes> {
    let mut state = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_le_bytes(bytes.split_to(4)[..].try_into().unwrap());
        state.push(bytes.split_to(len as usize));
    }
    state
}

impl Handler<Events<GroupEvent>> for Keeper {
    type Result = ();

    fn handle(&mut self, mut events: Events<GroupEvent>, _: &mut Context<Self>) {
        let mut kept = self.kept.borrow_mut();
        kept.ended |= events.is_end();
        for event in events.take() {
            match event {
                GroupEvent::State(state) => {
                    kept.states += 1;
                    kept.state = decode(state.to_bytes());
                }
                GroupEvent::StatePart(part) => {
                    if part.is_first {
                        kept.partial.clear();
                    }
                    kept.partial.extend_from_slice(&part.bytes);
                    if part.is_last {
                        kept.states += 1;
                        kept.state = decode(std::mem::take(&mut kept.partial).into());
                    }
                }
                GroupEvent::Deliver(message) if message.order == Order::Total => {
                    if let Some(group) = self.answers.take() {
                        group.try_cast("answer", Order::Total).unwrap();
                    }
                    kept.state.push(message.payload);
                }
                GroupEvent::Deliver(message) => kept.fifo.push(message.payload),
                GroupEvent::View(view) => {
                    kept.views.push(view.members.iter().map(|it| it.name.to_string()).collect());
                }
                GroupEvent::StateWanted(request) if self.is_mute => kept.requests.push(request),
                GroupEvent::StateWanted(request) if self.in_chunks => {
                    request.give_chunks(Pieces(kept.state.clone().into()));
                }
                GroupEvent::StateWanted(request) => request.give(encode(&kept.state)),
                GroupEvent::Blocked => kept.blocked += 1,
                GroupEvent::MajorityLost => kept.minority.push(true),
                GroupEvent::MajorityBack => kept.minority.push(false),
                GroupEvent::MaybeLost(_) => kept.maybe_lost += 1,
                _ => {}
            }
        }
        self.changed.notify_one();
    }
}

/// Ends the actor.
pub(crate) struct Stop;

impl actix::Message for Stop {
    type Result = ();
}

impl Handler<Stop> for Keeper {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        use actix::ActorContext as _;
        ctx.stop();
    }
}

/// A node with a group and a state machine, and the actor that keeps the state of the group.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) group: GroupHandle,
    pub(crate) kept: Rc<RefCell<Kept>>,
    pub(crate) changed: Rc<Notify>,
    pub(crate) keeper: Addr<Keeper>,
}

impl Member {
    pub(crate) fn start(cluster: &Cluster, name: &str, config: GroupConfig) -> Self {
        let mut builder = Node::builder(cluster.config(name)).unwrap();
        // One is told states part by part, the others in one piece.
        let config = if name == "b" { config.state_in_parts() } else { config };
        let group = builder.group("chat", config).unwrap();
        let (kept, changed) = (Rc::<RefCell<Kept>>::default(), Rc::<Notify>::default());
        let (own, tell) = (Rc::clone(&kept), Rc::clone(&changed));
        // One gives its state in one piece, the others piece by piece.
        let in_chunks = name != "a";
        let keeper = Keeper { kept: own, changed: tell, is_mute: false, answers: None, in_chunks };
        let keeper = keeper.start();
        group.subscribe(keeper.clone().recipient()).unwrap();
        Self { node: builder.start().unwrap(), group, kept, changed, keeper }
    }

    pub(crate) fn all(cluster: &Cluster, config: &GroupConfig) -> [Self; 3] {
        NAMES.map(|name| Self::start(cluster, name, config.clone()))
    }

    pub(crate) async fn until(&self, wanted: impl Fn(&Kept) -> bool) {
        while !wanted(&self.kept.borrow()) {
            self.changed.notified().await;
        }
    }

    pub(crate) async fn has(&self, count: usize) -> Vec<Bytes> {
        self.until(|kept| kept.state.len() >= count).await;
        self.kept.borrow().state.clone()
    }
}

pub(crate) fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = Bytes> {
    range.map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
}
