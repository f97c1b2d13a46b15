//! The clock service alone: stations on TCP, readers on other threads, actors that are sent messages at a time.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod events;
mod references;
mod support;

use std::time::Duration;

use actix::{Actor as _, Recipient};
use mainstay_clock::Time;
use mainstay_clock::sync::global::{ClockHandle, Event, WaitError};
use mainstay_clock::sync::{Source, Verdict};
use mainstay_runtime::Datagrams as _;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::support::{
    Bell, LIMIT, Shared, Strike, later, next, record, roster, station, synchronised,
};

#[tokio::test]
async fn clocks_alone_agree_and_wake_who_waits() {
    let roster = roster();
    let run = async {
        let all: Vec<_> = (0..3).map(|index| station(&roster, index, None, None)).collect();
        let clocks: Vec<&ClockHandle> = all.iter().map(|(_, clock)| clock).collect();
        synchronised(&clocks).await;
        let promise = clocks[0].service().status().await.unwrap().promise;
        for _ in 0..100 {
            let (first, between, last) = (clocks[0].now().0, clocks[1].now().0, clocks[0].now().0);
            assert!(first <= last);
            assert!(between.saturating_add(promise.precision) >= first);
            assert!(last.saturating_add(promise.precision) >= between);
        }
        let bounded = clocks[2].now_bounded().unwrap();
        assert!(bounded.earliest < bounded.latest);
        assert!(clocks[2].before(later(clocks[2], 100_000)) && !clocks[2].after(bounded.latest));

        let at = later(clocks[0], 30);
        let now = timeout(LIMIT, clocks[0].sleep_until(at)).await.unwrap().unwrap();
        assert!(now.time >= at);
        let at = clocks[0].now().0;
        let past = timeout(LIMIT, clocks[0].wait_until_past(at)).await.unwrap().unwrap();
        assert!(past.earliest > at && clocks[0].after(at));

        let period = Duration::from_millis(20);
        let mut ticks = clocks[1].interval(period);
        let first = timeout(LIMIT, ticks.tick()).await.unwrap().unwrap();
        let second = timeout(LIMIT, ticks.tick()).await.unwrap().unwrap();
        assert!(first < second && second.as_nanos().is_multiple_of(20_000_000));

        // Whoever waits no longer leaves nothing behind.
        let waits = clocks[2].sleep_until(later(clocks[2], 1_000_000));
        assert!(timeout(Duration::from_millis(5), waits).await.is_err());
        let none = async {
            while clocks[2].service().status().await.unwrap().timers > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, none).await.expect("it is cancelled");
        let corrected = async {
            while clocks[0].service().status().await.unwrap().corrections < 2 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, corrected).await.expect("they are corrected");
        assert!(clocks.iter().all(|clock| clock.is_synchronised()));
        let sources = clocks[0].service().status().await.unwrap().sources;
        assert_eq!(sources.len(), 2);
        assert!(sources.iter().all(|(_, source)| source.verdict == Verdict::Used), "{sources:?}");
    };
    LocalSet::new().run_until(run).await;
}

/// Over UDP, where a stranger sends what it has made up, repeats what it has recorded, and alters it.
#[tokio::test]
async fn clocks_agree_by_datagrams_that_nobody_can_forge() {
    let roster = roster();
    let run = async {
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        // On the way to the first node.
        let mut past_it = roster.clone();
        past_it.insert("n0".to_owned(), stranger.local_addr().unwrap());
        let recording = tokio::task::spawn_local(record(stranger, roster["n0"]));
        let udp = |index: usize| {
            let name = format!("n{index}");
            Shared::new(roster[&name], &name, if index == 0 { &roster } else { &past_it })
        };
        let all_udp: Vec<Shared> = (0..3).map(udp).collect();
        let all: Vec<_> =
            (0..3).map(|it| station(&roster, it, None, Some(all_udp[it].clone()))).collect();
        let clocks: Vec<&ClockHandle> = all.iter().map(|(_, clock)| clock).collect();
        let liar = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let corrected = async {
            while clocks[0].service().status().await.unwrap().corrections < 2 {
                liar.send_to(&[1; 80], roster["n0"]).unwrap();
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, corrected).await.expect("they are corrected");
        synchronised(&clocks).await;
        let refused = all_udp[0].refused();
        for why in ["datagram-replayed", "datagram-forged", "datagram-astray"] {
            assert!(refused.contains_key(why), "{why} in {refused:?}");
        }
        let status = clocks[0].service().status().await.unwrap();
        assert_eq!(status.rejected, Default::default(), "nothing of it reached the clock");
        assert!(status.steps <= 1, "the one with which it begins");
        let is_used = |source: &Source| source.verdict == Verdict::Used;
        assert!(status.sources.iter().all(|(_, it)| is_used(it)), "{:?}", status.sources);
        recording.abort();
    };
    LocalSet::new().run_until(run).await;
}

#[tokio::test]
async fn an_actor_is_sent_what_was_set_once_and_hears_events() {
    let roster = roster();
    let run = async {
        let all: Vec<_> = (0..3).map(|index| station(&roster, index, None, None)).collect();
        let clock = &all[0].1;
        let (to, mut heard) = mpsc::unbounded_channel();
        let bell = Bell { to }.start();
        let strikes: Recipient<Strike> = bell.clone().recipient();
        clock.service().subscribe(bell.recipient(), 64).await.unwrap();
        synchronised(&[clock]).await;
        // Far enough that all are set before the first is due.
        let [first, second, taken, third] = [20, 40, 30, 60].map(|ms| later(clock, 1_000 + ms));
        clock.at(second, strikes.clone(), Strike(2)).await.unwrap();
        clock.at(first, strikes.clone(), Strike(1)).await.unwrap();
        let taken = clock.at(taken, strikes.clone(), Strike(9)).await.unwrap();
        assert!(clock.cancel(taken) && !clock.cancel(taken));
        clock.at(third, strikes, Strike(3)).await.unwrap();
        let (mut struck, mut told) = (Vec::new(), Vec::new());
        while struck.len() < 3 {
            match next(&mut heard).await {
                Ok(number) => struck.push(number),
                Err(event) => told.push(event),
            }
        }
        assert_eq!(struck, [1, 2, 3]);
        while !told.iter().any(|event| matches!(event, Event::Resynced(_))) {
            told.extend(next(&mut heard).await.err());
        }
        // Who waits when the service ends is told.
        let waits = clock.sleep_until(later(clock, 1_000_000));
        let ends = async {
            tokio::task::yield_now().await;
            clock.service().dismount().await.unwrap();
        };
        let (waited, ()) = timeout(LIMIT, async { tokio::join!(waits, ends) }).await.unwrap();
        assert_eq!(waited.unwrap_err(), WaitError::Ended);
    };
    LocalSet::new().run_until(run).await;
}

/// CLK-10 on a real disk: another process of the node begins above all that was read.
#[tokio::test]
async fn a_clock_that_is_started_again_does_not_go_back() {
    let (roster, directory) = (roster(), tempfile::tempdir().unwrap());
    let run = async {
        let mut last = Time::ZERO;
        for _ in 0..3 {
            let (station, clock) = station(&roster, 0, Some(directory.path()), None);
            let begins = async {
                while clock.now().0 == Time::ZERO {
                    tokio::task::yield_now().await;
                }
            };
            timeout(LIMIT, begins).await.expect("it begins");
            let now = clock.now().0;
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
            let closed = station.closed();
            station.stop();
            drop((station, clock));
            timeout(LIMIT, closed).await.unwrap();
        }
    };
    LocalSet::new().run_until(run).await;
}
