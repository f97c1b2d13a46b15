//! Commands as messages: an actor in front of the handle of a service.

use std::fmt;

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};

use crate::LocalFuture;

/// A handle that carries out commands which actors send as messages.
///
/// A command is begun by the call, and its answer comes with the future: what must keep its order is begun in that order. A command that finds
/// no room is refused, so that no other one waits behind it.
pub trait Carries<M: Message>: 'static {
    /// Begins a command, on the thread of the [`Porter`].
    fn carry(&self, command: M) -> LocalFuture<M::Result>;
}

/// An actor in front of a handle: it takes each message that the handle [carries out](Carries) as a command, in the order in which they come,
/// and answers with what came of it. Answers do not wait for each other. It keeps the handle for as long as somebody has its address, and
/// holds no more commands than its mailbox (16, for those who wait).
///
/// ```
/// use actix::{Message, Recipient};
/// use mainstay_runtime::{Carries, LocalFuture, Porter};
///
/// /// The handle of a service that counts.
/// struct Counter(std::sync::atomic::AtomicU64);
///
/// #[derive(Message)]
/// #[rtype(result = "u64")]
/// struct Add(u64);
///
/// impl Carries<Add> for Counter {
///     fn carry(&self, Add(more): Add) -> LocalFuture<u64> {
///         let before = self.0.fetch_add(more, std::sync::atomic::Ordering::SeqCst);
///         Box::pin(std::future::ready(before + more))
///     }
/// }
///
/// # actix::System::new().block_on(async {
/// let door: Recipient<Add> = Porter::start(Counter(0.into())).recipient();
/// door.do_send(Add(2));
/// assert_eq!(door.send(Add(3)).await, Ok(5));
/// # });
/// ```
pub struct Porter<H> {
    handle: H,
}

impl<H: Unpin + 'static> Porter<H> {
    /// Starts one, on the caller's `LocalSet`.
    ///
    /// # Panics
    /// Outside a `LocalSet` of a tokio runtime.
    pub fn start(handle: H) -> Addr<Self> {
        Actor::start(Self { handle })
    }
}

impl<H: Unpin + 'static> Actor for Porter<H> {
    type Context = Context<Self>;
}

impl<H, M> Handler<M> for Porter<H>
where
    H: Carries<M> + Unpin,
    M: Message<Result: 'static>,
{
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, command: M, _: &mut Context<Self>) -> ResponseFuture<M::Result> {
        self.handle.carry(command)
    }
}

impl<H> fmt::Debug for Porter<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Porter").finish_non_exhaustive()
    }
}
