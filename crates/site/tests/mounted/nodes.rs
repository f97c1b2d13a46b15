//! Sites with services and a group, each on a thread of its own, over loopback TCP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mainstay_base::{ClusterId, GroupId, Instant, Level, NodeId, Order};
use mainstay_multicast::{self as multicast, Event};
use mainstay_runtime::{
    Bell, FileDisk, Inbox, Intake, OsEntropy, Tcp, TcpOptions, TokioTime, inbox,
};
use mainstay_service::Reach;
use mainstay_site::{
    AppPort, Application, Founding, MountServices, SiteHandle, SiteParts, StartError, start,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

pub const LIMIT: Duration = Duration::from_secs(20);

pub fn cluster() -> ClusterId {
    ClusterId::from_entropy(5)
}

pub fn name(index: usize) -> String {
    format!("n{index}")
}

pub fn roster() -> BTreeMap<String, SocketAddr> {
    (0..3).map(name).zip(mainstay_sim::free_addresses(3)).collect()
}

fn group() -> GroupId {
    GroupId::new(cluster(), "g")
}

/// Casts what comes in, and passes on what is delivered.
struct Passing {
    intake: Intake<u64>,
    waiting: Vec<(u64, mainstay_runtime::Place)>,
    delivered: mpsc::UnboundedSender<u64>,
}

impl Passing {
    /// What is not taken yet waits.
    fn cast(&mut self, port: &mut AppPort<'_>) {
        self.waiting.retain(|(number, _place)| {
            let payload = Bytes::copy_from_slice(&number.to_le_bytes());
            port.cast(Order::Total, Level::Majority, payload).is_err()
        });
    }
}

impl Application for Passing {
    fn on_event(&mut self, event: Event, _: &mut AppPort<'_>) {
        let Event::Deliver(deliveries) = event else { return };
        for delivery in deliveries {
            let number = delivery.payload.as_ref().try_into().map(u64::from_le_bytes).unwrap();
            // The test may have ended.
            let _ = self.delivered.send(number);
        }
    }

    fn woken(&mut self, port: &mut AppPort<'_>) {
        self.intake.take(usize::MAX, &mut self.waiting);
        self.cast(port);
    }

    fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn restarted(&mut self, _: Instant) {}

    fn end_turn(&mut self, port: &mut AppPort<'_>) {
        self.cast(port);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

pub struct Node {
    pub site: SiteHandle,
    pub casts: Inbox<u64>,
    pub delivered: mpsc::UnboundedReceiver<u64>,
    stalls: mpsc::UnboundedSender<Receiver<()>>,
    thread: JoinHandle<()>,
}

/// What a node is made of.
pub struct Setup<'a> {
    pub roster: &'a BTreeMap<String, SocketAddr>,
    pub directory: Option<&'a Path>,
    pub mount: fn(usize) -> MountServices,
}

impl Setup<'_> {
    pub async fn start(&self, index: usize) -> Node {
        self.start_with(index, Reach::new(cluster())).await.unwrap()
    }

    pub async fn start_with(&self, index: usize, reach: Reach) -> Result<Node, StartError> {
        let (tell, told) = oneshot::channel();
        let (stalls, mut stalled) = mpsc::unbounded_channel::<Receiver<()>>();
        let (send, delivered) = mpsc::unbounded_channel();
        let roster = self.roster.clone();
        let directory = self.directory.map(|it| it.join(name(index)));
        let mount = self.mount;
        let bell = Bell::new();
        let (casts, intake) = inbox(&bell, group(), 1 << 20);
        #[allow(clippy::disallowed_methods, reason = "each node has a thread, as a process has")]
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.unwrap(), async move {
                let time = Rc::new(TokioTime::new());
                let tcp = Tcp::new(TcpOptions::listening(roster[&name(index)]), time.clone());
                let nodes = roster.keys().map(|name| NodeId::new(cluster(), name)).collect();
                let (transport, entropy) = (Box::new(tcp.unwrap()), Box::new(OsEntropy));
                let mut parts =
                    SiteParts::new(cluster(), name(index), roster, transport, time, entropy);
                let timeout = Duration::from_millis(1_000);
                parts.membership = parts.membership.with_timeout(timeout).unwrap();
                let group = multicast::Config::new(group(), nodes).stateful(false).build();
                parts.groups = vec![group.unwrap()];
                parts.disk = directory.map(|path| Box::new(FileDisk::new(path)) as _);
                parts.founding = Founding::WithoutWaiting;
                parts.bell = bell;
                parts.reach = reach;
                parts.services = Some(mount(index));
                let passing = Passing { intake, waiting: Vec::new(), delivered: send };
                let app = Box::new(passing) as Box<dyn Application>;
                let started = start(parts, [(self::group(), app)]);
                let closed = started.as_ref().ok().map(SiteHandle::closed);
                let _ = tell.send(started);
                let Some(closed) = closed else { return };
                let mut closed = pin!(closed);
                loop {
                    tokio::select! {
                        _ = &mut closed => break,
                        // The whole thread stands still.
                        Some(until) = stalled.recv() => drop(until.recv_timeout(LIMIT)),
                    }
                }
            });
        });
        let site = told.await.expect("the thread runs")?;
        Ok(Node { site, casts, delivered, stalls, thread })
    }
}

impl Node {
    /// The node stands still until what is given back is dropped.
    pub fn stall(&self) -> std::sync::mpsc::Sender<()> {
        let (wake, woken) = std::sync::mpsc::channel();
        self.stalls.send(woken).unwrap();
        wake
    }

    /// A view of so many members is installed.
    pub async fn view_of(&self, members: usize) {
        let mut views = self.site.views();
        let is_whole = views.wait_for(|view| view.is_member && view.members.len() == members);
        tokio::time::timeout(LIMIT, is_whole).await.expect("in time").unwrap();
    }

    pub async fn stop(self) {
        let Self { site, thread, .. } = self;
        let closed = site.closed();
        drop(site);
        let closed = tokio::time::timeout(LIMIT, closed).await.expect("in time");
        assert_eq!(closed, mainstay_runtime::Closed::Stopped);
        thread.join().unwrap();
    }
}
