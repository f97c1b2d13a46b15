//! What serves a procedure.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Handler};
use bytes::Bytes;
use mainstay_base::codec;
use mainstay_runtime::{ActorMessage, Recipient};

use super::servers::Made;
use super::{Context, Incoming, Procedure};
use crate::Finish;

/// Why there is no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoResult {
    /// What serves the procedure has ended, and was not given the call.
    NotServed,
    /// What serves it has failed, or has ended with the call.
    Failed,
}

pub(super) type Answer<R> = Result<R, NoResult>;

pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// A procedure that is served here, whatever serves it.
pub(super) trait Served: Send + Sync {
    /// Executes it.
    fn execute(&self, arguments: &Bytes, context: Context) -> Running<Finish>;

    /// Whether the future may be dropped when the execution is stopped; else it has to come to its end.
    fn may_drop(&self) -> bool;

    /// Whether what serves it is an actor that may end.
    fn may_end(&self) -> bool;

    /// Whether what serves it is there. What has ended does not come back.
    fn is_there(&self) -> bool;

    /// Itself, for calls that need no bytes.
    fn as_any(&self) -> &dyn Any;

    fn name(&self) -> &'static str;

    fn versions(&self) -> (u16, u16);
}

type Execute<P> = dyn Fn(P, Context) -> Running<Answer<<P as ActorMessage>::Result>> + Send + Sync;
type IsThere = Box<dyn Fn() -> bool + Send + Sync>;

/// The same with its types.
pub(super) struct Port<P: Procedure> {
    execute: Box<Execute<P>>,
    /// Of an actor that may end.
    is_there: Option<IsThere>,
    may_drop: bool,
    procedure: PhantomData<fn() -> P>,
}

/// Asks an actor. One that has ended before is surely not given it. One that ends meanwhile may have begun.
fn ask<M>(to: &Recipient<M>, message: M) -> Running<Answer<M::Result>>
where
    M: ActorMessage<Result: Send> + Send + 'static,
{
    if !to.connected() {
        return Box::pin(std::future::ready(Err(NoResult::NotServed)));
    }
    let answer = to.send(message);
    Box::pin(async move { answer.await.map_err(|_| NoResult::Failed) })
}

impl<P: Procedure> Port<P> {
    /// An actor serves it.
    pub(super) fn actor(to: Recipient<P>) -> Arc<dyn Served> {
        let there = to.clone();
        let execute = move |arguments, _| -> Running<_> { ask(&to, arguments) };
        Self::of(Box::new(execute), Some(Box::new(move || there.connected())), false)
    }

    /// An actor that wants to know the context serves it.
    pub(super) fn incoming(to: Recipient<Incoming<P>>) -> Arc<dyn Served> {
        let there = to.clone();
        let execute =
            move |arguments, context| -> Running<_> { ask(&to, Incoming { arguments, context }) };
        Self::of(Box::new(execute), Some(Box::new(move || there.connected())), false)
    }

    /// An actor that was made for its client serves it.
    pub(super) fn spawned<A>(servers: Arc<Made<A>>) -> Arc<dyn Served>
    where
        A: Actor + Handler<P>,
        A::Context: ToEnvelope<A, P>,
    {
        let execute = move |arguments, context: Context| -> Running<_> {
            let server = servers.of(&context);
            let answer = server.to().send(arguments);
            Box::pin(async move {
                let answer = answer.await.map_err(|_| NoResult::Failed);
                drop(server);
                answer
            })
        };
        Self::of(Box::new(execute), None, false)
    }

    /// A function serves it.
    pub(super) fn function<F, R>(serve: F) -> Arc<dyn Served>
    where
        F: Fn(P, Context) -> R + Send + Sync + 'static,
        R: Future<Output = P::Result> + 'static,
    {
        let execute = move |arguments, context| -> Running<_> {
            let answer = serve(arguments, context);
            Box::pin(async move { Ok(answer.await) })
        };
        Self::of(Box::new(execute), None, true)
    }

    fn of(execute: Box<Execute<P>>, is_there: Option<IsThere>, may_drop: bool) -> Arc<dyn Served> {
        Arc::new(Self { execute, is_there, may_drop, procedure: PhantomData })
    }

    /// Executes it for a caller of this node.
    pub(super) fn call(&self, arguments: P, context: Context) -> Running<Answer<P::Result>> {
        (self.execute)(arguments, context)
    }
}

impl<P: Procedure> Served for Port<P> {
    fn execute(&self, arguments: &Bytes, context: Context) -> Running<Finish> {
        let Ok(arguments) = codec::decode::<P>(arguments) else {
            return Box::pin(std::future::ready(Finish::BadArguments));
        };
        let answer = (self.execute)(arguments, context);
        Box::pin(async move {
            match answer.await.map(super::Reply::into_result) {
                Ok(Ok(value)) => Finish::Value(codec::encode(&value)),
                Ok(Err(error)) => Finish::Error(codec::encode(&error)),
                Err(NoResult::NotServed) => Finish::NotServed,
                Err(NoResult::Failed) => Finish::Failed,
            }
        })
    }

    fn may_drop(&self) -> bool {
        self.may_drop
    }

    fn may_end(&self) -> bool {
        self.is_there.is_some()
    }

    fn is_there(&self) -> bool {
        self.is_there.as_ref().is_none_or(|is_there| is_there())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &'static str {
        P::NAME
    }

    fn versions(&self) -> (u16, u16) {
        (P::OLDEST, P::VERSION)
    }
}
