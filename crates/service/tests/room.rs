//! A station whose disk is almost full tells its services so.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/small.rs"]
mod small;
#[allow(unreachable_pub, dead_code, reason = "shared by tests")]
#[path = "../../sim/tests/support/toy.rs"]
mod toy;

mod stations;

use std::rc::Rc;

use mainstay_runtime::FileDisk;
use mainstay_service::{Mounting, ServiceHandle, StationParts, start};
use small::{Free, Small};
use stations::{LIMIT, ask, cluster, config, listen, next, roster, station, stop};
use tokio::task::LocalSet;
use tokio::time::timeout;
use toy::{Command, Event, Register};

async fn is_short(register: &ServiceHandle<Register>) {
    let told = async { while !register.status().await.unwrap().1 {} };
    timeout(LIMIT, told).await.expect("it is told");
}

/// A service is told when less than the reserve is free, one that is mounted meanwhile too, and when there is room again. It reads
/// meanwhile, and what it is to write waits.
#[tokio::test]
async fn services_are_told_when_the_disk_is_short() {
    let directory = tempfile::tempdir().unwrap();
    let roster = roster();
    LocalSet::new()
        .run_until(async {
            let free = Free::new(u64::MAX);
            let others: Vec<_> = (1..3).map(|at| station(&roster, at, None, None)).collect();
            let mut parts = StationParts::tcp(cluster(), "n0", roster, None).unwrap();
            let disk = FileDisk::new(directory.path().to_owned());
            parts.disk = Some(Box::new(Small(disk, Rc::clone(&free))));
            let reserve = parts.disk_reserve;
            let first =
                start(parts, |node| node.mount::<Register>("r", config(&node.roster)).map(drop));
            let first = first.unwrap();
            let register = first.service::<Register>("r");
            let mut heard = listen(&register, None, 16).await;
            let written = ask(&register, &mut heard, Command::Write { op: 1, value: 1 }).await;
            assert_eq!(written, Event::Written { op: 1, value: 1 });

            free.set(reserve - 1);
            is_short(&register).await;
            let read = ask(&register, &mut heard, Command::Read { op: 2 }).await;
            assert_eq!(read, Event::Read { op: 2, value: 1 });
            register.send(Command::Write { op: 3, value: 3 }).await.unwrap();
            for node in others.iter().chain([&first]) {
                let config = |node: &Mounting<'_>| config(&node.roster);
                node.mount::<Register>("late", None, config).await.unwrap();
            }
            let late = first.service::<Register>("late");
            let mut told = listen(&late, None, 16).await;
            is_short(&late).await;
            late.send(Command::Write { op: 4, value: 4 }).await.unwrap();

            free.set(2 * reserve);
            let written = next(&mut heard).await.0;
            assert_eq!(written, [Event::Written { op: 3, value: 3 }]);
            let written = next(&mut told).await.0;
            assert_eq!(written, [Event::Written { op: 4, value: 4 }]);
            drop((register, late));
            stop(others.into_iter().chain([first]).collect()).await;
        })
        .await;
}
