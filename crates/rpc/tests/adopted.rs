//! Adoption on real sockets: one who calls, two that can do what it wants, and the one that both call.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use actix::Message;
use mainstay_rpc::{
    CallName, Config, Executed, Failure, Orphans, Procedure, Reason, Refusal, RpcHandle,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use stations::{Place, node, roster, station, within};

#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Order(u64);

impl Procedure for Order {
    const NAME: &'static str = "test.order";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Pay(u64);

impl Procedure for Pay {
    const NAME: &'static str = "test.pay";
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
        let keep = Duration::from_secs(60);
        let orphans = Orphans::Adoption { keep, names_max: 1_000, bytes_max: 1 << 20 };
        let config = || Config { orphans, deadline_max: keep, ..Config::started_now() };
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
    LocalSet::new().run_until(run).await;
}

/// Checks RPC-74 and RPC-3: where two servers began the call and neither had a result in time, it may have been executed twice, and nobody says less. One that
/// answers is not followed by another.
#[tokio::test]
async fn two_that_fail_are_not_told_as_one() {
    let run = async {
        let keep = Duration::from_secs(60);
        let orphans = Orphans::Adoption { keep, names_max: 1_000, bytes_max: 1 << 20 };
        let config = || Config { orphans, deadline_max: keep, ..Config::started_now() };
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
        let shop = client.among([node(1), node(2)]).deadline(Duration::from_millis(500));
        let told = within(shop.adopted(CallName::new(78), Order(5))).await;
        let both = Failure { executed: Executed::Unknown, reason: Reason::Deadline };
        assert_eq!(told, Err(both.into()));
        assert_eq!(orders.load(SeqCst), 2);
        for _ in 0..2 {
            stuck.recv().await.unwrap();
        }
        primary.serve_fn::<Order, _, _>(|_, _| async { panic!("as told") }).await.unwrap();
        let told = within(shop.adopted(CallName::new(79), Order(5))).await;
        let reason = Reason::Refused(Refusal::Handler);
        let one = Failure { executed: Executed::NotMoreThanOnce, reason };
        assert_eq!(told, Err(one.into()));
        assert_eq!(orders.load(SeqCst), 2, "nobody else was asked");
    };
    LocalSet::new().run_until(run).await;
}
