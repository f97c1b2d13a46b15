//! The services of a node, and their channels to other nodes.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_base::rack::{self, Effect, Given, Mounted, Rack, Tenant as _};
use mainstay_base::service::{Address, Ask, Service};
use mainstay_base::{BootId, Instant, View, Work};
use mainstay_link as link;
use thiserror::Error;

use crate::mux::{CHANNEL, MOUNTED_MAX, Mux};

/// So often what services were given at the end of a turn is taken in by the same turn; what is left comes in the next one.
const ROUNDS_MAX: usize = 8;

/// Why a service is not mounted. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountError {
    /// It has no place on the rack.
    #[error(transparent)]
    Rack(#[from] rack::MountError),
    /// The node has as many as it may have.
    #[error("{MOUNTED_MAX} services are mounted")]
    TooMany,
}

/// The services of one node. Its owner tells it what the link says, turns it, and carries out what it puts out: frames for the
/// link first, then [`Effect`]s.
#[derive(Default)]
pub struct Services {
    rack: Rack,
    mux: Mux,
    view: Option<Arc<View>>,
    closing: Vec<Address>,
    effects: VecDeque<Effect>,
}

impl Services {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts a service. In its first turn it is told the view, and which peers are up.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount<S: Service>(
        &mut self,
        now: Instant,
        service: Mounted<S>,
    ) -> Result<Address, MountError> {
        if self.mux.mounted() >= MOUNTED_MAX {
            return Err(MountError::TooMany);
        }
        let agreed = service.agreed();
        let of = self.rack.mount(service)?;
        if let Some(view) = &self.view {
            self.rack.give(now, of, Given::View(Arc::clone(view)));
        }
        self.mux.mount(of, S::CLASS, agreed);
        Ok(of)
    }

    /// A service comes to its end: it is told so, turned once more, and gone. False if there is none.
    pub fn dismount(&mut self, now: Instant, of: Address) -> bool {
        let is_there = self.rack.dismount(now, of);
        if is_there {
            self.closing.push(of);
        }
        is_there
    }

    /// Takes an event of the link. Those of a channel of its own are used up; others are for the rest of the node as well.
    pub fn on_link(&mut self, now: Instant, event: link::Event) -> Option<link::Event> {
        self.mux.on_link(now, &event);
        match event {
            link::Event::Deliver { channel: CHANNEL, .. }
            | link::Event::NotSent { channel: CHANNEL, .. } => None,
            other => Some(other),
        }
    }

    /// The node has installed a view.
    pub fn on_view(&mut self, now: Instant, view: &Arc<View>) {
        self.view = Some(Arc::clone(view));
        self.rack.view(now, view);
    }

    /// A boot was removed by a view: nothing comes from it any more.
    pub fn on_removed(&mut self, boot: BootId) {
        self.mux.forget(boot, None);
    }

    /// Commands for a service. False, and counted: there is none of that kind and instance.
    pub fn ask(&mut self, now: Instant, ask: Ask) -> bool {
        self.rack.ask(now, ask)
    }

    /// An input for one service, from the host.
    pub fn give(&mut self, now: Instant, to: Address, given: Given) -> bool {
        self.rack.give(now, to, given)
    }

    /// The services, for their questions and their readers.
    #[must_use]
    pub fn rack(&self) -> &Rack {
        &self.rack
    }

    /// The same, to subscribe and to listen.
    pub fn rack_mut(&mut self) -> &mut Rack {
        &mut self.rack
    }

    /// The channels, for their questions.
    #[must_use]
    pub fn mux(&self) -> &Mux {
        &self.mux
    }

    /// Turns the services that were touched or are due, and takes what they send.
    pub fn end_turn(&mut self, now: Instant) {
        for _ in 0..ROUNDS_MAX {
            self.hand_out(now);
            let effects = self.rack.turn(now);
            let view = self.view.as_ref().map_or(0, |view| view.id.number);
            for effect in effects {
                match effect {
                    Effect::Send { from, to, meta, payload, .. } => {
                        self.mux.send(from, view, &to, &meta, &payload);
                    }
                    Effect::Datagram { from, to, meta, payload } => {
                        self.mux.send_datagram(from, to, &meta, payload);
                    }
                    other => self.effects.push_back(other),
                }
            }
            self.mux.end_turn(now);
            // Its last messages are on their way, as far as they were granted.
            for of in std::mem::take(&mut self.closing) {
                self.mux.dismount(of);
                self.mux.end_turn(now);
            }
            if !self.mux.has_given() {
                return;
            }
        }
        self.hand_out(now);
    }

    fn hand_out(&mut self, now: Instant) {
        while let Some((of, given)) = self.mux.poll_given() {
            self.rack.give(now, of, given);
        }
    }

    /// The next frame for the link, in order.
    pub fn poll_frame(&mut self) -> Option<link::Input> {
        let frame = self.mux.poll_frame()?;
        Some(link::Input::Send {
            to: frame.to.node,
            boot: Some(frame.to.nonce),
            channel: CHANNEL,
            meta: frame.meta,
            payload: frame.payload,
        })
    }

    /// The next thing that the host is to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the next turn is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.rack.poll_timeout(), self.mux.poll_timeout()].into_iter().flatten().min()
    }

    /// What the services did since the last call.
    pub fn take_work(&mut self) -> Work {
        self.rack.take_work()
    }

    /// Panics if something is not as it should be.
    pub fn check_invariants(&self) {
        self.rack.check_invariants();
        self.mux.check_invariants();
    }
}
