//! A program names all types of the facade's signatures by this crate alone. Nothing is run here: it compiles, or not.
#![allow(clippy::type_complexity, reason = "these are signatures, written out")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mainstay::{
    AgainError, CastError, Events, Evidence, GroupConfig, GroupEvent, GroupHandle, Level,
    MountError, Mounting, Node, NodeBuilder, NotReached, Order, Placement, ReachError, ReaderId,
    ReadyError, Reason, Receipt, Recipient, Service, ServiceHandle, ServicesError, Standing,
    ViewChanged,
};
use mainstay::{
    Client, ClientConfig, ClientConfigError, ClientDialer, ClientStatus, ClusterId, Config,
    ConnectError, DialError, Entropy, EntropyError, Fate, GroupConfigError, MembershipConfigError,
    NodeId, Ports, Position, Pulse, ReplicaConfig, ReplicaConfigError, ReplicaOutcome,
    ReplicaPhase, ReplicaStats, ReplicaStatus, Replicated, SiteStartError, SiteStatus, StartError,
    StateMachine, Status, TcpError, TimeSource, TraceEvent, TraceSink, TryStats,
};

/// Checks that the names are those of the signatures.
#[test]
fn all_types_of_signatures_have_names_here() {
    let _: fn(ClusterId, String, BTreeMap<String, SocketAddr>) -> Config = Config::new;
    let _: fn(Config, ReplicaConfig) -> Config = Config::replica;
    let _: fn(Config, Arc<Pulse>) -> Config = Config::pulse;
    let _: fn(Config, Arc<dyn TraceSink>) -> Config = Config::trace;
    let _: fn(&dyn TraceSink, Vec<TraceEvent>) = |sink, events| sink.record(events);
    let _: fn(ClusterId, BTreeMap<String, SocketAddr>) -> ClientConfig = ClientConfig::new;
    let _: fn(
        ClientConfig,
        Box<dyn ClientDialer>,
        Rc<dyn TimeSource>,
        &mut dyn Entropy,
    ) -> Result<Client, ConnectError> = Client::connect_over;
    let _: fn(TcpError) -> StartError = StartError::Listen;
    let _: fn(MembershipConfigError) -> StartError = StartError::Membership;
    let _: fn(GroupConfigError) -> StartError = StartError::Group;
    let _: fn(ReplicaConfigError) -> StartError = StartError::Replica;
    let _: fn(SiteStartError) -> StartError = StartError::Site;
    let _: fn(ClientConfigError) -> ConnectError = ConnectError::Config;
    let _: fn(DialError) -> ConnectError = ConnectError::Dial;
    let _: fn(EntropyError) -> ConnectError = ConnectError::Entropy;
    let _: fn(ReplicaOutcome) -> Fate = Fate::Ordered;
    let _: fn(Status) -> SiteStatus = |status| status.site;
    let _: fn(ReplicaStatus) -> Option<ReplicaPhase> = |status| status.replica;
    let _: fn(ReplicaStatus) -> ReplicaStats = |status| status.stats;
    let _: fn(ClientStatus) -> (Option<NodeId>, TryStats) = |status| (status.node, status.stats);
}

/// A node with a service and a group; and what its actors hear.
#[allow(dead_code, reason = "it only has to compile")]
async fn doors<S: Service>(
    builder: &mut NodeBuilder,
    config: fn(&Mounting<'_>) -> S::Config,
    actor: Recipient<Events<S::Event>>,
    hears: Recipient<Events<GroupEvent>>,
    views: Recipient<Events<Arc<ViewChanged>>>,
    node: Node,
) -> Result<(ReaderId, Receipt), Box<dyn std::error::Error>> {
    let service: ServiceHandle<S> = builder.mount("name", config);
    let beside: ServiceHandle<S> = builder.mount_beside("other", Placement::Thread, config);
    let _: Option<Placement> = beside.placement();
    let _: fn(ReachError) -> AgainError = AgainError::Reach;
    let group: GroupHandle = builder.group("name", GroupConfig::disk())?;
    let subscribed: Result<(), CastError> = group.subscribe(hears);
    subscribed?;
    let _: bool = node.views().subscribe(views).await;
    let reader: Result<ReaderId, ReachError> = service.subscribe(actor, 10).await;
    for (_, standing) in service.peers().await? {
        let _: Standing = standing;
    }
    let _: fn(Evidence) -> Reason = Reason::from;
    let _: fn(ServicesError) -> Option<MountError> =
        |error| if let ServicesError::Mount(error) = error { Some(error) } else { None };
    let receipt: Receipt = group.cast("x", Order::Total).await?;
    let _: Result<(), NotReached> = receipt.reached(Level::Disk).await;
    let _: Result<(), ReadyError> = node.ready().await;
    Ok((reader?, receipt))
}

/// A node over ports of its own; and what becomes of it.
#[allow(dead_code, reason = "it only has to compile")]
async fn a_node<S: StateMachine>(
    config: Config,
    make: fn() -> S,
    ports: Ports,
    listener: Box<dyn mainstay::ClientListener>,
) -> Result<mainstay::Closed, StartError> {
    let Ports { transport, disk, time, entropy } = ports;
    let _: &dyn mainstay::Transport = &*transport;
    let _: Option<&dyn mainstay::Disk> = disk.as_deref();
    let ports = Ports { transport, disk, time, entropy };
    let node = Replicated::start_with(config, make, ports)?;
    node.skip(Position(1)).await;
    node.serve_clients(listener, |_: &S, _: &[u8]| Vec::new()).await;
    Ok(node.close().await)
}

/// What a handle gives to wait for can be waited for on any thread: a future that is not `Send` does not compile here.
#[allow(dead_code, reason = "it only has to compile")]
fn handles_wait_on_any_thread<S: StateMachine + 'static>(
    config: Config,
    node: Node,
    group: &GroupHandle,
    machine: &Replicated<S>,
    client: &Client,
    address: SocketAddr,
) {
    fn is_send<T: Send>(_: T) {}
    is_send(Node::spawn(config, |builder| builder.group("name", GroupConfig::disk())));
    is_send(node.ready());
    is_send(node.status());
    is_send(node.closed());
    is_send(group.cast("x", Order::Total));
    is_send(group.cast_for("x", Order::Total, Level::Safe));
    is_send(group.accept_loss());
    is_send(machine.execute(b"x"));
    is_send(machine.read(|_: &S| ()));
    is_send(machine.status());
    is_send(machine.serve(address, |_: &S, _: &[u8]| Vec::new()));
    is_send(client.execute(b"x"));
    is_send(client.read(b"x"));
    is_send(client.status());
    is_send(node.close());
}
