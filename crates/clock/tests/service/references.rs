//! Stations that follow a reference by themselves: the wall clock of their machine, or another station that does, by UDP.

use std::time::Duration;

use mainstay_base::NodeId;
use mainstay_clock::sync::global::{ClockHandle, Follow, Setup};
use mainstay_clock::sync::{Config, Delay, Kind, Plan};
use mainstay_runtime::wall_clock;
use mainstay_service::StationParts;
use tokio::task::LocalSet;

use crate::support::{Shared, cluster, mounted, roster, synchronised};

/// A clock that is none of those that others keep together.
fn setup(index: usize, error: Duration, follows: Follow) -> Setup {
    let mut config = Config::lan(Kind::External { error }, 1, 0);
    config.delay = Delay { min: Duration::from_micros(1), max: Duration::from_millis(40) };
    config.period = Duration::from_millis(800);
    let mut setup = Setup::new(Plan::new(config).unwrap()).unwrap();
    setup.group = Some([NodeId::new(cluster(), &format!("n{index}"))].into());
    (setup.reference, setup.answers) = (Some(follows), true);
    setup
}

/// Checks CLK-4: the first station reads the wall clock of the machine, the second one follows the first, the third the second; so that they may be read, each is further off than
/// the one that it follows.
#[tokio::test]
async fn a_station_follows_its_wall_clock_and_others_follow_the_station() {
    let roster = roster();
    let run = async {
        let node = |index: usize| NodeId::new(cluster(), &format!("n{index}"));
        let milli = Duration::from_millis;
        let setups = [
            setup(0, milli(2), Follow::SystemClock { error: milli(1) }),
            setup(1, milli(45), Follow::Peer(node(0))),
            setup(2, milli(90), Follow::Peer(node(1))),
        ];
        let begin = |(index, setup): (usize, &Setup)| {
            let name = format!("n{index}");
            let udp = Shared::new(roster[&name], &name, &roster);
            let change = |it: &mut StationParts| it.datagrams = Some(Box::new(udp));
            mounted(&roster, index, setup, change, |config| config)
        };
        let all: Vec<_> = setups.iter().enumerate().map(begin).collect();
        let clocks: Vec<&ClockHandle> = all.iter().map(|(_, clock)| clock).collect();
        synchronised(&clocks).await;
        for _ in 0..200 {
            for clock in &clocks {
                let before = wall_clock().as_nanos() as u64;
                let Ok(bounded) = clock.now_bounded() else { continue };
                let after = wall_clock().as_nanos() as u64;
                assert!(bounded.earliest.as_nanos() <= after, "CLK-4: {bounded:?} at {after}");
                assert!(bounded.latest.as_nanos() >= before, "CLK-4: {bounded:?} at {before}");
            }
            tokio::task::yield_now().await;
        }
        for (index, clock) in clocks.iter().enumerate() {
            let status = clock.service().status().await.unwrap();
            assert!(status.references > 0, "{index}: {status:?}");
            assert_eq!(status.rejected.unknown, 0, "{index}: {status:?}");
        }
        all.iter().for_each(|(station, _)| station.stop());
    };
    LocalSet::new().run_until(run).await;
}
