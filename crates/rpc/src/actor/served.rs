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

pub(super) type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// A procedure that is served here, whatever serves it.
pub(super) trait Served: Send + Sync {
    /// Executes it.
    fn execute(&self, arguments: &Bytes, context: Context) -> Running<Finish>;

    /// Whether the future may be dropped when the execution is stopped; else it has to come to its end.
    fn may_drop(&self) -> bool;

    /// Itself, for calls that need no bytes.
    fn as_any(&self) -> &dyn Any;

    fn name(&self) -> &'static str;

    fn versions(&self) -> (u16, u16);
}

type Execute<P> = dyn Fn(P, Context) -> Running<Option<<P as ActorMessage>::Result>> + Send + Sync;

/// The same with its types. `None` as a result: what serves it is gone.
pub(super) struct Port<P: Procedure> {
    execute: Box<Execute<P>>,
    may_drop: bool,
    procedure: PhantomData<fn() -> P>,
}

impl<P: Procedure> Port<P> {
    /// An actor serves it.
    pub(super) fn actor(to: Recipient<P>) -> Arc<dyn Served> {
        let execute = move |arguments, _| -> Running<_> {
            let answer = to.send(arguments);
            Box::pin(async move { answer.await.ok() })
        };
        Self::of(Box::new(execute), false)
    }

    /// An actor that wants to know the context serves it.
    pub(super) fn incoming(to: Recipient<Incoming<P>>) -> Arc<dyn Served> {
        let execute = move |arguments, context| -> Running<_> {
            let answer = to.send(Incoming { arguments, context });
            Box::pin(async move { answer.await.ok() })
        };
        Self::of(Box::new(execute), false)
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
                let answer = answer.await.ok();
                drop(server);
                answer
            })
        };
        Self::of(Box::new(execute), false)
    }

    /// A function serves it.
    pub(super) fn function<F, R>(serve: F) -> Arc<dyn Served>
    where
        F: Fn(P, Context) -> R + Send + Sync + 'static,
        R: Future<Output = P::Result> + 'static,
    {
        let execute = move |arguments, context| -> Running<_> {
            let answer = serve(arguments, context);
            Box::pin(async move { Some(answer.await) })
        };
        Self::of(Box::new(execute), true)
    }

    fn of(execute: Box<Execute<P>>, may_drop: bool) -> Arc<dyn Served> {
        Arc::new(Self { execute, may_drop, procedure: PhantomData })
    }

    /// Executes it for a caller of this node.
    pub(super) fn call(&self, arguments: P, context: Context) -> Running<Option<P::Result>> {
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
                Some(Ok(value)) => Finish::Value(codec::encode(&value)),
                Some(Err(error)) => Finish::Error(codec::encode(&error)),
                None => Finish::Failed,
            }
        })
    }

    fn may_drop(&self) -> bool {
        self.may_drop
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
