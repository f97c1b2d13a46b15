//! Streams of items, and calls to one of several servers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Message;
use mainstay_rpc::{
    Config, Executed, Idempotent, Offer, OfferError, Procedure, Reason, RpcHandle, WriteError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use stations::{Place, node, roster, station, within};

/// Answers with a stream of so many numbers.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<Offer<u64>, String>")]
struct Count(u64);

impl Procedure for Count {
    const NAME: &'static str = "test.count";
}

/// Adds up a stream of the caller.
#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Sum(Offer<Vec<u8>>);

impl Procedure for Sum {
    const NAME: &'static str = "test.sum";
}

#[derive(Clone, Serialize, Deserialize, Message)]
#[rtype(result = "Result<String, String>")]
struct Who;

impl Procedure for Who {
    const NAME: &'static str = "test.who";
}

impl Idempotent for Who {}

async fn two() -> (RpcHandle, RpcHandle) {
    let roster = roster(2);
    let (_, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
    let (_, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
    (client, server)
}

/// A stream comes whole and in order, and its writer is never more than its bound and a batch ahead.
#[tokio::test]
async fn a_result_may_be_a_stream() {
    let run = async {
        let (client, server) = two().await;
        let written = Arc::new(AtomicU64::new(0));
        let (told, gone) = oneshot::channel();
        let (told, count) = (std::sync::Mutex::new(Some(told)), Arc::clone(&written));
        let serve = move |Count(numbers), context: mainstay_rpc::Context| {
            let (count, told) = (Arc::clone(&count), told.lock().unwrap().take());
            async move {
                let (items, offer) = context.offer(8).map_err(|it| it.to_string())?;
                tokio::task::spawn_local(async move {
                    for number in 0..numbers {
                        if let Err(error) = items.send(&number).await {
                            let _ = told.unwrap().send(error);
                            return;
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
                Ok(offer)
            }
        };
        server.serve_fn(serve).await.unwrap();
        let counter = client.to(node(1));
        let offer = within(counter.exactly_once(Count(10_000))).await.unwrap();
        let mut reading = client.read(offer);
        for number in 0..1_000 {
            assert_eq!(within(reading.next()).await.unwrap(), Some(number));
            let ahead = written.load(Ordering::SeqCst) - number;
            assert!(ahead <= 8 + 8 + 2, "the writer is {ahead} ahead");
        }
        drop(reading);
        assert_eq!(within(gone).await.unwrap(), WriteError::Gone, "nobody reads any more");
    };
    LocalSet::new().run_until(run).await;
}

/// A node that is drained, or closed, lets the streams of accepted calls be read to their end; it takes nothing else, and waits for them within its time.
#[tokio::test]
async fn a_drain_waits_for_streams() {
    let run = async {
        for closes in [None, Some(Duration::from_secs(20)), Some(Duration::from_millis(200))] {
            let roster = roster(2);
            let config = Config::started_now;
            let (_one, client) = station(&roster, 0, Place::Mounted, config(), None).await;
            let (two, server) = station(&roster, 1, Place::Mounted, config(), None).await;
            let (write, written) = tokio::sync::watch::channel(false);
            let serve = move |Count(numbers), context: mainstay_rpc::Context| {
                let mut written = written.clone();
                async move {
                    let (items, offer) = context.offer(8).map_err(|it| it.to_string())?;
                    tokio::task::spawn_local(async move {
                        for number in 0..numbers {
                            if number == numbers / 2 {
                                let _ = written.wait_for(|it| *it).await;
                            }
                            if items.send(&number).await.is_err() {
                                return;
                            }
                        }
                    });
                    Ok(offer)
                }
            };
            server.serve_fn(serve).await.unwrap();
            server.serve_fn(|Who, _| async { Ok("two".to_owned()) }).await.unwrap();
            let caller = client.to(node(1)).unordered();
            let mut reading = client.read(within(caller.exactly_once(Count(100))).await.unwrap());
            for number in 0..25 {
                assert_eq!(within(reading.next()).await.unwrap(), Some(number));
            }
            let drained = tokio::task::spawn_local(async move {
                match closes {
                    None => server.drain().await.unwrap(),
                    Some(limit) => drop(two.close(limit).await),
                }
            });
            if closes == Some(Duration::from_millis(200)) {
                // Nobody writes on.
                let end = async {
                    loop {
                        match reading.next().await {
                            Ok(Some(_)) => {}
                            end => break end,
                        }
                    }
                };
                assert!(within(end).await.is_err(), "its time is over");
                within(drained).await.unwrap();
                continue;
            }
            while within(caller.exactly_once(Who)).await.is_ok() {}
            for number in 25..50 {
                assert_eq!(within(reading.next()).await.unwrap(), Some(number));
            }
            assert!(!drained.is_finished(), "half of the stream is to be read");
            write.send(true).unwrap();
            for number in 50..100 {
                assert_eq!(within(reading.next()).await.unwrap(), Some(number));
            }
            assert_eq!(within(reading.next()).await.unwrap(), None);
            within(drained).await.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}

/// A drain does not wait for a stream that is no part of a result, nor for one that nobody reads: of an execution that has failed or was taken back, and of a result that was dropped.
#[tokio::test]
async fn a_drain_waits_for_no_stream_in_vain() {
    let run = async {
        let (client, server) = two().await;
        let (_items, offer) = server.offer::<u64>(node(0), 1).unwrap();
        let mut telemetry = client.read(offer);
        let telemetry = tokio::task::spawn_local(async move { telemetry.next().await });
        let (tell, mut gone) = tokio::sync::mpsc::unbounded_channel();
        let serve = move |Count(number), context: mainstay_rpc::Context| {
            let tell = tell.clone();
            async move {
                let (items, offer) = context.offer(1).map_err(|it| it.to_string())?;
                tokio::task::spawn_local(async move {
                    while items.send(&number).await.is_ok() {}
                    let _ = tell.send(number);
                });
                match number {
                    0 => Err("no".to_owned()),
                    1 => std::future::pending().await,
                    _ => Ok(offer),
                }
            }
        };
        server.serve_fn(serve).await.unwrap();
        for caller in [client.to(node(1)), server.to(node(1))] {
            assert!(within(caller.exactly_once(Count(0))).await.is_err());
            assert_eq!(within(gone.recv()).await, Some(0));
            let short = caller.clone().deadline(Duration::from_millis(100));
            assert!(within(short.exactly_once(Count(1))).await.is_err());
            assert_eq!(within(gone.recv()).await, Some(1));
        }
        let _unread = within(client.to(node(1)).exactly_once(Count(2))).await.unwrap();
        within(server.drain()).await.unwrap();
        assert!(within(telemetry).await.unwrap().is_err());
        assert_eq!(within(gone.recv()).await, Some(2));
    };
    LocalSet::new().run_until(run).await;
}

/// What is larger than a message goes as a stream, as an argument too; a stranger reads nothing of it.
#[tokio::test]
async fn an_argument_may_be_a_stream() {
    let run = async {
        let (client, server) = two().await;
        let serve = |Sum(offer), context: mainstay_rpc::Context| async move {
            let (mut reading, mut bytes) = (context.read(offer), 0);
            while let Some(part) = reading.next().await.map_err(|it| it.to_string())? {
                bytes += part.len() as u64;
            }
            Ok(bytes)
        };
        server.serve_fn(serve).await.unwrap();
        let (items, offer) = client.offer::<Vec<u8>>(node(1), 2).unwrap();
        let copy: Offer<Vec<u8>> = copied(&offer);
        let told = tokio::task::spawn_local(client.to(node(1)).exactly_once(Sum(offer)));
        for _ in 0..40 {
            within(items.send(&vec![7; 1 << 20])).await.unwrap();
        }
        assert_eq!(items.send(&vec![7; 5 << 20]).await, Err(WriteError::TooLarge));
        drop(items);
        assert_eq!(within(told).await.unwrap(), Ok(40 << 20));
        let mut again = server.read(copy);
        assert!(within(again.next()).await.is_err(), "it was read to its end");
        let (_items, offer) = client.offer::<Vec<u8>>(node(0), 2).unwrap();
        let mut stranger = server.read(offer);
        assert!(within(stranger.next()).await.is_err(), "it was offered to another node");
    };
    LocalSet::new().run_until(run).await;
}

/// Half an argument: its writer has nothing more, or is gone. The execution ends at its deadline, or is told; nobody writes into nothing, and nothing is left.
#[tokio::test]
async fn half_an_argument_costs_nothing_for_long() {
    let run = async {
        let roster = roster(2);
        let config = Config::started_now;
        let (one, client) = station(&roster, 0, Place::Mounted, config(), None).await;
        let (_two, server) = station(&roster, 1, Place::Mounted, config(), None).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let serve = move |Sum(offer), context: mainstay_rpc::Context| {
            let tell = tell.clone();
            async move {
                let mut reading = context.read(offer);
                loop {
                    let next = reading.next().await;
                    let _ = tell.send(next.as_ref().map(Option::is_some).map_err(|it| it.reason));
                    if next.map_err(|it| it.to_string())?.is_none() {
                        return Ok(1);
                    }
                }
            }
        };
        server.serve_fn(serve).await.unwrap();
        let caller = client.to(node(1)).unordered();
        let (items, offer) = client.offer::<Vec<u8>>(node(1), 1).unwrap();
        let short = caller.clone().deadline(Duration::from_millis(300));
        let call = tokio::task::spawn_local(short.exactly_once(Sum(offer)));
        within(items.send(&vec![7; 9])).await.unwrap();
        assert_eq!(within(told.recv()).await, Some(Ok(true)));
        // The execution is told that there is nothing more in its time, or is ended itself.
        assert!(within(call).await.unwrap().is_err());
        while within(items.send(&vec![7; 9])).await.is_ok() {}
        let (items, offer) = client.offer::<Vec<u8>>(node(1), 1).unwrap();
        let _call = tokio::task::spawn_local(caller.exactly_once(Sum(offer)));
        within(items.send(&vec![7; 9])).await.unwrap();
        while within(told.recv()).await != Some(Ok(true)) {}
        let closed = one.closed();
        one.stop();
        drop((one, client, caller, short));
        within(closed).await;
        let (_again, _client) = station(&roster, 0, Place::Mounted, config(), None).await;
        let idle = async {
            while server.status().await.unwrap().executing > 0 {
                tokio::task::yield_now().await;
            }
        };
        within(idle).await;
    };
    LocalSet::new().run_until(run).await;
}

/// A node offers so many streams and no more; one that was written to its end and is not read goes first.
#[tokio::test]
async fn offers_are_bounded() {
    let run = async {
        let (client, _server) = two().await;
        let mut offers: Vec<_> =
            (0..4_096).map(|_| client.offer::<u64>(node(1), 1).unwrap()).collect();
        assert_eq!(client.offer::<u64>(node(1), 1).unwrap_err(), OfferError::TooMany);
        drop(offers.pop());
        let last = client.offer::<u64>(node(1), 1).unwrap();
        assert_eq!(client.offer::<u64>(node(1), 1).unwrap_err(), OfferError::TooMany);
        drop(last);
    };
    LocalSet::new().run_until(run).await;
}

fn copied<T>(offer: &Offer<T>) -> Offer<T> {
    mainstay_base::codec::decode(&mainstay_base::codec::encode(offer)).unwrap()
}

/// An idempotent call goes to the next server while the first one is silent, and when it cannot be reached.
#[tokio::test]
async fn one_of_several_servers_answers() {
    let run = async {
        let roster = roster(4);
        let mut all = Vec::new();
        for index in 0..3 {
            all.push(station(&roster, index, Place::Mounted, Config::started_now(), None).await.1);
        }
        let silent = |Who, _| std::future::pending::<Result<String, String>>();
        all[1].serve_fn(silent).await.unwrap();
        all[2].serve_fn(|Who, _| async { Ok("two".to_owned()) }).await.unwrap();
        let hedged = all[0].among([node(1), node(2)]).hedged(Duration::from_millis(20));
        assert_eq!(within(hedged.at_least_once(Who)).await, Ok("two".to_owned()));
        // The fourth node is not there.
        let some = all[0].among([node(3), node(2)]).deadline(Duration::from_millis(100));
        assert_eq!(within(some.at_least_once(Who)).await, Ok("two".to_owned()));
        assert_eq!(within(some.exactly_once(Who)).await, Ok("two".to_owned()));
        // It may have been executed at the first one: no other one is asked.
        let once = all[0].among([node(1), node(2)]).deadline(Duration::from_millis(100));
        let told = within(once.exactly_once(Who)).await.unwrap_err();
        assert_eq!(told.failure().unwrap().executed, Executed::NotMoreThanOnce);
        let none = within(all[0].among([]).at_least_once(Who)).await.unwrap_err();
        assert_eq!(none.failure().unwrap().reason, Reason::Unresolved);
    };
    LocalSet::new().run_until(run).await;
}
