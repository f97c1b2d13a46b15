//! Adoption on real sockets: one who calls, two that can do what it wants, and the one that both call.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use actix::Message;
use mainstay_rpc::{
    CallError, CallName, Config, Executed, Failure, Orphans, Procedure, Reason, Refusal, RpcHandle,
};
use mainstay_service::StationHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use stations::{Place, node, roster, station, within};

const KEEP: Duration = Duration::from_secs(60);

#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Order(u64);

impl Procedure for Order {
    const NAME: &'static str = "test.order";
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Pay(u64);

impl Procedure for Pay {
    const NAME: &'static str = "test.pay";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Audit(u64);

impl Procedure for Audit {
    const NAME: &'static str = "test.audit";
}

/// Serves orders, for each of which is paid at the last node. `stuck` is told when that was done, and then nothing more is.
async fn serve_orders(rpc: &RpcHandle, count: &Arc<AtomicU64>, stuck: Option<mpsc::Sender<()>>) {
    let count = Arc::clone(count);
    let serve = move |Order(amount), context: mainstay_rpc::Context| {
        count.fetch_add(1, SeqCst);
        let (bank, stuck) = (context.to(node(3)), stuck.clone());
        async move {
            let told = bank.exactly_once(Pay(amount)).await.map_err(|it| it.to_string());
            if let Some(stuck) = stuck {
                let _ = stuck.send(()).await;
                std::future::pending::<()>().await;
            }
            told
        }
    };
    rpc.serve_fn::<Order, _, _>(serve).await.unwrap();
}

/// Checks RPC-24, RPC-25 and RPC-72 on real sockets: the primary is gone after it has paid. The secondary does not pay again, and neither does the client
/// that asks once more.
#[tokio::test]
async fn who_stands_in_does_not_pay_again() {
    let run = async {
        let orphans = Orphans::Adoption { keep: KEEP, names_max: 1_000, bytes_max: 1 << 20 };
        let config = || Config { orphans, deadline_max: KEEP / 2, ..Config::started_now() };
        let (roster, place) = (roster(4), Place::Mounted);
        let (_client, client) = station(&roster, 0, place, config(), None).await;
        let (one, primary) = station(&roster, 1, place, config(), None).await;
        let (_two, secondary) = station(&roster, 2, place, config(), None).await;
        let (_bank, bank) = station(&roster, 3, place, config(), None).await;
        let (orders, paid) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let pays = Arc::clone(&paid);
        let pay = move |Pay(amount), _| {
            let number = pays.fetch_add(1, SeqCst) + 1;
            async move { Ok(1_000 * number + amount) }
        };
        bank.serve_fn::<Pay, _, _>(pay).await.unwrap();
        let (stick, mut stuck) = mpsc::channel(1);
        serve_orders(&primary, &orders, Some(stick)).await;
        serve_orders(&secondary, &orders, None).await;
        let shop = client.among([node(1), node(2)]).deadline(Duration::from_secs(2));
        let name = CallName::new(77);
        let ask = || shop.adopted(name.clone(), Order(5));
        let stop = async {
            stuck.recv().await.unwrap();
            let closed = one.closed();
            one.stop();
            drop((one, primary));
            closed.await;
        };
        let (told, ()) = within(async { tokio::join!(ask(), stop) }).await;
        assert_eq!(told, Ok(1_005), "RPC-24");
        assert_eq!((orders.load(SeqCst), paid.load(SeqCst)), (2, 1), "RPC-72");
        assert_eq!(within(ask()).await, Ok(1_005), "RPC-25");
        assert_eq!((orders.load(SeqCst), paid.load(SeqCst)), (2, 1), "RPC-25");
    };
    LocalSet::new().run_until(Box::pin(run)).await;
}

/// A cluster of four with a bank at the last node, which counts what is paid.
async fn with_bank(keep: Duration) -> (Vec<(StationHandle, RpcHandle)>, Arc<AtomicU64>) {
    let orphans = Orphans::Adoption { keep, names_max: 1_000, bytes_max: 1 << 20 };
    let config = || Config { orphans, deadline_max: keep / 2, ..Config::started_now() };
    let roster = roster(4);
    let mut stations = Vec::new();
    for index in 0..4 {
        stations.push(station(&roster, index, Place::Mounted, config(), None).await);
    }
    let paid = Arc::<AtomicU64>::default();
    let pays = Arc::clone(&paid);
    let pay = move |Pay(amount), _| {
        let number = pays.fetch_add(1, SeqCst) + 1;
        async move { Ok(1_000 * number + amount) }
    };
    stations[3].1.serve_fn::<Pay, _, _>(pay).await.unwrap();
    (stations, paid)
}

/// The one at index 1 has paid, and is gone before it answers.
async fn lose(stations: &mut Vec<(StationHandle, RpcHandle)>) {
    let (one, primary) = stations.remove(1);
    let closed = one.closed();
    one.stop();
    drop((one, primary));
    closed.await;
}

/// Checks RPC-72: a call with a name is not made to the own node, where names are not known: what stands in for the primary is another one.
#[tokio::test]
async fn a_named_call_is_not_made_to_the_own_node() {
    let run = async {
        let (mut stations, paid) = with_bank(KEEP).await;
        let (stick, mut stuck) = mpsc::channel(1);
        let orders = Arc::<AtomicU64>::default();
        serve_orders(&stations[1].1, &orders, Some(stick)).await;
        serve_orders(&stations[2].1, &orders, None).await;
        let shop = stations[2].1.among([node(1), node(2)]).deadline(Duration::from_secs(2));
        let ask = shop.adopted(CallName::new(78), Order(5));
        let stop = async {
            stuck.recv().await.unwrap();
            lose(&mut stations).await;
        };
        let (told, ()) = within(async { tokio::join!(ask, stop) }).await;
        let failure = Failure { executed: Executed::NotMoreThanOnce, reason: Reason::ToSelf };
        assert_eq!(told, Err(failure.into()));
        assert_eq!((orders.load(SeqCst), paid.load(SeqCst)), (1, 1));
        let own = stations[1].1.to(node(2)).named(CallName::new(79));
        let told = within(own.exactly_once(Order(6))).await;
        assert_eq!(told, Err(Failure::not_at_all(Reason::ToSelf).into()));
        assert_eq!(within(own.exactly_once(Order(6))).await, Ok(2_006), "the next one has no name");
    };
    LocalSet::new().run_until(Box::pin(run)).await;
}

/// Checks RPC-24 and RPC-72: calls have the same numbers wherever their execution runs, also if they go to the node of one of those that execute it.
#[tokio::test]
async fn calls_to_the_own_node_have_numbers() {
    let run = async {
        let (mut stations, paid) = with_bank(KEEP).await;
        let (stick, mut stuck) = mpsc::channel(1);
        for index in [1, 2] {
            let stick = (index == 1).then(|| stick.clone());
            // Both ask one of them first: what that does pays as well, and so has a call at a level of its own.
            let audit = |Audit(amount), context: mainstay_rpc::Context| async move {
                context.to(node(3)).exactly_once(Pay(amount)).await.map_err(|it| it.to_string())
            };
            let order = move |Order(amount), context: mainstay_rpc::Context| {
                let stick = stick.clone();
                async move {
                    let text = |it: CallError<String>| it.to_string();
                    let first =
                        context.to(node(2)).exactly_once(Audit(amount)).await.map_err(text)?;
                    let second =
                        context.to(node(3)).exactly_once(Pay(amount)).await.map_err(text)?;
                    if let Some(stick) = stick {
                        let _ = stick.send(()).await;
                        std::future::pending::<()>().await;
                    }
                    Ok(first * 10_000 + second)
                }
            };
            stations[index].1.serve_fn::<Audit, _, _>(audit).await.unwrap();
            stations[index].1.serve_fn::<Order, _, _>(order).await.unwrap();
        }
        let shop = stations[0].1.among([node(1), node(2)]).deadline(Duration::from_secs(2));
        let ask = shop.adopted(CallName::new(80), Order(5));
        let stop = async {
            stuck.recv().await.unwrap();
            lose(&mut stations).await;
        };
        let (told, ()) = within(async { tokio::join!(ask, stop) }).await;
        assert_eq!(told, Ok(10_052_005), "RPC-24");
        assert_eq!(paid.load(SeqCst), 2, "RPC-72");
    };
    LocalSet::new().run_until(Box::pin(run)).await;
}

/// An execution that another caller wants for longer has that time for its own calls as well. A name is for one call.
#[tokio::test]
async fn who_wants_it_for_longer_gives_it_time() {
    let run = async {
        let (stations, paid) = with_bank(KEEP).await;
        let (gate, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (waits, begins) = (Arc::clone(&gate), Arc::clone(&begun));
        let order = move |Order(amount), context: mainstay_rpc::Context| {
            let (gate, begun) = (Arc::clone(&waits), Arc::clone(&begins));
            async move {
                begun.notify_one();
                gate.notified().await;
                let bank = context.to(node(3));
                bank.exactly_once(Pay(amount)).await.map_err(|it| it.to_string())
            }
        };
        stations[1].1.serve_fn::<Order, _, _>(order).await.unwrap();
        let ask = |from: usize, millis| {
            let caller = stations[from].1.to(node(1)).deadline(Duration::from_millis(millis));
            caller.named(CallName::new(81)).exactly_once(Order(5))
        };
        let first = async {
            let told = ask(0, 2_000).await;
            gate.notify_one();
            told
        };
        let second = async {
            begun.notified().await;
            ask(2, 10_000).await
        };
        // The second one's way is open before it is needed.
        let audit = |Audit(amount), _| async move { Ok(amount) };
        stations[1].1.serve_fn::<Audit, _, _>(audit).await.unwrap();
        assert_eq!(within(stations[2].1.to(node(1)).exactly_once(Audit(1))).await, Ok(1));
        let (first, second) = within(async { tokio::join!(first, second) }).await;
        assert!(first.is_err(), "its time was over");
        assert_eq!((second, paid.load(SeqCst)), (Ok(1_005), 1));
        let bank = stations[0].1.to(node(3)).named(CallName::new(82));
        assert_eq!(within(bank.exactly_once(Pay(1))).await, Ok(2_001));
        assert_eq!(within(bank.exactly_once(Pay(1))).await, Ok(3_001), "another call");
    };
    LocalSet::new().run_until(Box::pin(run)).await;
}

/// Checks RPC-72: nobody is asked any more when what was called first may be forgotten.
#[tokio::test]
async fn servers_are_asked_for_as_long_as_results_are_kept() {
    let run = async {
        let keep = Duration::from_secs(1);
        let (stations, paid) = with_bank(keep).await;
        // Two that are not there, for half of the time each.
        let banks = stations[0].1.among([node(8), node(9), node(3)]).deadline(keep / 2);
        let told = within(banks.adopted(CallName::new(83), Pay(5))).await;
        assert_eq!(told, Err(Failure::not_at_all(Reason::TooLate).into()));
        assert_eq!(paid.load(SeqCst), 0);
    };
    LocalSet::new().run_until(Box::pin(run)).await;
}

/// Checks RPC-74 and RPC-3: where two servers began the call and neither had a result in time, it may have been executed twice, and nobody says less. One that
/// answers is not followed by another.
#[tokio::test]
async fn two_that_fail_are_not_told_as_one() {
    let run = async {
        let keep = Duration::from_secs(60);
        let orphans = Orphans::Adoption { keep, names_max: 1_000, bytes_max: 1 << 20 };
        let config = || Config { orphans, deadline_max: keep / 2, ..Config::started_now() };
        let (roster, place) = (roster(4), Place::Mounted);
        let (_client, client) = station(&roster, 0, place, config(), None).await;
        let (_one, primary) = station(&roster, 1, place, config(), None).await;
        let (_two, secondary) = station(&roster, 2, place, config(), None).await;
        let (_bank, bank) = station(&roster, 3, place, config(), None).await;
        bank.serve_fn::<Pay, _, _>(|Pay(amount), _| async move { Ok(amount) }).await.unwrap();
        let orders = Arc::<AtomicU64>::default();
        let (stick, mut stuck) = mpsc::channel(8);
        serve_orders(&primary, &orders, Some(stick.clone())).await;
        serve_orders(&secondary, &orders, Some(stick)).await;
        let shop = client.among([node(1), node(2)]).deadline(Duration::from_secs(2));
        let told = within(shop.adopted(CallName::new(78), Order(5))).await;
        let Err(CallError::Failed(both)) = told else { panic!("{told:?}") };
        let in_time = matches!(both.reason, Reason::Deadline | Reason::Refused(Refusal::Expired));
        assert!(both.executed == Executed::Unknown && in_time, "{both:?}");
        assert_eq!(orders.load(SeqCst), 2);
        for _ in 0..2 {
            stuck.recv().await.unwrap();
        }
        primary.withdraw::<Order>().await.unwrap();
        primary.serve_fn::<Order, _, _>(|_, _| async { panic!("as told") }).await.unwrap();
        // To tell of a panic takes its time.
        let shop = shop.deadline(Duration::from_secs(10));
        let told = within(shop.adopted(CallName::new(79), Order(5))).await;
        let reason = Reason::Refused(Refusal::Handler);
        let one = Failure { executed: Executed::NotMoreThanOnce, reason };
        assert_eq!(told, Err(one.into()));
        assert_eq!(orders.load(SeqCst), 2, "nobody else was asked");
    };
    LocalSet::new().run_until(run).await;
}
