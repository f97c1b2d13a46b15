//! Three stations over TCP, and actors that listen to what is on them.
#![allow(unreachable_pub, dead_code, reason = "shared by tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use actix::{Actor, AsyncContext as _, Context, Handler};
use mainstay_base::service::Service;
use mainstay_base::{ClusterId, Duration as Span, NodeId};
use mainstay_runtime::{Closed, Events};
use mainstay_service::{Placement, ServiceHandle, StationHandle, StationParts, start};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::toy::{Command, Config, Event, Register, Watcher};

pub const LIMIT: Duration = Duration::from_secs(20);

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(3)
}

pub fn roster() -> BTreeMap<String, SocketAddr> {
    let named = |(index, address)| (format!("n{index}"), address);
    mainstay_sim::free_addresses(3).into_iter().enumerate().map(named).collect()
}

pub fn config(nodes: &[NodeId]) -> Config {
    Config { nodes: nodes.to_vec(), fault: None, work: Span::ZERO }
}

/// A register, mounted or in an actor of its own, and one who watches it, mounted.
pub fn station(
    roster: &BTreeMap<String, SocketAddr>,
    index: usize,
    directory: Option<&Path>,
    placement: Option<Placement>,
) -> StationHandle {
    let name = format!("n{index}");
    let directory = directory.map(|it| it.join(&name));
    let parts = StationParts::tcp(cluster(), name, roster.clone(), directory).unwrap();
    start(parts, |node| {
        let register = match placement {
            None => node.mount::<Register>("r", config(&node.roster))?,
            Some(at) => node.beside::<Register>("r", at, config(&node.roster))?,
        };
        let watcher = node.mount::<Watcher>("w", register)?;
        node.listen::<Register, Watcher>(register, watcher);
        Ok(())
    })
    .unwrap()
}

/// Passes on what it is told.
pub struct Listener<E> {
    to: mpsc::UnboundedSender<(Vec<E>, bool)>,
    /// It reads nothing before.
    gate: Option<oneshot::Receiver<()>>,
}

impl<E: Unpin + 'static> Actor for Listener<E> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        if let Some(gate) = self.gate.take() {
            context.wait(actix::fut::wrap_future(async move { drop(gate.await) }));
        }
    }
}

impl<E: Unpin + Send + 'static> Handler<Events<E>> for Listener<E> {
    type Result = ();

    fn handle(&mut self, mut events: Events<E>, _: &mut Context<Self>) {
        let _ = self.to.send((events.take(), events.is_end()));
    }
}

pub type Heard<E> = mpsc::UnboundedReceiver<(Vec<E>, bool)>;

pub async fn listen<S: Service<Event: Unpin>>(
    service: &ServiceHandle<S>,
    gate: Option<oneshot::Receiver<()>>,
    unread_max: usize,
) -> Heard<S::Event> {
    let (to, heard) = mpsc::unbounded_channel();
    let listener = Listener { to, gate }.start();
    service.subscribe(listener.recipient(), unread_max).await.unwrap();
    heard
}

pub async fn next<E>(heard: &mut Heard<E>) -> (Vec<E>, bool) {
    timeout(LIMIT, heard.recv()).await.expect("in time").expect("it listens")
}

pub async fn stop(stations: Vec<StationHandle>) {
    for station in stations {
        let closed = station.closed();
        station.stop();
        drop(station);
        assert_eq!(timeout(LIMIT, closed).await.unwrap(), Closed::Stopped);
    }
}

pub async fn ask(
    register: &ServiceHandle<Register>,
    heard: &mut Heard<Event>,
    command: Command,
) -> Event {
    register.send(command).await.unwrap();
    next(heard).await.0[0]
}
