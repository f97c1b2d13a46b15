//! Streams of items between two nodes, pulled by the one who reads them.
//!
//! A stream is *offered* at the node of the one who writes it. What is left of it for others is an [`Offer`], plain data that travels as an
//! argument or a result: so a procedure takes or gives a stream, or something that is too large for one message, without another
//! word in the protocol. The reader pulls batches by calls of its own, executed exactly once and in order; the writer waits while as
//! many items are unread as its stream holds. So nothing is buffered beyond that and the batch that the reader has, and each item comes once.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{Instant, NodeId, codec};
use mainstay_runtime::ActorMessage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::context::Level;
use super::handle::{Shared, locked};
use super::stop::Stop;
use super::{CallError, Caller, Context, Procedure, RpcHandle, ServeError};
use crate::wire::{LEAVE, PULL};
use crate::{Failure, Reason, Refusal};

/// Streams that a node offers at a time.
const OFFERS_MAX: usize = 4_096;
/// A batch has about so many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// A writer waits so long for a reader, and a drain for the next pull.
const PATIENCE: Duration = Duration::from_secs(60);
/// When all results are acknowledged, a drain waits so long for the first pull of a stream.
const UNREAD: Duration = Duration::from_secs(5);

/// A stream, for the one node that may read it: plain data that travels.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Offer<T> {
    node: NodeId,
    id: u64,
    #[serde(skip)]
    item: PhantomData<fn() -> T>,
}

/// Writes a stream. Dropped: the stream ends behind what was written.
pub struct Items<T> {
    to: mpsc::Sender<Bytes>,
    id: u64,
    shared: Weak<Shared>,
    bytes_max: usize,
    item: PhantomData<fn(T)>,
}

/// Why an item is not written. The stream has no hole: what was written before is read, or nobody reads any more.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The reader is gone, has ended the stream, or has read nothing for a minute.
    #[error("nobody reads the stream any more")]
    Gone,
    /// The item has more bytes than a quarter of [`Config::body_bytes_max`](crate::Config::body_bytes_max).
    #[error("the item is too large")]
    TooLarge,
}

/// Why a stream is not offered. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferError {
    /// The node offers as many as it may, and all of them are still being written.
    #[error("{OFFERS_MAX} streams are offered")]
    TooMany,
}

/// A stream that is offered here.
pub(super) struct Offered {
    reader: NodeId,
    /// The execution whose result it is a part of: then it is read to its end before the node is drained.
    of: Option<Weak<Level>>,
    /// When it was pulled the last time.
    pulled: Option<Instant>,
    items: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>,
    /// It is offered no more: who waits for items is told.
    end: Stop,
}

impl Offered {
    /// Whether a drain waits for it, and until when. All results are acknowledged since `since`.
    fn awaited(&self, since: Instant) -> Option<Instant> {
        self.of.as_ref()?;
        Some(self.pulled.map_or(since + UNREAD, |at| at + PATIENCE))
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.end.stop();
    }
}

/// The streams of a node.
pub(super) struct Streams {
    offers: Mutex<BTreeMap<u64, Offered>>,
    /// Fewer streams are offered.
    ended: Notify,
    /// Of the bodies of the service.
    bytes_max: usize,
}

impl Streams {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { offers: Mutex::default(), ended: Notify::new(), bytes_max }
    }
}

/// The next items are wanted.
#[derive(Serialize, Deserialize)]
struct Pull {
    id: u64,
}

/// Items, and whether these are the last ones.
#[derive(Serialize, Deserialize)]
struct Pulled {
    items: Vec<Bytes>,
    is_end: bool,
}

impl ActorMessage for Pull {
    type Result = Result<Pulled, NoSuchStream>;
}

impl Procedure for Pull {
    const NAME: &'static str = PULL;
}

/// The stream is wanted no more.
#[derive(Serialize, Deserialize)]
struct Leave {
    id: u64,
}

impl ActorMessage for Leave {
    type Result = Result<(), NoSuchStream>;
}

impl Procedure for Leave {
    const NAME: &'static str = LEAVE;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct NoSuchStream;

/// Serves the streams that this node offers.
pub(super) async fn serve(rpc: &RpcHandle) -> Result<(), ServeError> {
    rpc.serve_fn(|Pull { id }, context: Context| async move {
        let shared = &context.shared;
        let (items, end) = {
            let mut offers = locked(&shared.streams.offers);
            let is_open = |it: &&mut Offered| {
                it.reader == context.client()
                    && (it.of.is_some() || !shared.is_draining.load(Ordering::SeqCst))
            };
            let offered = offers.get_mut(&id).filter(is_open).ok_or(NoSuchStream)?;
            offered.pulled = Some(shared.now());
            (Arc::clone(&offered.items), offered.end.clone())
        };
        let bytes_max = (shared.streams.bytes_max / 2).min(BATCH_BYTES);
        let pulled = tokio::select! {
            biased;
            pulled = async { pull(&mut *items.lock().await, bytes_max).await } => pulled,
            () = end.stopped() => return Err(NoSuchStream),
        };
        if pulled.is_end {
            context.shared.end_offer(id);
        }
        Ok(pulled)
    })
    .await?;
    rpc.serve_fn(|Leave { id }, context: Context| async move {
        let is_own = |it: &Offered| it.reader == context.client();
        if locked(&context.shared.streams.offers).get(&id).is_some_and(is_own) {
            context.shared.end_offer(id);
        }
        Ok(())
    })
    .await
}

/// All that is there, and at least one item or the end.
async fn pull(items: &mut mpsc::Receiver<Bytes>, bytes_max: usize) -> Pulled {
    let (mut pulled, mut bytes) = (Pulled { items: Vec::new(), is_end: false }, 0);
    let Some(first) = items.recv().await else {
        return Pulled { is_end: true, ..pulled };
    };
    let mut next = Some(first);
    while let Some(item) = next.take() {
        bytes += item.len();
        pulled.items.push(item);
        if bytes >= bytes_max {
            break;
        }
        match items.try_recv() {
            Ok(item) => next = Some(item),
            Err(mpsc::error::TryRecvError::Empty) => {}
            Err(mpsc::error::TryRecvError::Disconnected) => pulled.is_end = true,
        }
    }
    pulled
}

impl RpcHandle {
    /// Offers a stream to a node. At most `unread_max` items (1 at least) wait to be read. A [drain](Self::drain) of this node ends it.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer<T: Serialize>(
        &self,
        reader: NodeId,
        unread_max: usize,
    ) -> Result<(Items<T>, Offer<T>), OfferError> {
        offer(self.shared(), (reader, None), unread_max)
    }

    /// Reads a stream that was offered to this node.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self, offer: Offer<T>) -> Reading<T> {
        Reading::new(self.to(offer.node), offer)
    }
}

impl Context {
    /// Offers a stream to the node that calls: as a part of the result. It ends when the execution is stopped, fails or answers an error. A [drain](RpcHandle::drain) of this node
    /// waits until it is read to its end, or its reader has dropped it, is lost, has not begun to read within 5 s of having the result, or has read nothing for a minute. The writer is
    /// not told of the drain: a stream without an end holds it up for as long.
    ///
    /// # Errors
    /// [`OfferError`].
    pub fn offer<T: Serialize>(
        &self,
        unread_max: usize,
    ) -> Result<(Items<T>, Offer<T>), OfferError> {
        self.level.has_offered.store(true, Ordering::SeqCst);
        offer(&self.shared, (self.client(), Some(Arc::downgrade(&self.level))), unread_max)
    }

    /// Reads a stream that the caller gave along, as a part of this execution.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self, offer: Offer<T>) -> Reading<T> {
        Reading::new(self.to(offer.node), offer)
    }
}

fn offer<T: Serialize>(
    shared: &Arc<Shared>,
    (reader, of): (NodeId, Option<Weak<Level>>),
    unread_max: usize,
) -> Result<(Items<T>, Offer<T>), OfferError> {
    let (to, items) = mpsc::channel(unread_max.clamp(1, 1 << 20));
    let id = shared.next_token();
    let mut offers = locked(&shared.streams.offers);
    if offers.len() >= OFFERS_MAX {
        // What was written to its end, and nobody has read, goes first.
        let is_over = |it: &Offered| it.items.try_lock().is_ok_and(|items| items.is_closed());
        let over = offers.iter().find(|(_, it)| is_over(it)).map(|(id, _)| *id);
        offers.remove(&over.ok_or(OfferError::TooMany)?);
        shared.streams.ended.notify_waiters();
    }
    let (items, end) = (Arc::new(tokio::sync::Mutex::new(items)), Stop::default());
    offers.insert(id, Offered { reader, of, pulled: None, items, end });
    drop(offers);
    let bytes_max = shared.streams.bytes_max / 4;
    let items = Items { to, id, shared: Arc::downgrade(shared), bytes_max, item: PhantomData };
    Ok((items, Offer { node: shared.me, id, item: PhantomData }))
}

impl Shared {
    /// A node is lost: nobody there reads any more.
    pub(super) fn lose_readers(&self, node: NodeId) {
        locked(&self.streams.offers).retain(|_, offered| offered.reader != node);
        self.streams.ended.notify_waiters();
    }

    /// A stream is read to its end, or is read no more.
    fn end_offer(&self, id: u64) {
        locked(&self.streams.offers).remove(&id);
        self.streams.ended.notify_waiters();
    }

    /// An execution has come to nothing, and its streams with it.
    pub(super) fn end_offers_of(&self, level: &Arc<Level>) {
        if level.has_offered.load(Ordering::SeqCst) {
            let of = Arc::downgrade(level);
            let is_its = |it: &Offered| it.of.as_ref().is_some_and(|it| it.ptr_eq(&of));
            locked(&self.streams.offers).retain(|_, it| !is_its(it));
            self.streams.ended.notify_waiters();
        }
    }

    /// Ends the streams that are no part of an accepted call: this node is drained.
    pub(super) fn end_plain_offers(&self) {
        locked(&self.streams.offers).retain(|_, it| it.of.is_some());
    }

    /// Waits until no stream is open that is a part of an accepted call. Whether there was one.
    pub(super) async fn offers_ended(&self) -> bool {
        let (mut waited, since) = (false, self.now());
        loop {
            let (told, now) = (self.streams.ended.notified(), self.now());
            let next = {
                let mut offers = locked(&self.streams.offers);
                offers.retain(|_, it| it.awaited(since).is_none_or(|until| now < until));
                offers.values().filter_map(|it| it.awaited(since)).min()
            };
            let Some(next) = next.filter(|_| self.is_open()) else { return waited };
            // Whoever pulls meanwhile is waited for anew.
            let _ = timeout(next.saturating_since(now), told).await;
            waited = true;
        }
    }
}

impl<T: Serialize> Items<T> {
    /// Writes an item; waits while as many are unread as may be.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn send(&self, item: &T) -> Result<(), WriteError> {
        let bytes = codec::encode(item);
        if bytes.len() > self.bytes_max {
            return Err(WriteError::TooLarge);
        }
        match timeout(PATIENCE, self.to.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(WriteError::Gone),
            Err(_) => {
                if let Some(shared) = self.shared.upgrade() {
                    shared.end_offer(self.id);
                }
                Err(WriteError::Gone)
            }
        }
    }
}

type Pulling = Pin<Box<dyn Future<Output = Result<Pulled, CallError<NoSuchStream>>> + Send>>;

/// Reads a stream. Dropped: the writer is told that nobody does.
pub struct Reading<T> {
    from: Caller,
    id: u64,
    read: std::vec::IntoIter<Bytes>,
    /// A batch is on its way: it is not lost with the future that waits for it.
    pulling: Option<Pulling>,
    end: Option<Result<(), Failure>>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reading<T> {
    fn new(from: Caller, offer: Offer<T>) -> Self {
        let read = Vec::new().into_iter();
        Self { from, id: offer.id, read, pulling: None, end: None, item: PhantomData }
    }

    /// The next item; `None` after the last one. A writer that has nothing for longer than the deadline of the caller (30 s) fails the
    /// stream. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The stream is broken: what was read so far is its beginning, and nothing comes any more, however often it is asked.
    pub async fn next(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(item) = self.read.next() {
                return match codec::decode(&item) {
                    Ok(item) => Ok(Some(item)),
                    Err(_) => Err(self.fail(BROKEN)),
                };
            }
            if let Some(end) = self.end {
                return end.map(|()| None);
            }
            let (from, id) = (&self.from, self.id);
            let pulling =
                self.pulling.get_or_insert_with(|| Box::pin(from.exactly_once(Pull { id })));
            let pulled = pulling.await;
            self.pulling = None;
            match pulled {
                Ok(pulled) => {
                    self.read = pulled.items.into_iter();
                    self.end = pulled.is_end.then_some(Ok(()));
                }
                Err(CallError::Remote(NoSuchStream)) => return Err(self.fail(BROKEN)),
                Err(CallError::Failed(failure)) => return Err(self.fail(failure)),
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        self.read = Vec::new().into_iter();
        self.end = Some(Err(failure));
        failure
    }
}

/// The other end has no such stream, or its items are none of this type.
const BROKEN: Failure = Failure {
    executed: crate::Executed::NotMoreThanOnce,
    reason: Reason::Refused(Refusal::Handler),
};

impl<T> Drop for Reading<T> {
    fn drop(&mut self) {
        // One that has failed is not read on either. The execution that reads may be over, and nobody is to wait for it.
        if !matches!(self.end, Some(Ok(()))) {
            self.from.apart().tell(Leave { id: self.id });
        }
    }
}

impl<T> fmt::Debug for Offer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Offer({} at {:?})", self.id, self.node)
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Items({})", self.id)
    }
}

impl<T> fmt::Debug for Reading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("from", &self.from).finish_non_exhaustive()
    }
}
