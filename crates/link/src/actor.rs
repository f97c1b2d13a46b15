//! A link in an actor of its own, over TCP: for programs that want lossless channels between nodes, and nothing else.
//!
//! [`start`] tells an actix actor what comes, [`open`] gives it to any task of the same thread. Either way the link waits for whoever
//! reads: what is not read is not acknowledged, so a slow reader closes the windows of its peers, and their sends wait. Nothing
//! is dropped for it and nothing grows without bound.
//!
//! A link suspects nobody. A peer that dies is [`Down`](LinkEvent::Down), and what is sent meanwhile waits for it; when it is started
//! anew it is [`Replaced`](LinkEvent::Replaced), and all that was sent to the dead boot and not acknowledged is named, that which was
//! sent after its death too. As long as it stays away nothing more is told: sends are accepted until the window is full, and then
//! wait. A program that does not want to wait for ever uses [`send_now`](LinkHandle::send_now), or gives up by itself.
//!
//! Actors send by messages: `Porter::start(handle)` is an actor that takes a [`SendCommand`].
//!
//! It needs a `LocalSet` of a current-thread tokio runtime; an actix `System` is one. Handles are `Send` and go anywhere.
//!
//! A program needs `mainstay-base` ([`ClusterId`]) beside this crate; with an actix actor as reader also `actix`, and
//! `mainstay-runtime` for [`Events`].

mod commands;
mod event;
mod face;
mod handle;
mod outlet;
mod tray;
mod wiring;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_base::BootNonce;
use mainstay_base::frame::BODY_SIZE_MAX;
use mainstay_runtime::{
    Bell, Door, NoLocalSet, OsEntropy, Tcp, TcpOptions, TokioTime, host, inbox, local_set,
};
use thiserror::Error;

pub use commands::SendCommand;
pub use event::{LinkEvent, Peer};
pub use handle::{Ended, LinkHandle, LinkStatus, PeerStatus, SendError, Sent, To, WeakLink};
pub use mainstay_base::{BootId, ClusterId, NodeId};
pub use mainstay_runtime::{
    Closed, Entropy, EntropyError, Events, HostOptions, Porter, Recipient, TcpError, TimeSource,
    Transport,
};
pub use tray::LinkEvents;
pub use wiring::{dial, inputs, weight};

use crate::{Builder, Config, ConfigError, Link};
use event::{Names, Ring, event_weight};
use face::Face;
use outlet::Outlet;
use wiring::Wiring;

/// The largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = BODY_SIZE_MAX;

/// What a link is made of.
pub struct LinkParts {
    /// The cluster: nodes of another one are turned away.
    pub cluster: ClusterId,
    /// What the node is called; in the roster.
    pub name: String,
    /// All nodes, and where each listens for the others.
    pub roster: BTreeMap<String, SocketAddr>,
    /// Frames to and from the others. It has to queue a window of bytes on each connection.
    pub transport: Box<dyn Transport>,
    /// The clock.
    pub time: Rc<dyn TimeSource>,
    /// Nonces and seeds.
    pub entropy: Box<dyn Entropy>,
    /// The bounds of the host.
    pub options: HostOptions,
    /// With so many bytes of events unread the reader is full. Default 1 MiB.
    pub unread_bytes: usize,
    /// Bytes of messages that wait, in all handles together, for the link to accept them; further sends wait before that. Default 8 MiB.
    pub waiting_bytes: usize,
    configure: Box<dyn FnOnce(Builder) -> Builder>,
}

impl LinkParts {
    /// Parts for this process: TCP, and the system's clock and entropy.
    ///
    /// # Errors
    /// [`StartError::NotInRoster`], [`StartError::Tcp`]; outside a `LocalSet` it is [`StartError::NoLocalSet`].
    ///
    /// # Panics
    /// If the runtime was built without time and net.
    pub fn tcp(
        cluster: ClusterId,
        name: impl Into<String>,
        roster: BTreeMap<String, SocketAddr>,
    ) -> Result<Self, StartError> {
        local_set()?;
        let name = name.into();
        let listen = roster.get(&name).ok_or_else(|| StartError::NotInRoster(name.clone()))?;
        let time = Rc::new(TokioTime::new());
        let mut options = TcpOptions::listening(*listen);
        // A window, its heads, and what the link itself has to say.
        options.queue_bytes_max = 16 << 20;
        let tcp = Tcp::new(options, time.clone())?;
        Ok(Self::new(cluster, name, roster, Box::new(tcp), time, Box::new(OsEntropy)))
    }

    /// Parts with the defaults.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        name: impl Into<String>,
        roster: BTreeMap<String, SocketAddr>,
        transport: Box<dyn Transport>,
        time: Rc<dyn TimeSource>,
        entropy: Box<dyn Entropy>,
    ) -> Self {
        Self {
            cluster,
            name: name.into(),
            roster,
            transport,
            time,
            entropy,
            options: HostOptions::default(),
            unread_bytes: 1 << 20,
            waiting_bytes: 8 << 20,
            configure: Box::new(|config| config),
        }
    }

    /// Changes the settings of the link: windows, waits, tables. Default: [`Config::lan`].
    #[must_use]
    pub fn configure(mut self, configure: impl FnOnce(Builder) -> Builder + 'static) -> Self {
        self.configure = Box::new(configure);
        self
    }
}

impl fmt::Debug for LinkParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkParts").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a link did not start. Nothing runs.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The node is not in the roster. The configuration is at fault.
    #[error("node {0:?} is not in the roster")]
    NotInRoster(String),
    /// The settings of the link do not fit together. The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The window is smaller than two of the largest messages: a send that waits for half of it would wait for ever.
    #[error("the window is less than {} bytes", 2 * MESSAGE_BYTES_MAX)]
    Window,
    /// The address of the node cannot be used.
    #[error(transparent)]
    Tcp(#[from] TcpError),
    /// No nonce could be drawn.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// It is to run on this thread, and cannot.
    #[error(transparent)]
    NoLocalSet(#[from] NoLocalSet),
}

/// Starts a link that tells an actor what comes: [`LinkEvent`]s in batches, in order.
///
/// The actor counts as full with [`LinkParts::unread_bytes`] unread; a batch counts until the actor has dropped it. The last
/// batch says that it is the [end](Events::is_end). The link stops when the last handle is dropped, or when it notices that the actor
/// has stopped. It keeps the actor alive meanwhile; an actor that keeps a handle keeps both, and may hold a [`WeakLink`].
///
/// # Errors
/// [`StartError`].
pub fn start(parts: LinkParts, to: Recipient<Events<LinkEvent>>) -> Result<LinkHandle, StartError> {
    let unread_bytes = parts.unread_bytes;
    run(parts, |bell| {
        let door = Door::new(to, unread_bytes, move || bell.ring(Ring::Room));
        Outlet::new(door.weighing(event_weight))
    })
}

/// Starts a link whose events a task takes one by one. When they are dropped the link stops; so it does when the last handle is.
///
/// # Errors
/// [`StartError`].
pub fn open(parts: LinkParts) -> Result<(LinkHandle, LinkEvents), StartError> {
    let unread_bytes = parts.unread_bytes;
    let mut events = None;
    let handle = run(parts, |bell| {
        let (tray, reads) = tray::tray(unread_bytes, bell);
        events = Some(reads);
        Outlet::new(tray)
    })?;
    Ok((handle, events.expect("the link has been started with them")))
}

fn run(
    parts: LinkParts,
    outlet: impl FnOnce(Bell<Ring>) -> Outlet,
) -> Result<LinkHandle, StartError> {
    local_set()?;
    let LinkParts { cluster, name, roster, transport, time, mut entropy, .. } = parts;
    if !roster.contains_key(&name) {
        return Err(StartError::NotInRoster(name));
    }
    let me = BootId { node: NodeId::new(cluster, &name), nonce: BootNonce(entropy.draw()?) };
    let seed = entropy.draw()? as u64;
    let names = Names::new(cluster, roster.keys());
    let peers = names.nodes().filter(|node| *node != me.node).collect();
    let config = (parts.configure)(Config::lan(cluster, me, peers)).taken_by_user().build()?;
    if config.window_bytes < 2 * MESSAGE_BYTES_MAX {
        return Err(StartError::Window);
    }
    let names = Arc::new(names);
    let bell = Bell::new();
    let (sends, intake) = inbox(&bell, Ring::Sends, parts.waiting_bytes);
    let face = Face::new(Link::new(config, seed, time.now()), Arc::clone(&names));
    let addresses = roster.iter().map(|(name, at)| (NodeId::new(cluster, name), *at)).collect();
    let outlet = outlet(bell.clone());
    let wiring = Wiring::new(transport, addresses, bell.clone(), intake, outlet);
    let host = host::start(face, wiring, time, parts.options);
    bell.hang(host.downgrade());
    let me = names.peer(me);
    Ok(LinkHandle::new(host, sends, names, me))
}
