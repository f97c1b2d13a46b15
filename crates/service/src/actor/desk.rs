//! Between a service and those who use it: what it tells goes to whoever waits, in its turns, and what is to be done for it is done on one thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext as _, Context, Handler};
use mainstay_base::rack::{Offered, Reader};
use mainstay_base::service::Service;
use mainstay_runtime::{LocalFuture, NoLocalSet, local_set};
use thiserror::Error;

use super::handle::{ReachError, ServiceHandle};
#[cfg(doc)]
use super::reach::Reach;

/// Between two attempts to find a service that was mounted anew.
const AGAIN: Duration = Duration::from_millis(20);

/// So many events are worked on before others on the thread have their turn. If all calls of a client were answered in one message, for
/// instance, client and server would work by turns; so the client works on the first answers while the server executes the next calls.
const WORK_MAX: usize = 16;

/// What a service tells.
type EventOf<F> = <<F as Front>::Service as Service>::Event;

/// What the users of a service share, on any thread.
pub trait Front: Send + Sync + 'static {
    /// The service.
    type Service: Service<Event: Send>;

    /// Its handle.
    fn service(&self) -> &ServiceHandle<Self::Service>;

    /// The service tells this, in its turn and on its thread: it must not block. What is to be done on the thread of the desk is answered.
    fn read(&self, event: EventOf<Self>) -> Option<EventOf<Self>>;

    /// The service is read, from its beginning on: it is told what users want of it. Its end is told if it comes meanwhile.
    fn begin(&self) -> impl Future<Output = Result<(), ReachError>>;

    /// The service has ended, and with it all that was asked of it. On any thread; it must not block.
    fn ended(&self);

    /// The node is about to [close](Reach::close): what was accepted is finished within this time, and the rest is refused. Default: nothing.
    fn close(self: Arc<Self>, within: Duration) -> impl Future<Output = ()> + Send {
        let _ = within;
        std::future::ready(())
    }
}

/// What is done for a service, on the thread on which its desk was opened.
pub trait Work<F: Front>: Unpin + 'static {
    /// The service wants this.
    fn work(&mut self, front: &Arc<F>, event: EventOf<F>);

    /// The service has ended: what is under way was for one that is gone.
    fn ended(&mut self, front: Option<&Arc<F>>);
}

/// Why a handle is not made. Nothing changed.
#[derive(Error, Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody reads the service's events already: another handle was opened, of which this one would be a clone.
    #[error("the service is in use already: a handle is opened once, and cloned")]
    Taken,
    /// The service was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// What reads the service runs where it is opened, and cannot here.
    #[error(transparent)]
    NoLocalSet(#[from] NoLocalSet),
}

/// Reads a service for its users, as the only one. When it ends, because its node was declared dead and begins anew for instance, the desk waits for
/// the next one of its name, as long as there are users. Cheap to clone.
pub struct Desk {
    run: actix::Recipient<Run>,
}

impl Desk {
    /// Reads the events of the service of `front` from here on. Whoever has `front` is a user; the desk keeps none.
    ///
    /// # Errors
    /// [`OpenError`]; outside a `LocalSet` it is [`OpenError::NoLocalSet`].
    pub async fn open<F: Front, W: Work<F>>(front: &Arc<F>, work: W) -> Result<Self, OpenError> {
        local_set()?;
        let waiting = VecDeque::new();
        let clerk = Clerk { front: Arc::downgrade(front), work, waiting, rests: false }.start();
        if !Post::attach(front, clerk.clone()).await? {
            return Err(OpenError::Taken);
        }
        front.begin().await?;
        let closing = Arc::downgrade(front);
        front.service().reach().closes(move |within| {
            let front = closing.upgrade()?;
            Some(Box::pin(front.close(within)))
        });
        Ok(Self { run: clerk.recipient() })
    }

    /// Runs something on the thread on which the desk was opened: what it makes may not be sent between threads.
    pub fn run(&self, run: impl FnOnce() -> LocalFuture<()> + Send + 'static) {
        self.run.do_send(Run(Box::new(run)));
    }
}

impl Clone for Desk {
    fn clone(&self) -> Self {
        Self { run: self.run.clone() }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// What the service tells. It is never full: each event belongs to something that the service bounds.
struct Post<F: Front, W: Work<F>> {
    front: Weak<F>,
    clerk: Addr<Clerk<F, W>>,
    standing: Arc<AtomicU8>,
}

/// The service has not taken it yet.
const NEW: u8 = 0;
/// The service has it: when it is dropped the service has ended.
const TAKEN: u8 = 1;
const DROPPED: u8 = 2;

impl<F: Front, W: Work<F>> Post<F, W> {
    /// Gives it to the service. False: another one is there.
    async fn attach(front: &Arc<F>, clerk: Addr<Clerk<F, W>>) -> Result<bool, ReachError> {
        let standing = Arc::new(AtomicU8::new(NEW));
        let post = Self { front: Arc::downgrade(front), clerk, standing: Arc::clone(&standing) };
        if front.service().attach(post).await?.is_none() {
            return Ok(false);
        }
        let taken = standing.compare_exchange(NEW, TAKEN, Ordering::SeqCst, Ordering::SeqCst);
        // It may have ended again meanwhile.
        taken.map(|_| true).map_err(|_| ReachError::NotMounted)
    }
}

impl<F: Front, W: Work<F>> Reader<EventOf<F>> for Post<F, W> {
    fn is_exclusive(&self) -> bool {
        self.front.strong_count() > 0
    }

    fn read(&mut self, events: Vec<EventOf<F>>) -> Offered {
        let Some(front) = self.front.upgrade() else { return Offered::Gone };
        let wanted: Vec<_> = events.into_iter().filter_map(|event| front.read(event)).collect();
        if !wanted.is_empty() {
            self.clerk.do_send(Wanted(wanted));
        }
        Offered::Room
    }
}

impl<F: Front, W: Work<F>> Drop for Post<F, W> {
    /// The service is gone: its node has ended, or was declared dead and begins anew.
    fn drop(&mut self) {
        if self.standing.swap(DROPPED, Ordering::SeqCst) == TAKEN {
            if let Some(front) = self.front.upgrade() {
                front.ended();
            }
            self.clerk.do_send(Gone);
        }
    }
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Wanted<E>(Vec<E>);

/// The service is gone.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Gone;

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Run(Box<dyn FnOnce() -> LocalFuture<()> + Send>);

/// The rest is worked on.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct GoOn;

struct Clerk<F: Front, W> {
    front: Weak<F>,
    work: W,
    /// In order. Each belongs to something that the service bounds.
    waiting: VecDeque<EventOf<F>>,
    /// Others on this thread have their turn first.
    rests: bool,
}

impl<F: Front, W: Work<F>> Clerk<F, W> {
    fn go_on(&mut self, at: &Context<Self>) {
        let Some(front) = self.front.upgrade() else { return };
        if self.rests {
            return;
        }
        for _ in 0..WORK_MAX {
            let Some(event) = self.waiting.pop_front() else { return };
            self.work.work(&front, event);
        }
        if !self.waiting.is_empty() {
            self.rests = true;
            let clerk = at.address();
            // It has its turn behind all that was begun.
            tokio::task::spawn_local(async move { clerk.do_send(GoOn) });
        }
    }
}

impl<F: Front, W: Work<F>> Unpin for Clerk<F, W> {}

impl<F: Front, W: Work<F>> Actor for Clerk<F, W> {
    type Context = Context<Self>;
}

impl<F: Front, W: Work<F>> Handler<Wanted<EventOf<F>>> for Clerk<F, W> {
    type Result = ();

    fn handle(&mut self, Wanted(events): Wanted<EventOf<F>>, at: &mut Context<Self>) {
        self.waiting.extend(events);
        self.go_on(at);
    }
}

impl<F: Front, W: Work<F>> Handler<GoOn> for Clerk<F, W> {
    type Result = ();

    fn handle(&mut self, GoOn: GoOn, at: &mut Context<Self>) {
        self.rests = false;
        self.go_on(at);
    }
}

impl<F: Front, W: Work<F>> Handler<Run> for Clerk<F, W> {
    type Result = ();

    fn handle(&mut self, Run(run): Run, _: &mut Context<Self>) {
        tokio::task::spawn_local(run());
    }
}

impl<F: Front, W: Work<F>> Handler<Gone> for Clerk<F, W> {
    type Result = ();

    fn handle(&mut self, Gone: Gone, at: &mut Context<Self>) {
        self.waiting.clear();
        self.work.ended(self.front.upgrade().as_ref());
        let (clerk, front) = (at.address(), self.front.clone());
        tokio::task::spawn_local(async move {
            loop {
                let Some(it) = front.upgrade() else { return };
                match Post::attach(&it, clerk.clone()).await {
                    // Another handle has been opened meanwhile.
                    Ok(false) => return,
                    Ok(true) => {
                        // If it is gone again, its end is told.
                        let _ = it.begin().await;
                        return;
                    }
                    Err(
                        ReachError::NotMounted
                        | ReachError::NotStarted
                        | ReachError::Fallen
                        | ReachError::Full,
                    ) => {}
                    Err(_) => return,
                }
                drop(it);
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}
