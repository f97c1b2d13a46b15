//! Actors that end while they serve, on real sockets: calls are told the truth, and those who watch are told.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

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
        // Nobody has called it since it ended.
        let counter = serve(&server, false).await;
        within(counter.send(End)).await.unwrap();
        let counter = serve(&server, false).await;
        assert_eq!(within(client.to(node(1)).exactly_once(Count)).await, Ok(1));
        drop(counter);
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
        let settled = async |rpc: &RpcHandle, count| {
            while rpc.status().await.unwrap().watches != count {
                tokio::task::yield_now().await;
            }
        };
        within(settled(&server, (1, 1))).await;
        counter.do_send(End);
        for told in [far, near] {
            assert_eq!(within(told).await.unwrap(), Parting::Ended);
        }
        let _counter = serve(&server, false).await;
        let (told, dropped) = (watching(&client), watching(&client));
        within(settled(&server, (0, 2))).await;
        dropped.abort();
        within(settled(&server, (0, 1))).await;
        within(server.withdraw::<Count>()).await.unwrap();
        assert_eq!(within(told).await.unwrap(), Parting::Withdrawn);
        let _counter = serve(&server, false).await;
        let (far, near) = (watching(&client), watching(&server));
        within(settled(&server, (1, 1))).await;
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
