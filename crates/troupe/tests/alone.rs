//! Troupes alone: stations on TCP, replicas that are actors.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message};
use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::Procedure;
use mainstay_runtime::{Events, Porter, Recipient};
use mainstay_service::{Placement, StationHandle, StationParts, start};
use mainstay_sim::free_addresses;
use mainstay_troupe::{
    Call, CallError, Collator, Config, Event, Failure, GiveState, JoinError, Reason, Refusal,
    TakeState, Troupes, TroupesHandle,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

fn cluster() -> ClusterId {
    ClusterId::from_entropy(3)
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Add(u64);

impl Procedure for Add {
    const NAME: &'static str = "counter.add";
}

/// A call that calls another troupe.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Twice(u64);

impl Procedure for Twice {
    const NAME: &'static str = "test.twice";
}

#[derive(Default)]
struct Counter {
    sum: u64,
    calls: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Add> for Counter {
    type Result = Result<u64, String>;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> Self::Result {
        self.calls += 1;
        self.sum = self.sum.checked_add(number).ok_or_else(|| "too much".to_owned())?;
        Ok(self.sum)
    }
}

impl Handler<GiveState> for Counter {
    type Result = Vec<u8>;

    fn handle(&mut self, GiveState: GiveState, _: &mut Context<Self>) -> Vec<u8> {
        [self.sum, self.calls].iter().flat_map(|it| it.to_le_bytes()).collect()
    }
}

impl Handler<TakeState> for Counter {
    type Result = ();

    fn handle(&mut self, TakeState(state): TakeState, _: &mut Context<Self>) {
        let word = |at: usize| u64::from_le_bytes(state[at..at + 8].try_into().unwrap());
        (self.sum, self.calls) = (word(0), word(8));
    }
}

#[derive(Message)]
#[rtype(result = "(u64, u64)")]
struct Look;

impl Handler<Look> for Counter {
    type Result = actix::MessageResult<Look>;

    fn handle(&mut self, Look: Look, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult((self.sum, self.calls))
    }
}

fn roster(count: usize) -> BTreeMap<String, SocketAddr> {
    let named = |(index, address)| (format!("n{index}"), address);
    free_addresses(count).into_iter().enumerate().map(named).collect()
}

async fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    beside: Option<Placement>,
) -> (StationHandle, TroupesHandle) {
    station_of(roster, index, beside, config()).await
}

fn config() -> Config {
    let binder = NodeId::new(cluster(), "n0");
    Config { settle: Duration::from_millis(50), ..Config::started_now(binder) }
}

async fn station_of(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    beside: Option<Placement>,
    config: Config,
) -> (StationHandle, TroupesHandle) {
    let parts = StationParts::tcp(cluster(), format!("n{index}"), roster.clone(), None).unwrap();
    let station = start(parts, |node| match beside {
        None => node.mount::<Troupes>("troupes", config).map(drop),
        Some(at) => node.beside::<Troupes>("troupes", at, config).map(drop),
    });
    let station = station.unwrap();
    let troupes = TroupesHandle::open(station.service("troupes")).await.unwrap();
    (station, troupes)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

async fn counter(troupes: &TroupesHandle) -> (mainstay_troupe::Replica, Addr<Counter>) {
    let counter = Counter::default().start();
    let part = troupes
        .troupe("counter")
        .serve(counter.clone().recipient::<Add>())
        .state(counter.clone().recipient(), counter.clone().recipient());
    (within(part.join()).await.unwrap(), counter)
}

/// Three replicas of a server, two of a client: each call is executed once in each; a new replica has the state; a collator by program; a station
/// that goes away.
async fn scenario(beside: Option<Placement>) {
    let roster = roster(4);
    let mut stations = Vec::new();
    for index in 0..4 {
        stations.push(station(&roster, index, beside).await);
    }
    let mut counters = Vec::new();
    for (_, troupes) in &stations[..2] {
        counters.push(counter(troupes).await);
    }
    assert!(counters[0].0.is_first() && !counters[1].0.is_first());
    let taken = stations[0].1.troupe("counter").join().await;
    assert_eq!(taken.map(drop), Err(JoinError::Taken));
    let mut clients = Vec::new();
    for (_, troupes) in &stations[2..] {
        clients.push(within(troupes.troupe("client").join()).await.unwrap());
    }
    let callers: Vec<_> = clients.iter().map(|it| it.to("counter", "main")).collect();
    for number in 1..=10u64 {
        for caller in &callers {
            let caller = caller.clone().collate(Collator::Unanimous);
            assert_eq!(within(caller.call(Add(1))).await, Ok(number));
        }
    }
    counters.push(counter(&stations[2].1).await);
    for (_, counter) in &counters {
        assert_eq!(counter.send(Look).await.unwrap(), (10, 10), "once for both clients");
    }
    // A program: the answers of all, added up.
    let sum = within(stations[3].1.to("counter").call_with(Add(5), |said, replicas| {
        let all = said.iter().filter_map(|it| it.result.as_ref().ok()).sum::<u64>();
        (said.len() == replicas).then_some(all)
    }));
    assert_eq!(sum.await, Ok(45));
    let caller = stations[3].1.to("counter").collate(Collator::Majority);
    let told = within(caller.call(Add(u64::MAX))).await;
    assert_eq!(told, Err(CallError::Remote("too much".to_owned())));
    let told = within(caller.call(Twice(1))).await;
    let Err(CallError::Failed(failure)) = told else { panic!("{told:?}") };
    assert_eq!(failure, Failure::not_at_all(Reason::Refused(Refusal::Procedure)));
    // One of three is gone: two are a majority.
    let (gone, troupes) = stations.remove(1);
    let closed = gone.closed();
    gone.stop();
    drop((gone, troupes, counters.remove(1)));
    within(closed).await;
    let caller = stations[2].1.to("counter").collate(Collator::Majority);
    assert_eq!(within(caller.call(Add(1))).await, Ok(16));
    let (replica, _) = &counters[0];
    drop(replica.clone());
}

#[tokio::test]
async fn mounted_on_stations() {
    LocalSet::new().run_until(scenario(None)).await;
}

#[tokio::test]
async fn beside_stations() {
    let run = async {
        scenario(Some(Placement::Local)).await;
        scenario(Some(Placement::Thread)).await;
    };
    LocalSet::new().run_until(run).await;
}

/// Checks RPC-47 with actors: a troupe of two calls another one, which executes each call once.
#[tokio::test]
async fn a_troupe_calls_a_troupe() {
    let run = async {
        let roster = roster(3);
        let mut stations = Vec::new();
        for index in 0..3 {
            stations.push(station(&roster, index, None).await);
        }
        let mut replicas = Vec::new();
        for (_, troupes) in &stations[..2] {
            let part = troupes.troupe("front").serve_fn(|Twice(number), context| async move {
                let back = context.to("counter");
                for _ in 0..2 {
                    back.call(Add(number)).await.map_err(|error| error.to_string())?;
                }
                back.call(Add(0)).await.map_err(|error| error.to_string())
            });
            replicas.push(within(part.join()).await.unwrap());
        }
        let (_replica, back) = counter(&stations[2].1).await;
        for round in 1..=5u64 {
            let caller = stations[2].1.to("front").collate(Collator::Unanimous);
            assert_eq!(within(caller.call(Twice(3))).await, Ok(6 * round));
        }
        assert_eq!(back.send(Look).await.unwrap(), (30, 15));
        drop(replicas);
    };
    LocalSet::new().run_until(run).await;
}

/// A node that is closed answers what it executes as a replica, and its client has the answer; then it leaves. What takes longer than its time is not waited for.
#[tokio::test]
async fn a_node_that_is_closed_answers() {
    let run = async {
        for (limit, answers) in [(LIMIT, true), (Duration::from_millis(100), false)] {
            let roster = roster(2);
            let (_binder, client) = station(&roster, 0, None).await;
            let (two, troupes) = station(&roster, 1, None).await;
            let (begin, mut begun) = mpsc::unbounded_channel();
            let (open, opens) = watch::channel(false);
            let part = troupes.troupe("slow").serve_fn(move |Twice(number), _| {
                let (begin, mut opens) = (begin.clone(), opens.clone());
                async move {
                    let _ = begin.send(());
                    let _ = opens.wait_for(|it| *it).await;
                    Ok(2 * number)
                }
            });
            let replica = within(part.join()).await.unwrap();
            let call = tokio::task::spawn_local(client.to("slow").call(Twice(4)));
            within(begun.recv()).await.unwrap();
            let closing = tokio::task::spawn_local(async move { two.close(limit).await });
            if answers {
                // It joins nothing from when it is being closed on; that the drain was heard is told behind it.
                let refused = async {
                    let part = || troupes.troupe("other").join();
                    while part().await.map(drop) != Err(JoinError::Closing) {}
                };
                within(refused).await;
                let status = within(troupes.status()).await.unwrap();
                assert!(status.executing == 1 && !closing.is_finished());
                open.send(true).unwrap();
                assert_eq!(within(call).await.unwrap(), Ok(8));
                within(replica.left()).await;
            }
            within(closing).await.unwrap();
            drop(replica);
        }
    };
    LocalSet::new().run_until(run).await;
}

/// A node that was drained joins nothing, and says so.
async fn a_drained_node(config: Config) {
    let (_station, troupes) = station_of(&roster(1), 0, None, config).await;
    let (replica, _) = counter(&troupes).await;
    within(troupes.drain()).await.unwrap();
    within(replica.left()).await;
    let told = within(troupes.troupe("counter").join()).await;
    assert_eq!(told.map(drop), Err(JoinError::Closing));
}

#[tokio::test]
async fn a_drained_node_joins_nothing() {
    LocalSet::new().run_until(a_drained_node(config())).await;
}

/// One that says that it was taken for dead is noticed.
#[cfg(feature = "test-util")]
#[tokio::test]
async fn a_drained_node_that_hides_it_is_noticed() {
    let fault = Some(mainstay_troupe::fault::Fault::HidesClosing);
    let run = async {
        let scene = a_drained_node(Config { fault, ..config() });
        assert!(tokio::task::spawn_local(scene).await.unwrap_err().is_panic());
    };
    LocalSet::new().run_until(run).await;
}

/// A node that drops its replica, or a join that took too long, and joins again at once is a replica again: nothing is left of what was before.
#[tokio::test]
async fn a_replica_that_is_dropped_joins_again_at_once() {
    let run = async {
        let roster = roster(2);
        let (_binder, client) = station(&roster, 0, None).await;
        let (_two, troupes) = station(&roster, 1, None).await;
        for _ in 0..3 {
            let (replica, _) = counter(&troupes).await;
            let callers = replica.to("counter", "main");
            drop(replica);
            let taken = troupes.troupe("counter").join().await;
            assert_eq!(taken.map(drop), Err(JoinError::Taken), "a caller of it is there");
            drop(callers);
        }
        for round in 0..3 {
            let name = format!("timed {round}");
            let mut joining = Box::pin(troupes.troupe(&name).join());
            let is_begun = std::future::poll_fn(|context| {
                std::task::Poll::Ready(joining.as_mut().poll(context).is_pending())
            });
            assert!(is_begun.await, "it takes messages");
            drop(joining);
            within(troupes.troupe(&name).join()).await.unwrap();
        }
        let (_replica, counter) = counter(&troupes).await;
        assert_eq!(within(client.to("counter").call(Add(3))).await, Ok(3));
        assert_eq!(counter.send(Look).await.unwrap(), (3, 1));
    };
    LocalSet::new().run_until(run).await;
}

/// An actor calls by a recipient and has no handle.
#[tokio::test]
async fn calls_are_messages() {
    let run = async {
        let (_station, troupes) = station(&roster(1), 0, None).await;
        let (_replica, _) = counter(&troupes).await;
        let door = Porter::start(troupes.to("counter"));
        let adds: Recipient<Call<Add>> = door.recipient();
        for number in 1..=3 {
            assert_eq!(within(adds.send(Call(Add(1)))).await.unwrap(), Ok(number));
        }
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

    fn handle(&mut self, mut events: Events<Event>, _: &mut Context<Self>) {
        for event in events.take() {
            let _ = self.0.send(event);
        }
    }
}

/// Any actor may subscribe to what the service tells, beside the handle: that the node is a replica, and what it executes.
#[tokio::test]
async fn actors_hear_the_events_of_the_service() {
    let run = async {
        let (station, troupes) = station(&roster(1), 0, None).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let ear: Recipient<Events<Event>> = Ear(tell).start().recipient();
        station.service::<Troupes>("troupes").subscribe(ear, 1_000).await.unwrap();
        let (_replica, _) = counter(&troupes).await;
        assert_eq!(within(troupes.to("counter").call(Add(3))).await, Ok(3));
        let mut next = async |wanted: fn(&Event) -> bool| {
            while !wanted(&told.recv().await.unwrap()) {}
        };
        within(next(|it| matches!(it, Event::Joined { is_first: true, .. }))).await;
        within(next(|it| matches!(it, Event::Execute(it) if it.procedure == Add::ID))).await;
        within(next(|it| matches!(it, Event::Over { .. }))).await;
    };
    LocalSet::new().run_until(run).await;
}

/// Nobody is a member: the deadline says so. A handle is opened once.
#[tokio::test]
async fn nobody_answers() {
    let run = async {
        let (station, troupes) = station(&roster(1), 0, None).await;
        let nobody = troupes.to("nobody").deadline(Duration::from_millis(50));
        let told = within(nobody.call(Add(1))).await;
        assert_eq!(told, Err(Failure::not_at_all(Reason::NotBound).into()));
        let again = TroupesHandle::open(station.service("troupes")).await;
        assert_eq!(again.map(drop), Err(mainstay_troupe::OpenError::Taken));
    };
    LocalSet::new().run_until(run).await;
}
