//! The node: what it is built of, and its handle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use mainstay_base::service::Service;
use mainstay_base::{Duration, GroupId, Instance, NodeId, SiteId};
use mainstay_multicast as multicast;
use mainstay_paradigm::{self as paradigm, StateMachine};
use mainstay_runtime::{
    Bell, Closed, Datagrams, Disk, Events, FileDisk, OsEntropy, Ports, Recipient, Tcp, TcpOptions,
    TokioTime, Udp, inbox, local_set,
};
use mainstay_service::Reach;
use mainstay_service::{MountLateError, Mounting, Placement, ServiceHandle};
use mainstay_site::{
    self as site, Application, Member, MountServices, SiteHandle, SiteParts, ViewChanged, WeakSite,
};
use tokio::sync::{oneshot, watch};

use crate::beside::{Outside, Runner, Shared, Tasks};
use crate::command::{Ask, Submit};
use crate::config::{Config, StartError, UNSTABLE_BYTES};
use crate::executor::{Executor, Inboxes, Settings};
use crate::group::{self, Book, CASTS_BYTES, Cast, GroupConfig, GroupHandle, GroupMember, Names};
use crate::queue::QUEUE_BYTES;
use crate::replicated::Replicated;

/// Bytes of questions that may wait for a group: 4,096 of them.
const ASKS_BYTES: usize = 256 << 10;
/// Most groups of a node; a replicated state machine is on one.
const GROUPS_MAX: usize = 64;

/// A site that may not have started yet, for handles that do not keep it running.
#[derive(Clone, Default)]
pub(crate) struct SiteRef(Arc<OnceLock<WeakSite>>);

impl SiteRef {
    pub(crate) async fn status(&self) -> Option<site::Status> {
        self.0.get()?.upgrade()?.status().await
    }

    pub(crate) fn stop(&self) {
        if let Some(site) = self.0.get().and_then(WeakSite::upgrade) {
            site.stop();
        }
    }

    pub(crate) async fn closed(&self) -> Closed {
        match self.0.get() {
            Some(site) => site.closed().await,
            None => Closed::Dropped,
        }
    }
}

/// What a node listens with.
struct Sockets {
    transport: Tcp,
    datagrams: Option<Udp>,
    time: Rc<TokioTime>,
}

/// What a node is built of: groups, replicated state machines, services. Handles of groups and state machines can be used from the
/// beginning: what they are given waits for the start. Those of services are used after it.
pub struct NodeBuilder {
    config: Config,
    outside: Option<Sockets>,
    bell: Bell<GroupId>,
    site: SiteRef,
    names: Names,
    groups: Vec<multicast::Config>,
    group_names: BTreeMap<GroupId, String>,
    forgotten: BTreeSet<GroupId>,
    apps: Vec<(GroupId, Box<dyn Application>)>,
    mounts: Vec<MountServices>,
    reach: Reach,
    tasks: (Tasks, Runner),
}

impl NodeBuilder {
    fn new(config: Config) -> Result<Self, StartError> {
        if !config.nodes.contains_key(&config.name) {
            return Err(StartError::NotConfigured(config.name));
        }
        let cluster = config.cluster;
        let names = config.names();
        let names = move |site: SiteId| {
            let name = names.get(&site.node).map_or_else(|| "?".into(), Arc::clone);
            Member::new(name, site)
        };
        Ok(Self {
            config,
            outside: None,
            bell: Bell::new(),
            site: SiteRef::default(),
            names: Arc::new(names),
            groups: Vec::new(),
            group_names: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            apps: Vec::new(),
            mounts: Vec::new(),
            reach: Reach::new(cluster),
            tasks: Tasks::new(),
        })
    }

    fn id(&self, name: &str) -> Result<GroupId, StartError> {
        let id = GroupId::new(self.config.cluster, name);
        if self.groups.iter().any(|group| group.group() == id) {
            return Err(StartError::Taken(name.to_owned()));
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(StartError::TooManyGroups);
        }
        Ok(id)
    }

    /// Puts a replicated state machine on the group `name`, with the durability, the deadline and the replica's settings of the
    /// node. `make` makes it before the first command; it is called again whenever the node starts anew in this process.
    ///
    /// # Errors
    /// [`StartError::Taken`], [`StartError::TooManyGroups`], [`StartError::Group`], [`StartError::Replica`].
    pub fn replicate<S: StateMachine + 'static>(
        &mut self,
        name: &str,
        make: impl FnMut() -> S + 'static,
    ) -> Result<Replicated<S>, StartError> {
        let id = self.id(name)?;
        let config = &self.config;
        let replica = match &config.replica {
            Some(replica) => replica.clone(),
            None => paradigm::Config::builder().build()?,
        };
        let group = config.group(id)?;
        let settings = Settings {
            me: config.me(),
            level: config.level(),
            deadline: config.deadline,
            replica,
            names: config.names(),
            turn_work: config.turn_work,
        };
        let (submits, taken) = inbox::<Submit, _>(&self.bell, id, QUEUE_BYTES);
        let (asks, asked) = inbox::<Ask<S>, _>(&self.bell, id, ASKS_BYTES);
        let intake = Inboxes { submits: taken, asks: asked, more: false };
        let app = Executor::new(settings, Box::new(make), intake);
        self.groups.push(group);
        self.group_names.insert(id, name.to_owned());
        self.apps.push((id, Box::new(app)));
        Ok(Replicated {
            name: name.into(),
            cluster: self.config.cluster,
            me: self.config.me(),
            clients: Arc::default(),
            submits,
            asks,
            site: self.site.clone(),
            tasks: self.tasks.0.clone(),
            deadline: self.config.deadline,
            node: None,
        })
    }

    /// A process group of all nodes, for the user's actors. They [subscribe](GroupHandle::subscribe) before the start, so that they
    /// miss nothing.
    ///
    /// # Errors
    /// [`StartError::Taken`], [`StartError::TooManyGroups`], [`StartError::Group`].
    pub fn group(&mut self, name: &str, config: GroupConfig) -> Result<GroupHandle, StartError> {
        let id = self.id(name)?;
        let cluster = self.config.cluster;
        let nodes = self.config.nodes.keys().map(|name| NodeId::new(cluster, name));
        self.groups.push(config.build(id, nodes)?);
        self.group_names.insert(id, name.to_owned());
        let book = Arc::new(Book::new(config.durability));
        let config = Arc::new(config);
        let (casts, intake) = inbox::<Cast, _>(&self.bell, id, CASTS_BYTES);
        let (asks, asked) = inbox::<group::Ask, _>(&self.bell, id, ASKS_BYTES);
        let app = GroupMember::new(
            name.into(),
            Arc::clone(&config),
            self.config.me(),
            Arc::clone(&self.names),
            intake,
            (asks.clone(), asked),
            Arc::clone(&book),
        );
        self.apps.push((id, Box::new(app)));
        Ok(GroupHandle { name: name.into(), casts, asks, book, config })
    }

    /// Mounts a service on the node, as the instance `name` of its kind: the same name at all nodes makes them hear each other. What
    /// it stands on ([`Service::NEEDS`]) is mounted before it. `config` is asked for each boot of the process: at the start, and when
    /// the node was declared dead and begins anew.
    ///
    /// What cannot be mounted is told by the start ([`SiteStartError`](crate::SiteStartError)). A panic of it halts the node
    /// ([`Node::closed`] says so); one that may panic is mounted [beside](Self::mount_beside).
    pub fn mount<S: Service>(
        &mut self,
        name: &str,
        mut config: impl FnMut(&Mounting<'_>) -> S::Config + 'static,
    ) -> ServiceHandle<S> {
        let instance = name.to_owned();
        self.mounts.push(Box::new(move |mounting| {
            let config = config(mounting);
            mounting.mount::<S>(&instance, config).map(drop)
        }));
        self.reach.service(name)
    }

    /// The same in an actor of its own beside the node, on the node's thread or another ([`Mounting::beside`] says what differs). A panic of it
    /// ends that service and not the node; [`ServiceHandle::start_again`] starts it again.
    pub fn mount_beside<S: Service>(
        &mut self,
        name: &str,
        placement: Placement,
        mut config: impl FnMut(&Mounting<'_>) -> S::Config + 'static,
    ) -> ServiceHandle<S> {
        let instance = name.to_owned();
        self.mounts.push(Box::new(move |mounting| {
            let config = config(mounting);
            mounting.beside::<S>(&instance, placement, config).map(drop)
        }));
        self.reach.service(name)
    }

    /// The instance `name` of a kind of service is open to [guests](crate::Config::guests), who neither hear of others nor reach them.
    pub fn open_to_guests<S: Service>(&mut self, name: &str) {
        let instance = name.to_owned();
        self.mounts.push(Box::new(move |mounting| {
            mounting.open_to_guests::<S>(&instance);
            Ok(())
        }));
    }

    /// From here on the instance `to` of `T` is told what the instance `of` of `S` tells, in the same turn. Both are mounted before.
    pub fn listen<S: Service, T: Service>(&mut self, of: &str, to: &str) {
        let cluster = self.config.cluster;
        let (of, to) = (Instance::new(cluster, of), Instance::new(cluster, to));
        self.mounts.push(Box::new(move |mounting| {
            mounting.listen::<S, T>(of, to);
            Ok(())
        }));
    }

    /// What the disk has of a service that is not mounted any more is not needed: else it is kept for the day when it is mounted
    /// again, and the log of the services is not cut behind it.
    pub fn forget<S: Service>(&mut self, name: &str) {
        let name = name.to_owned();
        self.mounts.push(Box::new(move |mounting| {
            mounting.forget::<S>(&name);
            Ok(())
        }));
    }

    /// What the disk has of a group, or of a replicated state machine, is not needed: it is not opened any more, or is in memory now. Its checkpoints are
    /// removed. Without this word the node is not started while its log has messages of such a group: it would lose what it has of it. Keep
    /// saying it: the log has them until it is cut.
    pub fn forget_group(&mut self, name: &str) {
        self.forgotten.insert(GroupId::new(self.config.cluster, name));
    }

    /// Starts the node on the caller's `LocalSet` (under `#[actix::main]` there is one). Reads the whole log before it returns. From a
    /// program on several threads: [`Node::spawn`].
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(mut self) -> Result<Node, StartError> {
        let Some(Sockets { transport, datagrams, time }) = self.outside.take() else {
            return Err(StartError::NoPorts);
        };
        let directory = self.config.data_dir.as_ref();
        let ports = Ports {
            transport: Box::new(transport),
            disk: directory.map(|path| Box::new(FileDisk::new(path)) as Box<dyn Disk>),
            time,
            entropy: Box::new(OsEntropy),
        };
        self.start_on(ports, datagrams.map(|udp| Box::new(udp) as Box<dyn Datagrams>))
    }

    /// As [`start`](Self::start), with another outside: what simulates it, in a test.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with(self, ports: Ports) -> Result<Node, StartError> {
        self.start_on(ports, None)
    }

    fn start_on(
        self,
        ports: Ports,
        datagrams: Option<Box<dyn Datagrams>>,
    ) -> Result<Node, StartError> {
        local_set().map_err(|_| StartError::NoLocalSet)?;
        let budgets = self.groups.len().max(1);
        let Config { cluster, name, nodes, pulse, trace, .. } = self.config;
        let Ports { transport, disk, time, entropy } = ports;
        let own: Arc<str> = name.as_str().into();
        let entropy = Shared::new(entropy);
        let outside = Outside { time: time.clone(), entropy: entropy.clone() };
        let entropy = Box::new(entropy);
        let mut parts = SiteParts::new(cluster, name, nodes, transport, time, entropy);
        parts.options.pulse = pulse.unwrap_or_default();
        (parts.groups, parts.forgotten) = (self.groups, self.forgotten);
        parts.group_names = self.group_names;
        let (timeout, heartbeat) = (self.config.timeout, self.config.heartbeat);
        if timeout <= heartbeat {
            return Err(StartError::Timeouts { timeout, heartbeat });
        }
        parts.membership = parts.membership.with_timeout(timeout)?;
        parts.heartbeat = self.config.heartbeat;
        parts.window_bytes = 4 * UNSTABLE_BYTES * budgets;
        parts.guests = self.config.guests;
        (parts.disk, parts.datagrams) = (disk, datagrams);
        parts.disk_reserve = self.config.disk_reserve;
        parts.founding = self.config.founding;
        parts.trace = trace;
        parts.bell = self.bell;
        parts.reach = self.reach.clone();
        let mut mounts = self.mounts;
        if !mounts.is_empty() {
            let mount = move |mounting: &mut Mounting<'_>| {
                mounts.iter_mut().try_for_each(|mount| mount(mounting))
            };
            parts.services = Some(Box::new(mount));
        }
        let site = site::start(parts, self.apps)?;
        let _ = self.site.0.set(site.downgrade());
        tokio::task::spawn_local(self.tasks.1.run(outside, site.closed()));
        Ok(Node { site, reach: self.reach, name: own, thread: None })
    }
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder").field("node", &self.config.name).finish_non_exhaustive()
    }
}

/// Why a node does not become ready.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadyError {
    /// It has ended meanwhile.
    #[error("the node ended before it was ready: {0:?}")]
    Ended(Closed),
}

/// A node of a cluster, with all that is on it. Cheap to clone, `Send` and `Sync`; the node runs on the thread that started it,
/// and stops when the last clone is dropped. Handles of groups and state machines do not keep it running.
#[derive(Clone)]
pub struct Node {
    site: SiteHandle,
    reach: Reach,
    name: Arc<str>,
    /// Ends with the thread of a node that was spawned.
    thread: Option<watch::Receiver<()>>,
}

impl Node {
    /// A node to be put together. It listens from here on, so that a port that is taken shows at once; what comes is answered
    /// after the start.
    ///
    /// # Errors
    /// [`StartError::NotConfigured`], [`StartError::PeerNotLoopback`], [`StartError::PeerWithoutPort`], [`StartError::Listen`],
    /// [`StartError::Datagrams`].
    pub fn builder(config: Config) -> Result<NodeBuilder, StartError> {
        config.check_peers()?;
        let mut builder = NodeBuilder::new(config)?;
        let config = &builder.config;
        let address = config.nodes[&config.name];
        let time = Rc::new(TokioTime::new());
        let listen = config.listen.unwrap_or(address);
        let mut tcp = TcpOptions::listening(listen);
        tcp.accepted_max = config.accepted_max.unwrap_or(tcp.accepted_max + 2 * config.guests);
        tcp.queue_bytes_max = 5 * UNSTABLE_BYTES;
        let transport = Tcp::new(tcp, time.clone())?;
        let datagrams = config.datagrams.as_ref().map(|keys| {
            let node = |name: &String| NodeId::new(config.cluster, name);
            let addresses = config.nodes.iter().map(|(name, at)| (node(name), *at)).collect();
            Udp::new(config.me(), listen, addresses, keys, time.clone())
                .map_err(|error| StartError::Datagrams { address: listen, error })
        });
        let datagrams = datagrams.transpose()?;
        builder.outside = Some(Sockets { transport, datagrams, time });
        Ok(builder)
    }

    /// A node to be started with [`NodeBuilder::start_with`]: it does not listen by itself.
    ///
    /// # Errors
    /// [`StartError::NotConfigured`].
    pub fn builder_without_tcp(config: Config) -> Result<NodeBuilder, StartError> {
        NodeBuilder::new(config)
    }

    /// Starts a node on a thread of its own, from any runtime. `build` puts on it what is wanted, on that thread, and
    /// answers the handles. Actors that it starts live on that thread, and end with the node.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn spawn<T: Send + 'static>(
        config: Config,
        build: impl FnOnce(&mut NodeBuilder) -> Result<T, StartError> + Send + 'static,
    ) -> Result<(Self, T), StartError> {
        let (tell, told) = oneshot::channel();
        let (running, thread) = watch::channel(());
        let run = move || {
            // Dropped last: by then all that the node had is free.
            let _running = running;
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(StartError::Thread(error)))),
            };
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let started = Self::builder(config).and_then(|mut builder| {
                    let handles = build(&mut builder)?;
                    Ok((builder.start()?, handles))
                });
                match started {
                    Ok((node, handles)) => {
                        let closed = node.closed();
                        // Nobody waits any more: then the node is dropped, and stops.
                        drop(tell.send(Ok((node, handles))));
                        closed.await;
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        };
        let spawned = std::thread::Builder::new().name("mainstay-node".to_owned()).spawn(run);
        spawned.map_err(StartError::Thread)?;
        let ended = |_| StartError::Thread(std::io::Error::other("the thread has ended"));
        let (node, handles): (Self, T) = told.await.map_err(ended)??;
        Ok((Self { thread: Some(thread), ..node }, handles))
    }

    /// What the configuration calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the node is a member, has all the past of its groups, and the state machines on it execute. Actors of a group may not have read
    /// all of that past yet. The wait may be for ever: [`status`](Self::status) says what for (`stack.founding` while no cluster is made,
    /// `stack.votes_missing`, `stack.unheard`, `stack.groups` where one is blocked). A group is added to
    /// a cluster by starting its nodes again with it, one after the other, the next when the last is a `voter`: it begins when a majority has
    /// it, and only then are they ready.
    ///
    /// # Errors
    /// [`ReadyError`].
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut ready = self.site.ready();
        let is_ready = ready.wait_for(|ready| *ready).await.is_ok();
        if is_ready && !self.site.is_closed() {
            return Ok(());
        }
        Err(ReadyError::Ended(self.closed().await))
    }

    /// Whether it is [ready](Self::ready); not any more from when it is declared dead until it is ready again. A node that hears no majority any more
    /// does not know what the others do: it stays ready, in its last view, and what is cast or executed waits. Its [`status`](Self::status)
    /// says so (`stack.minority`, `stack.minority_for`), and so do its [views](Self::views).
    #[must_use]
    pub fn watch_ready(&self) -> watch::Receiver<bool> {
        self.site.ready()
    }

    /// Mounts a service on the node while it runs, as the instance `name` of its kind. It begins with what the disk has of it; in its first turn it
    /// is told the view and the peers that are up. Peers that have not mounted it are not up for it, and [say so](ServiceHandle::peers). It is mounted again
    /// when the node was declared dead and begins anew, with what `config` says then, unless it was
    /// [dismounted](ServiceHandle::dismount). A node that is started again mounts what its builder says.
    ///
    /// # Errors
    /// [`MountLateError`]; its place is [taken](crate::MountError), or what it needs is not mounted, among others. Nothing changed.
    pub async fn mount<S: Service>(
        &self,
        name: &str,
        config: impl FnMut(&Mounting<'_>) -> S::Config + Send + 'static,
    ) -> Result<ServiceHandle<S>, MountLateError> {
        self.site.mount(name, None, config).await
    }

    /// The same [beside](NodeBuilder::mount_beside) the node.
    ///
    /// # Errors
    /// As [`mount`](Self::mount).
    pub async fn mount_beside<S: Service>(
        &self,
        name: &str,
        placement: Placement,
        config: impl FnMut(&Mounting<'_>) -> S::Config + Send + 'static,
    ) -> Result<ServiceHandle<S>, MountLateError> {
        self.site.mount(name, Some(placement), config).await
    }

    /// The instance `name` of a service, mounted or not. The handle does not keep the node running.
    #[must_use]
    pub fn service<S: Service>(&self, name: &str) -> ServiceHandle<S> {
        self.site.service(name)
    }

    /// The views of the sites.
    #[must_use]
    pub fn views(&self) -> Views {
        Views { site: self.site.downgrade() }
    }

    /// How the site is: views, members, groups, counters. `None`: it has closed. Asking changes nothing.
    pub async fn status(&self) -> Option<site::Status> {
        self.site.status().await
    }

    /// Stops the node, but first has the remote calls that it has accepted finished, and others refused, which takes about so long at most; what is not
    /// finished then is ended, and its callers are told. It leaves troupes when it has answered what has come for them, or when the time is over. Groups are not waited for. Answers how it ended.
    pub async fn close_within(self, within: Duration) -> Closed {
        self.reach.close(within).await;
        self.close().await
    }

    /// Stops the node: what was admitted is still taken in. Answers how it ended.
    pub async fn close(self) -> Closed {
        self.site.stop();
        self.closed().await
    }

    /// How the node ended, as soon as it has, and its thread if it was [spawned](Self::spawn). The future holds no handle.
    pub fn closed(&self) -> impl Future<Output = Closed> + Send + use<> {
        let (closed, thread) = (self.site.closed(), self.thread.clone());
        async move {
            let closed = closed.await;
            if let Some(mut thread) = thread {
                // Nothing is ever sent: it ends when the thread does.
                while thread.changed().await.is_ok() {}
            }
            closed
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).field("site", &self.site).finish()
    }
}

/// The views of a node's site: who works, in age order, agreed with the others. Cheap to clone; it does not keep the node running.
#[derive(Clone, Debug)]
pub struct Views {
    site: WeakSite,
}

impl Views {
    /// The last view, and a way to wait for the next. Before the first one it is the empty one with number 0. Whoever looks
    /// seldom sees the last one only. `None`: the node has ended.
    #[must_use]
    pub fn watch(&self) -> Option<watch::Receiver<Arc<ViewChanged>>> {
        Some(self.site.upgrade()?.views())
    }

    /// From here on an actor is told each view, in order, and when the node has lost its majority or has it back
    /// ([`ViewChanged::has_majority`]); at once the last one. One that has 64 unread and is told more loses
    /// its subscription: the last message that it gets says so. False: the node has ended.
    pub async fn subscribe(&self, to: Recipient<Events<Arc<ViewChanged>>>) -> bool {
        const UNREAD_MAX: usize = 64;
        match self.site.upgrade() {
            Some(site) => site.subscribe_views(to, UNREAD_MAX).await,
            None => false,
        }
    }
}
