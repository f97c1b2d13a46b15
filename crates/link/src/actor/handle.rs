//! How users reach a link.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::BootId;
use mainstay_runtime::{self as runtime, Closed, HostHandle, Inbox, WeakHandle};
use thiserror::Error;
use tokio::sync::oneshot;

use super::MESSAGE_BYTES_MAX;
use super::event::{Names, Peer};
use super::face::{Face, Input, Post};
use crate::{Link, NotSent, Stats, Unsettled};

/// A message that was accepted: it will be given to the reader of that boot, unless that boot or this one ends before.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Sent {
    /// The boot that it is for.
    pub to: Peer,
    /// Its number among the messages for that boot, from 1.
    pub number: u64,
}

/// To whom a message goes: the boot of a node that the link knows when it accepts the message (`&str`, a name), or one boot and no
/// other (`&Peer`, from an event).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum To<'a> {
    /// The node of this name.
    Node(&'a str),
    /// This boot.
    Boot(&'a Peer),
}

impl<'a> From<&'a str> for To<'a> {
    fn from(name: &'a str) -> Self {
        Self::Node(name)
    }
}

impl<'a> From<&'a Peer> for To<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self::Boot(peer)
    }
}

/// Why a message was not accepted. Whatever the reason, it has not left this node and never will; here it is again.
#[derive(Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The window to the peer is full. [`send`](LinkHandle::send) waits instead.
    #[error("the window is full")]
    Full(Bytes),
    /// No boot of the node was ever met. [`send`](LinkHandle::send) waits instead.
    #[error("no boot of the node was ever met")]
    NeverMet(Bytes),
    /// The node was started anew: while the message waited for room, or before, if it was for one boot.
    #[error("the node was started anew")]
    Replaced(Bytes),
    /// No node of that name is in the roster, or it is this one.
    #[error("no such peer")]
    UnknownPeer(Bytes),
    /// More than [`MESSAGE_BYTES_MAX`].
    #[error("more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge(Bytes),
    /// The link has ended.
    #[error("the link has ended")]
    Ended(Bytes),
}

impl SendError {
    /// The message.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        match self {
            Self::Full(it) | Self::NeverMet(it) | Self::Replaced(it) => it,
            Self::UnknownPeer(it) | Self::TooLarge(it) | Self::Ended(it) => it,
        }
    }

    fn new(why: NotSent, payload: Bytes) -> Self {
        match why {
            NotSent::Full => Self::Full(payload),
            NotSent::NoSession => Self::NeverMet(payload),
            NotSent::OtherBoot | NotSent::Isolated => Self::Replaced(payload),
            NotSent::UnknownNode | NotSent::Reserved => Self::UnknownPeer(payload),
            NotSent::TooLarge => Self::TooLarge(payload),
        }
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A message whose answer is awaited.
struct Waiting {
    answered: oneshot::Receiver<Result<Sent, NotSent>>,
    payload: Bytes,
}

impl Waiting {
    async fn answer(self) -> Result<Sent, SendError> {
        match self.answered.await {
            Ok(sent) => sent.map_err(|why| SendError::new(why, self.payload)),
            // It is answered in the turn in which it is accepted.
            Err(_) => Err(SendError::Ended(self.payload)),
        }
    }
}

fn weight(post: &Post) -> usize {
    post.payload.len() + size_of::<Post>()
}

fn put<T>(
    sent: Result<T, runtime::SendError<Post>>,
    waiting: Waiting,
) -> Result<Waiting, SendError> {
    match sent {
        Err(runtime::SendError::Full(_)) => Err(SendError::Full(waiting.payload)),
        Err(runtime::SendError::Closed(_)) => Err(SendError::Ended(waiting.payload)),
        Ok(_) => Ok(waiting),
    }
}

/// The link has ended: there is nothing to be asked.
#[derive(Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("the link has ended")]
pub struct Ended;

/// How a link stands to one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// What it is called.
    pub name: Arc<str>,
    /// The boot that messages go to; `None` if it was never met.
    pub boot: Option<BootId>,
    /// Whether that is connected now.
    pub is_connected: bool,
    /// The messages accepted for that boot that it has not acknowledged.
    pub unsettled: Unsettled,
    /// Its last word was that another process has the name of this node.
    pub refuses: bool,
}

/// How a link is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LinkStatus {
    /// All nodes of the roster but this one.
    pub peers: Vec<PeerStatus>,
    /// Counters since the start.
    pub stats: Stats,
}

/// A link: cheap to clone, `Send` and `Sync`. The link stops when the last one is dropped; messages that are not acknowledged then may
/// be lost.
#[derive(Clone)]
pub struct LinkHandle {
    host: HostHandle<Face>,
    inside: Inside,
}

#[derive(Clone)]
struct Inside {
    sends: Inbox<Post>,
    names: Arc<Names>,
    me: Peer,
}

impl LinkHandle {
    pub(super) fn new(
        host: HostHandle<Face>,
        sends: Inbox<Post>,
        names: Arc<Names>,
        me: Peer,
    ) -> Self {
        Self { host, inside: Inside { sends, names, me } }
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> &Peer {
        &self.inside.me
    }

    /// The names of all nodes but this one.
    pub fn peers(&self) -> impl Iterator<Item = &str> + '_ {
        let me = self.inside.me.boot.node;
        self.inside.names.iter().filter(move |(node, _)| *node != me).map(|(_, name)| &**name)
    }

    /// Sends a message to a peer, by name or as an event named it, be it connected or not. Waits while its window is full, and until a boot of
    /// the node has been met.
    ///
    /// Messages of one caller who waits for each answer come in that order; so do those of futures that are first polled in an
    /// order. If the future is dropped the message may have been sent, or not.
    ///
    /// # Errors
    /// [`SendError`], neither `Full` nor `NeverMet`.
    pub async fn send(
        &self,
        to: impl Into<To<'_>>,
        payload: impl Into<Bytes>,
    ) -> Result<Sent, SendError> {
        self.post(to.into(), payload.into(), true).await
    }

    /// As [`send`](Self::send), but waits for the link's next turn at most.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_now(
        &self,
        to: impl Into<To<'_>>,
        payload: impl Into<Bytes>,
    ) -> Result<Sent, SendError> {
        self.post(to.into(), payload.into(), false).await
    }

    /// As [`send_now`](Self::send_now), begun by the call.
    pub(super) fn begin(
        &self,
        to: To<'_>,
        payload: Bytes,
    ) -> impl Future<Output = Result<Sent, SendError>> + use<> {
        let begun = self.prepare(to, payload, false).and_then(|(post, waiting)| {
            put(self.inside.sends.try_send(weight(&post), post), waiting)
        });
        async move { begun?.answer().await }
    }

    async fn post(&self, to: To<'_>, payload: Bytes, waits: bool) -> Result<Sent, SendError> {
        let (post, waiting) = self.prepare(to, payload, waits)?;
        let bytes = weight(&post);
        let sent = if waits {
            self.inside.sends.send(bytes, post).await
        } else {
            self.inside.sends.try_send(bytes, post)
        };
        put(sent, waiting)?.answer().await
    }

    fn prepare(
        &self,
        to: To<'_>,
        payload: Bytes,
        waits: bool,
    ) -> Result<(Post, Waiting), SendError> {
        let (to, boot) = match to {
            To::Node(name) => (self.inside.names.node(name), None),
            To::Boot(peer) => (Some(peer.boot.node), Some(peer.boot.nonce)),
        };
        let Some(to) = to else { return Err(SendError::UnknownPeer(payload)) };
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge(payload));
        }
        let (answer, answered) = oneshot::channel();
        let post = Post { to, boot, payload: payload.clone(), waits, answer };
        Ok((post, Waiting { answered, payload }))
    }

    /// How the link is, between two turns.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn status(&self) -> Result<LinkStatus, Ended> {
        let (tell, told) = oneshot::channel();
        let inside = self.inside.clone();
        let look = Box::new(move |link: &Link| {
            // Nobody waits any more: then nobody is told.
            let _ = tell.send(inside.status(link));
        });
        self.host.send(Input::Look(look)).await.map_err(|_| Ended)?;
        told.await.map_err(|_| Ended)
    }

    /// Asks the link to stop: sends are refused from here on.
    pub fn stop(&self) {
        self.host.stop();
    }

    /// How the link ended, as soon as it has. The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<> {
        self.host.closed()
    }

    /// A handle that does not keep the link running.
    #[must_use]
    pub fn downgrade(&self) -> WeakLink {
        WeakLink { host: self.host.downgrade(), inside: self.inside.clone() }
    }
}

impl Inside {
    fn status(&self, link: &Link) -> LinkStatus {
        let refusing: Vec<_> = link.refused_by().collect();
        let others = self.names.iter().filter(|(node, _)| *node != self.me.boot.node);
        let peers = others.map(|(node, name)| PeerStatus {
            name: Arc::clone(name),
            boot: link.boot(node),
            is_connected: link.is_connected(node),
            unsettled: link.unsettled(node).unwrap_or_default(),
            refuses: refusing.contains(&node),
        });
        LinkStatus { peers: peers.collect(), stats: link.stats() }
    }
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkHandle").field(&self.host).finish()
    }
}

/// A handle that does not keep the link running: for the actor that reads its events.
#[derive(Clone)]
pub struct WeakLink {
    host: WeakHandle<Face>,
    inside: Inside,
}

impl WeakLink {
    /// The handle, unless all were dropped.
    #[must_use]
    pub fn upgrade(&self) -> Option<LinkHandle> {
        let host = self.host.upgrade()?;
        Some(LinkHandle { host, inside: self.inside.clone() })
    }
}

impl fmt::Debug for WeakLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakLink").finish_non_exhaustive()
    }
}
