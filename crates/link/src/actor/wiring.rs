//! What the outputs of a link become, and what its inputs come from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::{Instant, NodeId};
use mainstay_runtime::{
    Bell, HostSink, Intake, LocalFuture, Perform, Port, Transport, TransportEvent,
};

use super::event::Ring;
use super::face::{Face, Input, Output, Post};
use super::outlet::Outlet;
use crate as link;

/// Most messages that go into one turn.
const SENDS_MAX: usize = 256;

/// Dials a node. The link counts on one answer to each dial: this is the one for a dial that could not be begun.
pub fn dial(
    transport: &mut dyn Transport,
    addresses: &BTreeMap<NodeId, SocketAddr>,
    node: NodeId,
) -> Option<link::Input> {
    let begun = match addresses.get(&node) {
        Some(address) => transport.dial(node, *address).map_err(|error| error.to_string()),
        None => Err("no address is configured".to_owned()),
    };
    let reason = begun.err()?;
    tracing::warn!(%node, reason, "cannot dial");
    Some(link::Input::Unreachable { node })
}

/// What an event of the transport is for a link.
#[must_use]
pub fn inputs(event: TransportEvent) -> Vec<link::Input> {
    use link::Input;
    match event {
        TransportEvent::Opened { conn, dialled } => vec![Input::Opened { conn, dialled }],
        TransportEvent::Received { conn, frames } => {
            frames.into_iter().map(|frame| Input::Received { conn, frame }).collect()
        }
        TransportEvent::Closed { conn, .. } => vec![Input::Closed { conn }],
        TransportEvent::Refused { node } => vec![Input::Refused { node }],
        TransportEvent::Unreachable { node } => vec![Input::Unreachable { node }],
    }
}

/// Bytes that an input of the link points to.
#[must_use]
pub fn weight(input: &link::Input) -> usize {
    match input {
        link::Input::Received { frame, .. } => frame.wire_len(),
        link::Input::Send { meta, payload, .. } => meta.len() + payload.len(),
        _ => 0,
    }
}

pub(super) struct Wiring {
    transport: Box<dyn Transport>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    bell: Bell<Ring>,
    intake: Intake<Post>,
    /// The intake has more, and does not ring for it.
    has_more: bool,
    outlet: Outlet,
}

impl Wiring {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        addresses: BTreeMap<NodeId, SocketAddr>,
        bell: Bell<Ring>,
        intake: Intake<Post>,
        outlet: Outlet,
    ) -> Self {
        Self { transport, addresses, bell, intake, has_more: false, outlet }
    }
}

impl Perform<Face> for Wiring {
    fn started(&mut self, port: &mut Port<'_, Face>) {
        let convert = |event| inputs(event).into_iter().map(Input::Link).collect();
        self.transport.start(Rc::new(HostSink::new(port.handle(), convert)));
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Face>) {
        match output {
            Output::Link(link::Output::Dial { node }) => {
                let failed = dial(&mut *self.transport, &self.addresses, node);
                failed.into_iter().for_each(|input| port.feed(Input::Link(input)));
            }
            Output::Link(link::Output::Transmit { conn, frame }) => {
                self.transport.send(conn, frame);
            }
            Output::Link(link::Output::Close { conn }) => self.transport.close(conn),
            Output::Link(link::Output::Event(_)) => {}
            Output::Event(event) => self.outlet.push(event),
        }
    }

    fn turn_ended(&mut self, port: &mut Port<'_, Face>) {
        self.transport.flush();
        let mut is_read = true;
        for ring in self.bell.take() {
            match ring {
                Ring::Sends => self.has_more = true,
                Ring::Room => self.outlet.on_room(),
                Ring::Left => is_read = false,
            }
        }
        if self.has_more {
            let mut posts = Vec::new();
            self.has_more = self.intake.take(SENDS_MAX, &mut posts);
            posts.into_iter().for_each(|(post, place)| port.feed(Input::Post(post, place)));
        }
        let mut taken = Vec::new();
        is_read &= self.outlet.hand_out(&mut taken);
        if !is_read && let Some(host) = port.handle().upgrade() {
            tracing::info!("nobody reads what the link says: it stops");
            host.stop();
        }
        let taken = taken.into_iter().map(|from| link::Input::Taken { from });
        taken.for_each(|input| port.feed(Input::Link(input)));
    }

    fn closing(&mut self, deadline: Instant) -> LocalFuture<()> {
        let drained = self.transport.drain(deadline);
        Box::pin(async move {
            if !drained.await {
                tracing::warn!("stopped with frames unwritten");
            }
        })
    }

    fn weigh(input: &Input) -> usize {
        let more = match input {
            Input::Link(input) => weight(input),
            Input::Post(post, _) => post.payload.len(),
            Input::Look(_) => 0,
        };
        size_of::<Input>() + more
    }
}
