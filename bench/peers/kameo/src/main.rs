//! Measures kameo: `peer-kameo [CASE-PREFIX..] [--exact] [--list] [--seconds N]`.
//!
//! An actor of another process answers each message with its content. Each process has a swarm of libp2p, as kameo's own
//! `bootstrap` makes it, but without mDNS: TCP, encrypted by Noise, streams of yamux. The client dials the server's
//! address, and finds the actor by its name in the registry that the two share.

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use futures::StreamExt as _;
use kameo::actor::{RemoteActorRef, Spawn as _};
use kameo::message::{Context, Message};
use kameo::remote::{Behaviour, messaging};
use kameo::{Actor, RemoteActor, remote_message};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};
use peers_common::{Echo, eventually};

const NAME: &str = "echo";

#[derive(Actor, RemoteActor)]
struct Echoing;

#[remote_message]
impl Message<Vec<u8>> for Echoing {
    type Reply = Vec<u8>;

    async fn handle(&mut self, payload: Vec<u8>, _: &mut Context<Self, Vec<u8>>) -> Vec<u8> {
        payload
    }
}

/// The swarm of this process, of which kameo allows one.
fn swarm() -> io::Result<Swarm<Behaviour>> {
    let transport = tcp::Config::default().nodelay(true);
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(transport, noise::Config::new, yamux::Config::default)
        .map_err(io::Error::other)?
        .with_behaviour(|key| {
            Behaviour::new(key.public().to_peer_id(), messaging::Config::default())
        })
        .map_err(io::Error::other)?
        .build();
    swarm.behaviour().try_init_global().map_err(io::Error::other)?;
    Ok(swarm)
}

fn loopback(port: u16) -> Multiaddr {
    Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port))
}

/// The port that the swarm listens on.
async fn listen(swarm: &mut Swarm<Behaviour>) -> io::Result<u16> {
    swarm.listen_on(loopback(0)).map_err(io::Error::other)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let port = address.iter().find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    _ => None,
                });
                return port.ok_or_else(|| io::Error::other(format!("{address} has no port")));
            }
            SwarmEvent::ListenerError { error, .. } => return Err(error),
            _ => {}
        }
    }
}

/// Connects to the process at this port.
async fn dial(swarm: &mut Swarm<Behaviour>, port: u16) -> io::Result<()> {
    let address = loopback(port);
    swarm.dial(address.clone()).map_err(io::Error::other)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                // The registry asks those whose address it has been told.
                swarm.add_peer_address(peer_id, address);
                return Ok(());
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(io::Error::other(error));
            }
            _ => {}
        }
    }
}

/// Moves everything that goes over the connections.
async fn drive(mut swarm: Swarm<Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}

#[derive(Clone)]
struct Kameo(RemoteActorRef<Echoing>);

impl Echo for Kameo {
    const PROGRAM: &'static str = "peer-kameo";
    const PEER: &'static str = "kameo";
    const GUARANTEE: &'static str =
        "answered by the one actor, a lost connection fails the call, always encrypted (Noise)";

    async fn serve(listening: impl FnOnce(u16)) -> io::Result<()> {
        let mut swarm = swarm()?;
        let port = listen(&mut swarm).await?;
        let driven = tokio::spawn(drive(swarm));
        let echoing = Echoing::spawn(Echoing);
        echoing.register(NAME).await.map_err(io::Error::other)?;
        listening(port);
        driven.await.map_err(io::Error::other)
    }

    async fn connect(port: u16) -> io::Result<Self> {
        let mut swarm = swarm()?;
        dial(&mut swarm, port).await?;
        tokio::spawn(drive(swarm));
        let found = async || {
            let actor = RemoteActorRef::lookup(NAME).await.map_err(io::Error::other)?;
            actor.ok_or_else(|| io::Error::other("nobody has the name"))
        };
        eventually("the actor of the other process", found).await.map(Self)
    }

    async fn echo(&self, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.ask(&payload).await.map_err(io::Error::other)
    }
}

fn main() -> ExitCode {
    peers_common::echo_main::<Kameo>()
}
