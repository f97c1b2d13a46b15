//! The service of calls alone: stations on TCP, procedures that actors serve.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::time::Duration;

use actix::{Actor, ActorContext as _, Context, Handler, Message, ResponseFuture};
use mainstay_base::service::ReaderId;
use mainstay_rpc::{
    CallError, Config, Event, Executed, Failure, Idempotent, Incoming, Orphans, Outcome, Procedure,
    Reason, Refusal, RpcHandle, ServeError,
};
use mainstay_runtime::Events;
use mainstay_service::Placement;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use stations::{Place, futures, node, roster, station, within};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Overdrawn {
    by: u64,
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, Overdrawn>")]
struct Withdraw(u64);

impl Procedure for Withdraw {
    const NAME: &'static str = "bank.withdraw";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, Overdrawn>")]
struct Balance;

impl Procedure for Balance {
    const NAME: &'static str = "bank.balance";
}

impl Idempotent for Balance {}

/// Has itself called back by the server.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Back(u64);

impl Procedure for Back {
    const NAME: &'static str = "test.back";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), String>")]
struct Sleep(u64);

impl Procedure for Sleep {
    const NAME: &'static str = "test.sleep";
}

struct Bank {
    balance: u64,
}

impl Actor for Bank {
    type Context = Context<Self>;
}

impl Handler<Withdraw> for Bank {
    type Result = Result<u64, Overdrawn>;

    fn handle(&mut self, Withdraw(amount): Withdraw, _: &mut Context<Self>) -> Self::Result {
        match self.balance.checked_sub(amount) {
            Some(left) => {
                self.balance = left;
                Ok(left)
            }
            None => Err(Overdrawn { by: amount - self.balance }),
        }
    }
}

impl Handler<Balance> for Bank {
    type Result = Result<u64, Overdrawn>;

    fn handle(&mut self, Balance: Balance, _: &mut Context<Self>) -> Self::Result {
        Ok(self.balance)
    }
}

struct Mirror;

impl Actor for Mirror {
    type Context = Context<Self>;
}

impl Handler<Incoming<Back>> for Mirror {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, back: Incoming<Back>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            let Back(depth) = back.arguments;
            if depth == 0 {
                return Ok(0);
            }
            let client = back.context.client();
            let deeper = back.context.to(client).exactly_once(Back(depth - 1)).await;
            deeper.map(|it| it + 1).map_err(|it| it.to_string())
        })
    }
}

async fn serve_bank(rpc: &RpcHandle, balance: u64) {
    let bank = Bank { balance }.start();
    rpc.serve::<Withdraw>(bank.clone().recipient()).await.unwrap();
    rpc.serve::<Balance>(bank.recipient()).await.unwrap();
}

/// Checks RPC-9 and RPC-11: values, errors and refusals as a caller sees them, from another node and from the own one.
async fn bank_scenario(place: Place) {
    let roster = roster(2);
    let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
    let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
    serve_bank(&server, 100).await;
    for bank in [client.to(node(1)), server.to(node(1))] {
        assert_eq!(within(bank.exactly_once(Withdraw(30))).await, Ok(70));
        let told = within(bank.exactly_once(Withdraw(1_000))).await;
        assert_eq!(told, Err(CallError::Remote(Overdrawn { by: 930 })));
        assert_eq!(within(bank.at_least_once(Balance)).await, Ok(70));
        let told = within(bank.exactly_once(Back(1))).await;
        let refused = Failure::not_at_all(Reason::Refused(Refusal::Procedure));
        assert_eq!(told, Err(refused.into()));
        server.withdraw::<Withdraw>().await.unwrap();
        server.withdraw::<Balance>().await.unwrap();
        serve_bank(&server, 100).await;
    }
    within(client.to(node(1)).maybe(Withdraw(1))).await.unwrap();
    let taken = server.serve::<Withdraw>(Bank { balance: 0 }.start().recipient()).await;
    assert_eq!(taken, Err(ServeError::Taken("bank.withdraw")));
    // By name, in a burst of one caller: in order.
    let bank = client.to_name("n1").unwrap();
    let calls = (0..50).map(|_| bank.exactly_once(Withdraw(1)));
    let told = within(futures(calls)).await;
    let mut left = told.into_iter().map(|it| it.unwrap());
    let first = left.next().unwrap();
    assert!((49..=99).contains(&first));
    assert!(left.zip(1..).all(|(it, number)| it == first - number));
}

#[tokio::test]
async fn mounted_on_a_station() {
    LocalSet::new().run_until(bank_scenario(Place::Mounted)).await;
}

#[tokio::test]
async fn beside_a_station() {
    LocalSet::new().run_until(bank_scenario(Place::Beside(Placement::Local))).await;
}

#[tokio::test]
async fn beside_a_station_on_a_thread_of_its_own() {
    LocalSet::new().run_until(bank_scenario(Place::Beside(Placement::Thread))).await;
}

/// A callback within a call, four deep, is no deadlock.
#[tokio::test]
async fn callbacks_go_there_and_back() {
    let run = async {
        let roster = roster(2);
        let place = Place::Mounted;
        let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
        for rpc in [&client, &server] {
            rpc.serve_incoming::<Back>(Mirror.start().recipient()).await.unwrap();
        }
        let told = within(client.to(node(1)).exactly_once(Back(4))).await;
        assert_eq!(told, Ok(4));
    };
    LocalSet::new().run_until(run).await;
}

/// What a test sees of executions.
struct Seen {
    begun: mpsc::UnboundedReceiver<()>,
    stopped: oneshot::Receiver<bool>,
}

/// Serves [`Sleep`]; tells when one begins, and whether it came to its end or was dropped.
async fn serve_sleep(rpc: &RpcHandle) -> Seen {
    let (begin, begun) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let stop = std::sync::Mutex::new(Some(stop));
    let serve = move |Sleep(millis), _| {
        let _ = begin.send(());
        let stop = Guard(stop.lock().unwrap().take());
        async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            stop.done();
            Ok(())
        }
    };
    rpc.serve_fn::<Sleep, _, _>(serve).await.unwrap();
    Seen { begun, stopped }
}

struct Guard(Option<oneshot::Sender<bool>>);

impl Guard {
    fn done(mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(true);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(false);
        }
    }
}

/// Checks RPC-20 with real clocks: an execution is ended before its client gives up. A future that is dropped ends it as well.
#[tokio::test]
async fn executions_end_with_their_calls() {
    let run = async {
        let roster = roster(2);
        let place = Place::Mounted;
        let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
        let seen = serve_sleep(&server).await;
        let sleeper = client.to(node(1)).deadline(Duration::from_millis(200));
        let told = within(sleeper.exactly_once(Sleep(60_000))).await.unwrap_err();
        let failure = *told.failure().unwrap();
        assert_eq!(failure.executed, Executed::NotMoreThanOnce, "{failure:?}");
        assert!(!within(seen.stopped).await.unwrap(), "it was ended");
        server.withdraw::<Sleep>().await.unwrap();
        let mut seen = serve_sleep(&server).await;
        let call = client.to(node(1)).exactly_once(Sleep(60_000));
        let mut call = Box::pin(call);
        tokio::select! {
            _ = seen.begun.recv() => {}
            told = &mut call => panic!("{told:?}"),
        }
        drop(call);
        assert!(!within(seen.stopped).await.unwrap(), "it was taken back");
        let late = client.to(node(1)).deadline(Duration::ZERO).exactly_once(Sleep(1)).await;
        assert_eq!(late, Err(Failure::not_at_all(Reason::TooLate).into()));
    };
    LocalSet::new().run_until(run).await;
}

/// With the last handle what it serves is withdrawn.
#[tokio::test]
async fn a_handle_that_is_dropped_serves_no_more() {
    let run = async {
        let roster = roster(2);
        let place = Place::Mounted;
        let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
        serve_bank(&server, 100).await;
        let bank = client.to(node(1));
        assert_eq!(within(bank.exactly_once(Withdraw(30))).await, Ok(70));
        drop(server);
        let refused = Failure::not_at_all(Reason::Refused(Refusal::Procedure));
        assert_eq!(within(bank.exactly_once(Withdraw(30))).await, Err(refused.into()));
    };
    LocalSet::new().run_until(run).await;
}

/// Drained, a server answers what it took, and refuses the rest.
#[tokio::test]
async fn a_server_drains() {
    let run = async {
        let roster = roster(2);
        let place = Place::Mounted;
        let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
        let mut seen = serve_sleep(&server).await;
        let sleeper = client.to(node(1)).unordered();
        let taken = tokio::task::spawn_local({
            let sleeper = sleeper.clone();
            async move { sleeper.exactly_once(Sleep(100)).await }
        });
        within(seen.begun.recv()).await.unwrap();
        within(server.drain()).await.unwrap();
        assert_eq!(within(taken).await.unwrap(), Ok(()), "what was taken is answered");
        let told = within(sleeper.exactly_once(Sleep(1))).await;
        assert_eq!(told, Err(Failure::not_at_all(Reason::Refused(Refusal::Draining)).into()));
    };
    LocalSet::new().run_until(run).await;
}

/// A node that is closed answers what it took, refuses what comes meanwhile, and ends what takes too long; each caller is told the truth.
#[tokio::test]
async fn a_node_that_is_closed_drains() {
    let run = async {
        for (millis, limit) in [(100, 20_000), (60_000, 100)] {
            let roster = roster(2);
            let (place, config) =
                (Place::Mounted, Config { executions_max: 1, ..Config::started_now() });
            let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
            let (two, server) = station(&roster, 1, place, config, None).await;
            let mut seen = serve_sleep(&server).await;
            let sleeper = client.to(node(1)).unordered();
            let ask = |millis| {
                let sleeper = sleeper.clone();
                tokio::task::spawn_local(async move { sleeper.exactly_once(Sleep(millis)).await })
            };
            let begun = ask(millis);
            within(seen.begun.recv()).await.unwrap();
            // It waits for a place.
            let held = ask(1);
            while server.status().await.unwrap().kept < 2 {
                tokio::task::yield_now().await;
            }
            let closing =
                tokio::task::spawn_local(
                    async move { two.close(Duration::from_millis(limit)).await },
                );
            while ask(1).await.unwrap().is_ok() {}
            let (begun, held) = (within(begun).await.unwrap(), within(held).await.unwrap());
            let draining = Err(Failure::not_at_all(Reason::Refused(Refusal::Draining)).into());
            if millis == 100 {
                assert_eq!((begun, held), (Ok(()), Ok(())), "what was accepted is answered");
            } else {
                let aborted = Reason::Refused(Refusal::Aborted);
                let failure = Failure { executed: Executed::NotMoreThanOnce, reason: aborted };
                assert_eq!((begun, held), (Err(failure.into()), draining));
            }
            within(closing).await.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}

/// Checks RPC-3 and RPC-15 on real sockets: a restart of a server that remembers nothing fails what was executed, and nothing is executed
/// twice; one that remembers answers again.
#[tokio::test]
async fn a_server_is_restarted() {
    let run = async {
        for stored in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let disk = stored.then(|| directory.path());
            let roster = roster(2);
            let config = || Config { stored, ..Config::started_now() };
            let place = Place::Mounted;
            let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
            let (two, server) = station(&roster, 1, place, config(), disk).await;
            serve_bank(&server, 100).await;
            let bank = client.to(node(1));
            assert_eq!(within(bank.exactly_once(Withdraw(1))).await, Ok(99));
            let mut seen = serve_sleep(&server).await;
            let call = tokio::task::spawn_local({
                let bank = bank.clone();
                async move { bank.exactly_once(Sleep(60_000)).await }
            });
            within(seen.begun.recv()).await.unwrap();
            let lost = tokio::task::spawn_local({
                let client = client.clone();
                async move { client.lost(node(1)).await }
            });
            tokio::task::yield_now().await;
            let closed = two.closed();
            two.stop();
            drop((two, server));
            within(closed).await;
            let (_again, server) = station(&roster, 1, place, config(), disk).await;
            serve_bank(&server, 50).await;
            let told = within(call).await.unwrap().unwrap_err();
            let failure = *told.failure().unwrap();
            assert_eq!(failure.executed, Executed::NotMoreThanOnce);
            let why =
                [Reason::ServerLost, Reason::Refused(Refusal::Restarted)][usize::from(stored)];
            assert_eq!(failure.reason, why);
            within(lost).await.unwrap();
            assert_eq!(within(bank.exactly_once(Withdraw(1))).await, Ok(49));
        }
    };
    LocalSet::new().run_until(run).await;
}

/// What a server has been told by its client.
struct Sum(u64);

impl Actor for Sum {
    type Context = Context<Self>;
}

impl Handler<Withdraw> for Sum {
    type Result = Result<u64, Overdrawn>;

    fn handle(&mut self, Withdraw(amount): Withdraw, _: &mut Context<Self>) -> Self::Result {
        self.0 += amount;
        Ok(self.0)
    }
}

/// Each client has a server of its own, a new life of a client another one, and one that nobody calls disappears.
#[tokio::test]
async fn servers_are_made_for_clients() {
    let run = async {
        let roster = roster(3);
        let place = Place::Mounted;
        let (_server, server) = station(&roster, 0, place, Config::started_now(), None).await;
        let idle = Duration::from_millis(1_500);
        let servers = server.servers(idle, |_| Sum(0).start());
        servers.serve::<Withdraw>().await.unwrap();
        let (one, first) = station(&roster, 1, place, Config::started_now(), None).await;
        let (_two, second) = station(&roster, 2, place, Config::started_now(), None).await;
        for (client, told) in [(&first, 1), (&first, 2), (&second, 1), (&first, 3)] {
            assert_eq!(within(client.to(node(0)).exactly_once(Withdraw(1))).await, Ok(told));
        }
        assert_eq!(servers.count(), 2);
        let closed = one.closed();
        one.stop();
        drop((one, first));
        within(closed).await;
        let (_again, first) = station(&roster, 1, place, Config::started_now(), None).await;
        let told = within(first.to(node(0)).exactly_once(Withdraw(1))).await;
        assert_eq!(told, Ok(1), "a new life, a new server");
        let gone = async {
            while servers.count() > 0 {
                tokio::time::sleep(idle / 10).await;
            }
        };
        within(gone).await;
        assert_eq!(within(second.to(node(0)).exactly_once(Withdraw(1))).await, Ok(1));
    };
    LocalSet::new().run_until(run).await;
}

/// Says when it is gone.
struct Mortal(mpsc::UnboundedSender<()>);

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Actor for Mortal {
    type Context = Context<Self>;
}

impl Handler<Withdraw> for Mortal {
    type Result = Result<u64, Overdrawn>;

    fn handle(&mut self, _: Withdraw, _: &mut Context<Self>) -> Self::Result {
        Ok(0)
    }
}

/// Checks RPC-71 on real sockets: the server of a client that stays away ends by the terminator, long before it has been idle for its time; that of a client that
/// lives does not.
#[tokio::test]
async fn a_server_made_for_a_client_ends_with_it() {
    let run = async {
        let roster = roster(3);
        let place = Place::Mounted;
        let (period, lease) = (Duration::from_millis(100), Duration::from_millis(300));
        let orphans = Orphans::Terminator { period, lease };
        let config = || Config { orphans, ..Config::started_now() };
        let (_server, server) = station(&roster, 0, place, config(), None).await;
        let (tell, mut gone) = mpsc::unbounded_channel();
        let make = move |_| Mortal(tell.clone()).start();
        let servers = server.servers(Duration::from_secs(3_600), make);
        servers.serve::<Withdraw>().await.unwrap();
        let (one, first) = station(&roster, 1, place, config(), None).await;
        let (_two, second) = station(&roster, 2, place, config(), None).await;
        for client in [&first, &second] {
            within(client.to(node(0)).exactly_once(Withdraw(1))).await.unwrap();
        }
        assert_eq!(servers.count(), 2);
        let closed = one.closed();
        one.stop();
        drop((one, first));
        within(closed).await;
        within(gone.recv()).await.unwrap();
        assert_eq!((servers.count(), gone.try_recv().is_err()), (1, true));
        within(second.to(node(0)).exactly_once(Withdraw(1))).await.unwrap();
        assert_eq!(servers.count(), 1);
    };
    LocalSet::new().run_until(run).await;
}

/// Hears what a service tells.
struct Ear(mpsc::UnboundedSender<Event>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Events<Event>> for Ear {
    type Result = ();

    fn handle(&mut self, mut events: Events<Event>, context: &mut Context<Self>) {
        for event in events.take() {
            let _ = self.0.send(event);
        }
        if events.is_end() {
            context.stop();
        }
    }
}

async fn hear(rpc: &RpcHandle) -> (mpsc::UnboundedReceiver<Event>, ReaderId) {
    let (tell, told) = mpsc::unbounded_channel();
    let reader = rpc.service().subscribe(Ear(tell).start().recipient(), 1_000).await.unwrap();
    (told, reader)
}

/// Any actor may subscribe to what the service tells, beside the handle: it hears of an execution at the server and of the outcome at the client, and of the end of its subscription.
#[tokio::test]
async fn actors_hear_the_events_of_the_service() {
    let run = async {
        let roster = roster(2);
        let place = Place::Mounted;
        let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, place, Config::started_now(), None).await;
        serve_bank(&server, 100).await;
        let ((mut far, _), (mut near, reader)) = (hear(&client).await, hear(&server).await);
        assert_eq!(within(client.to(node(1)).exactly_once(Withdraw(30))).await, Ok(70));
        let is_executed = |it: Event| match it {
            Event::Execute(it) => it.procedure == Withdraw::ID && it.client == node(0),
            _ => false,
        };
        within(async { while !is_executed(near.recv().await.unwrap()) {} }).await;
        let is_over = |it: Event| matches!(it, Event::Over { outcome: Outcome::Done(_), .. });
        within(async { while !is_over(far.recv().await.unwrap()) {} }).await;
        server.service().unsubscribe(reader).await.unwrap();
        within(async { while near.recv().await.is_some() {} }).await;
    };
    LocalSet::new().run_until(run).await;
}

thread_local! {
    static ENCODED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Counts how often it is encoded.
#[derive(Deserialize, Message)]
#[rtype(result = "Result<u64, Overdrawn>")]
struct Counted(u64);

impl Serialize for Counted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.set(ENCODED.get() + 1);
        serializer.serialize_newtype_struct("Counted", &self.0)
    }
}

impl Procedure for Counted {
    const NAME: &'static str = "test.counted";
}

/// Checks RPC-60, what makes it so: a call of the own node is encoded by nobody, gives the service no turn and sends nothing. How much more it costs than a plain ask
/// is measured and judged by the case `rpc/local/64B` of the bench.
#[tokio::test]
async fn a_local_call_costs_no_turn() {
    LocalSet::new().run_until(local_calls(Config::started_now())).await;
}

async fn local_calls(config: Config) {
    let roster = roster(2);
    let place = Place::Mounted;
    let (_one, client) = station(&roster, 0, place, Config::started_now(), None).await;
    let (_two, server) = station(&roster, 1, place, config, None).await;
    server.serve_fn(|Counted(it), _| async move { Ok(it) }).await.unwrap();
    let counts = async || {
        let status = server.status().await.unwrap();
        (status.sent, status.served.begun, ENCODED.get())
    };
    let before = counts().await;
    for number in 0..100 {
        assert_eq!(within(server.to(node(1)).exactly_once(Counted(number))).await, Ok(number));
    }
    assert_eq!(counts().await, before);
    assert_eq!(within(client.to(node(1)).exactly_once(Counted(1))).await, Ok(1));
    assert_eq!(counts().await.2, before.2 + 1, "it is counted");
}

/// Checks RPC-60: a call of the own node that is encoded is noticed.
#[cfg(feature = "test-util")]
#[tokio::test]
async fn a_local_call_that_is_encoded_is_noticed() {
    let fault = Some(mainstay_rpc::fault::Fault::EncodesLocals);
    let run = async {
        let scene = local_calls(Config { fault, ..Config::started_now() });
        assert!(tokio::task::spawn_local(scene).await.unwrap_err().is_panic());
    };
    LocalSet::new().run_until(run).await;
}
