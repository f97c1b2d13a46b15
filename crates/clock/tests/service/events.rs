//! What a clock service refuses and tells, as an actor hears it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use actix::{Actor as _, Recipient};
use mainstay_base::NodeId;
use mainstay_clock::Time;
use mainstay_clock::sync::global::{ClockHandle, Command, Event, Reference, WaitError, Why};
use mainstay_clock::sync::{Config, Delay, Kind, Loss, Plan, Stamp};
use mainstay_runtime::{Porter, wall_clock};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::support::{
    Bell, LIMIT, Strike, cluster, later, mounted, next, plan, roster, synchronised, together,
};

async fn begun(clock: &ClockHandle) {
    let begins = async {
        while clock.now().0 == Time::ZERO {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, begins).await.expect("it begins");
}

/// One that hears the events of a clock.
async fn hears(clock: &ClockHandle) -> mpsc::UnboundedReceiver<Result<u32, Event>> {
    let (to, heard) = mpsc::unbounded_channel();
    clock.service().subscribe(Bell { to }.start().recipient(), 64).await.unwrap();
    heard
}

/// The first event of which it holds.
async fn told(
    heard: &mut mpsc::UnboundedReceiver<Result<u32, Event>>,
    is_it: impl Fn(&Event) -> bool,
) -> Event {
    loop {
        if let Err(event) = next(heard).await
            && is_it(&event)
        {
            return event;
        }
    }
}

/// What there is no room for is refused to who sets it, in each way in which it is set: it would never come.
#[tokio::test]
async fn one_timer_too_many_is_refused() {
    let roster = roster();
    let run = async {
        let one = |mut config: mainstay_clock::sync::global::Config| {
            config.timers_max = 1;
            config
        };
        let (station, clock) = mounted(&roster, 0, &together(plan()), |_| {}, one);
        begun(&clock).await;
        let mut heard = hears(&clock).await;
        let (to, _heard) = mpsc::unbounded_channel();
        let strikes: Recipient<Strike> = Bell { to }.start().recipient();
        let far = later(&clock, 1_000_000);
        let first = clock.at(far, strikes.clone(), Strike(1)).await.unwrap();
        let second = clock.at(far, strikes.clone(), Strike(2)).await;
        assert_eq!(second, Err(WaitError::TooMany));
        let waits = timeout(LIMIT, clock.sleep_until(far)).await.unwrap();
        assert_eq!(waits, Err(WaitError::TooMany));
        clock.service().send(Command::Timer { token: 7, at: far }).await.unwrap();
        let event = told(&mut heard, |it| matches!(it, Event::Refused { .. })).await;
        assert_eq!(event, Event::Refused { token: 7 });
        // When the first is taken back there is room again.
        assert!(clock.cancel(first));
        let at = later(&clock, 5);
        clock.service().send(Command::Timer { token: 8, at }).await.unwrap();
        let event = told(&mut heard, |it| matches!(it, Event::Fired { .. })).await;
        assert_eq!(event, Event::Fired { token: 8, at });
        clock.at(far, strikes, Strike(3)).await.unwrap();
        station.stop();
    };
    LocalSet::new().run_until(run).await;
}

fn cristian() -> Plan {
    let kind = Kind::Probabilistic {
        error_max: Duration::from_millis(20),
        attempts: 5,
        wait: Duration::from_millis(45),
        patience: Duration::from_millis(330),
        stamp: Stamp::Turn,
    };
    let mut config = Config::lan(kind, 3, 1);
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    Plan::new(config).unwrap()
}

/// A master is elected, and another one when that stops; one that is left alone is told that it has none.
#[tokio::test]
async fn an_actor_hears_of_masters_and_that_the_clock_is_lost() {
    let roster: BTreeMap<String, SocketAddr> = roster();
    let run = async {
        let start =
            |index: usize| mounted(&roster, index, &together(cristian()), |_| {}, |config| config);
        let mut all: Vec<_> = (0..3).map(start).map(Some).collect();
        let mut heard = Vec::new();
        for (_, clock) in all.iter().flatten() {
            heard.push(hears(clock).await);
        }
        let name = |index: usize| NodeId::new(cluster(), &format!("n{index}"));
        let is_master = |it: &Event| matches!(it, Event::MasterChanged(Some(_)));
        let first = told(&mut heard[0], is_master).await;
        let of = (0..3).find(|it| first == Event::MasterChanged(Some(name(*it)))).expect("a node");
        let stop = async |station: Option<(mainstay_service::StationHandle, ClockHandle)>| {
            let (station, _) = station.expect("it runs");
            station.stop();
            timeout(LIMIT, station.closed()).await.unwrap();
        };
        // Those who are left follow another one.
        stop(all[of].take()).await;
        let left: Vec<usize> = (0..3).filter(|it| *it != of).collect();
        let is_other = |it: &Event| is_master(it) && *it != first;
        let second = told(&mut heard[left[0]], is_other).await;
        assert_eq!(told(&mut heard[left[1]], is_other).await, second);
        synchronised(&[&all[left[0]].as_ref().expect("it runs").1]).await;
        // No majority is left: there is no master, and after a while no time.
        stop(all[left[1]].take()).await;
        let alone = &mut heard[left[0]];
        told(alone, |it| *it == Event::MasterChanged(None)).await;
        let lost = told(alone, |it| matches!(it, Event::Unsynchronised(_))).await;
        let lost_of = |loss| Event::Unsynchronised(Why::Lost(loss));
        assert_eq!(lost, lost_of(Loss::NoMaster), "CLK-41");
        assert!(!all[left[0]].as_ref().expect("it runs").1.is_synchronised());
        stop(all[left[0]].take()).await;
    };
    LocalSet::new().run_until(run).await;
}

/// A clock that follows a reference which an actor reads; and that it is silent is told.
#[tokio::test]
async fn a_reference_is_told_by_messages() {
    let roster = roster();
    let run = async {
        let mut config = Config::lan(Kind::External { error: Duration::from_millis(5) }, 1, 0);
        config.period = Duration::from_millis(200);
        let mut setup = together(Plan::new(config).unwrap());
        setup.together = false;
        setup.group = Some([NodeId::new(cluster(), "n0")].into());
        let (station, clock) = mounted(&roster, 0, &setup, |_| {}, |config| config);
        let mut heard = hears(&clock).await;
        let door: Recipient<Reference> = Porter::start(clock.clone()).recipient();
        // An hour from what the wall clock says.
        let ahead = wall_clock().as_nanos() as i64 + 3_600_000_000_000;
        let is_lost = |it: &Event| matches!(it, Event::Unsynchronised(Why::Lost(_)));
        assert!(!clock.is_synchronised());
        let at = clock.read().local;
        let value = at.as_nanos() as i64 + ahead;
        door.send(Reference { at, value }).await.unwrap().unwrap();
        told(&mut heard, |it| *it == Event::Synchronised).await;
        let now = clock.read();
        let said = now.time.as_nanos() as i64 - now.local.as_nanos() as i64;
        assert!((said - ahead).abs() < 1_000_000, "{said}");
        // Silent from now on.
        let lost = told(&mut heard, is_lost).await;
        assert_eq!(lost, Event::Unsynchronised(Why::Lost(Loss::Silence)), "CLK-41");
        station.stop();
    };
    LocalSet::new().run_until(run).await;
}
