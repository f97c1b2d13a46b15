//! Actors that end while they serve, on real sockets: calls are told the truth, and those who watch are told.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use actix::{Actor, ActorContext as _, Context, Handler, Message};
use mainstay_rpc::{Config, Failure, Incoming, Parting, Procedure, Reason, Refusal, RpcHandle};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use stations::{Place, node, roster, station, within};

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Count;

impl Procedure for Count {
    const NAME: &'static str = "test.count";
}

/// The actor ends.
#[derive(Message)]
#[rtype(result = "()")]
struct End;

#[derive(Default)]
struct Counter(u64);

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = Result<u64, String>;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        self.0 += 1;
        Ok(self.0)
    }
}

impl Handler<Incoming<Count>> for Counter {
    type Result = Result<u64, String>;

    fn handle(&mut self, _: Incoming<Count>, _: &mut Context<Self>) -> Self::Result {
        self.0 += 1;
        Ok(self.0)
    }
}

impl Handler<End> for Counter {
    type Result = ();

    fn handle(&mut self, _: End, context: &mut Context<Self>) {
        context.stop();
    }
}

async fn serve(rpc: &RpcHandle, incoming: bool) -> actix::Addr<Counter> {
    let counter = Counter::default().start();
    match incoming {
        true => rpc.serve_incoming::<Count>(counter.clone().recipient()).await.unwrap(),
        false => rpc.serve::<Count>(counter.clone().recipient()).await.unwrap(),
    }
    counter
}

/// Waits until a node has so many watches of its own, and of others.
async fn watches(rpc: &RpcHandle, count: (usize, usize)) {
    while rpc.status().await.unwrap().watches != count {
        tokio::task::yield_now().await;
    }
}

/// Checks RPC-74: a call of an actor that has ended was not executed at all, from another node and from the own one; the procedure is withdrawn, and another actor
/// may serve it.
#[tokio::test]
async fn calls_of_an_actor_that_has_ended_were_not_executed() {
    let run = async {
        let roster = roster(2);
        let (_one, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
        let not_served = Failure::not_at_all(Reason::Refused(Refusal::Procedure));
        for (caller, incoming) in [(&client, false), (&server, false), (&client, true)] {
            let counter = serve(&server, incoming).await;
            let one = caller.to(node(1));
            assert_eq!(within(one.exactly_once(Count)).await, Ok(1));
            within(counter.send(End)).await.unwrap();
            // The first one finds out, the next one is told by the service.
            for _ in 0..3 {
                assert_eq!(within(one.exactly_once(Count)).await, Err(not_served.into()));
            }
        }
        // Nobody has called it since it ended; those who watch it are told, though another one is there at once.
        let counter = serve(&server, false).await;
        let watching = [client.clone(), server.clone()].map(|rpc| {
            tokio::task::spawn_local(async move { rpc.watch(node(1), Count::ID).await })
        });
        within(watches(&server, (1, 1))).await;
        within(counter.send(End)).await.unwrap();
        let counter = serve(&server, false).await;
        for told in watching {
            assert_eq!(within(told).await.unwrap(), Parting::Ended);
        }
        assert_eq!(within(client.to(node(1)).exactly_once(Count)).await, Ok(1));
        drop(counter);
    };
    LocalSet::new().run_until(run).await;
}

/// Polls a future once.
async fn once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// A watch that is dropped when it has just begun is taken back, also at a node whose queue of commands is waited for.
#[tokio::test]
async fn a_watch_that_is_dropped_at_once_is_taken_back() {
    let run = async {
        let roster = roster(2);
        let (_one, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
        let _counter = serve(&server, false).await;
        let caller = client.to(node(1)).unordered();
        for _ in 0..100 {
            // The call has the queue taken, before the watch is given.
            let mut call = Box::pin(caller.exactly_once(Count));
            assert!(once(&mut call).await.is_pending());
            let mut watching = Box::pin(client.watch(node(1), Count::ID));
            assert!(once(&mut watching).await.is_pending());
            drop(watching);
            within(call).await.unwrap();
        }
        within(watches(&client, (0, 0))).await;
        within(watches(&server, (0, 0))).await;
    };
    LocalSet::new().run_until(run).await;
}

/// Those who watch a procedure are told that its actor has ended, though nobody calls it; that it was withdrawn; that its node is gone; and that it is not served.
#[tokio::test]
async fn the_end_of_a_remote_actor_is_told() {
    let run = async {
        let roster = roster(2);
        let (_one, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        let (two, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
        let watching = |rpc: &RpcHandle| {
            let rpc = rpc.clone();
            tokio::task::spawn_local(async move { rpc.watch(node(1), Count::ID).await })
        };
        assert_eq!(within(watching(&client)).await.unwrap(), Parting::NotServed);
        let counter = serve(&server, false).await;
        let (far, near) = (watching(&client), watching(&server));
        within(watches(&server, (1, 1))).await;
        counter.do_send(End);
        for told in [far, near] {
            assert_eq!(within(told).await.unwrap(), Parting::Ended);
        }
        let _counter = serve(&server, false).await;
        let (told, dropped) = (watching(&client), watching(&client));
        within(watches(&server, (0, 2))).await;
        dropped.abort();
        within(watches(&server, (0, 1))).await;
        within(server.withdraw::<Count>()).await.unwrap();
        assert_eq!(within(told).await.unwrap(), Parting::Withdrawn);
        let _counter = serve(&server, false).await;
        let (far, near) = (watching(&client), watching(&server));
        within(watches(&server, (1, 1))).await;
        let closed = two.closed();
        two.stop();
        drop((two, server));
        within(closed).await;
        assert_eq!(within(near).await.unwrap(), Parting::Here);
        let (_again, _server) =
            station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
        assert_eq!(within(far).await.unwrap(), Parting::Lost);
    };
    LocalSet::new().run_until(run).await;
}
