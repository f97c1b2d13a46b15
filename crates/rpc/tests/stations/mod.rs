//! Stations on TCP with the service of calls.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mainstay_base::{ClusterId, NodeId};
use mainstay_rpc::{Config, Rpc, RpcHandle};
use mainstay_service::{Placement, StationHandle, StationParts, start};
use mainstay_sim::free_addresses;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(3)
}

pub fn node(index: usize) -> NodeId {
    NodeId::new(cluster(), &format!("n{index}"))
}

pub fn roster(count: usize) -> BTreeMap<String, SocketAddr> {
    let named = |(index, address)| (format!("n{index}"), address);
    free_addresses(count).into_iter().enumerate().map(named).collect()
}

#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Mounted,
    Beside(Placement),
}

pub async fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    place: Place,
    config: Config,
    directory: Option<&Path>,
) -> (StationHandle, RpcHandle) {
    let name = format!("n{index}");
    let directory = directory.map(|it| it.join(&name));
    let parts = StationParts::tcp(cluster(), &name, roster.clone(), directory).unwrap();
    let station = start(parts, |node| match place {
        Place::Mounted => node.mount::<Rpc>("rpc", config).map(drop),
        Place::Beside(at) => node.beside::<Rpc>("rpc", at, config).map(drop),
    });
    let station = station.unwrap();
    let rpc = RpcHandle::open(station.service("rpc"), cluster(), &name).await.unwrap();
    (station, rpc)
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

/// All of them at once; the results in order.
pub async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut told: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, told) in all.iter_mut().zip(&mut told) {
            if told.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(it) => *told = Some(it),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    told.into_iter().map(Option::unwrap).collect()
}
