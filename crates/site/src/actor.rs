//! Machines in their host, with a transport beneath them: the whole site, or the link alone.

mod application;
mod hosted;
pub mod identity;
mod log;
mod machine;
mod parts;
mod room;
mod seats;
mod services;
mod status;
mod storage;
mod trace;
mod views;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use mainstay_base::{Instant, NodeId};
use mainstay_link::{Config, Event, Input, Link, Output};
use mainstay_runtime::{
    HostHandle, HostOptions, HostSink, LocalFuture, Perform, Port, TimeSource, Transport, host,
};
use mainstay_service::actor::{dial, link_inputs, link_weight};

pub use application::{AppPort, Application, CheckpointDone};
pub use hosted::{SiteHandle, WeakSite, start};
pub use parts::{Founding, MountServices, SiteParts, StartError};
pub use status::{StackStatus, Status, Suspicion};
pub use storage::StorageError;
pub use trace::TraceSink;
pub use views::{Left, Member, ViewChanged};

/// Hosts a link over `transport`, on the caller's `LocalSet`.
///
/// `addresses` says where each peer listens; a peer without one is reported unreachable. `on_event` sees every event of
/// the link in order and answers the inputs that follow from it; they are handled in a later turn. It must not block.
/// `seed` fixes the link's jitter.
///
/// The host stops when the last handle is dropped; its connections are then closed after what is queued was written.
///
/// # Panics
/// Outside a `LocalSet`.
pub fn start_link(
    config: Config,
    seed: u64,
    transport: Box<dyn Transport>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    time: Rc<dyn TimeSource>,
    options: HostOptions,
    on_event: impl FnMut(Event) -> Vec<Input> + 'static,
) -> HostHandle<Link> {
    let link = Link::new(config, seed, time.now());
    let wiring = Wiring { transport, addresses, on_event };
    host::start(link, wiring, time, options)
}

/// What the link's outputs become, and what its inputs come from.
struct Wiring<F> {
    transport: Box<dyn Transport>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    on_event: F,
}

impl<F: FnMut(Event) -> Vec<Input> + 'static> Perform<Link> for Wiring<F> {
    fn started(&mut self, port: &mut Port<'_, Link>) {
        self.transport.start(Rc::new(HostSink::new(port.handle(), link_inputs)));
    }

    fn perform(&mut self, output: Output, port: &mut Port<'_, Link>) {
        match output {
            Output::Dial { node } => {
                let failed = dial(&mut *self.transport, &self.addresses, node);
                failed.into_iter().for_each(|input| port.feed(input));
            }
            Output::Transmit { conn, frame } => self.transport.send(conn, frame),
            Output::Close { conn } => self.transport.close(conn),
            Output::Event(event) => {
                (self.on_event)(event).into_iter().for_each(|input| port.feed(input));
            }
        }
    }

    fn turn_ended(&mut self, _port: &mut Port<'_, Link>) {
        self.transport.flush();
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
        size_of::<Input>() + link_weight(input)
    }
}
