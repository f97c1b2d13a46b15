//! Measures ractor_cluster: `peer-ractor [CASE-PREFIX..] [--exact] [--list] [--seconds N]`.
//!
//! An actor of another process answers each call with its argument. Each process has a node server; the actor is found
//! through a process group, whose members the nodes tell each other when they have connected.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use peers_common::{Echo, eventually, loopback_ports};
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};
use ractor_cluster::{NodeServer, NodeServerMessage, RactorClusterMessage, client_connect};

const GROUP: &str = "echo";

#[derive(RactorClusterMessage)]
enum Message {
    #[rpc]
    Echo(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

struct Echoing;

impl Actor for Echoing {
    type Msg = Message;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<Message>, (): ()) -> Result<(), ActorProcessingErr> {
        pg::join(GROUP.to_owned(), vec![me.get_cell()]);
        Ok(())
    }

    async fn handle(
        &self,
        _me: ActorRef<Message>,
        message: Message,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let Message::Echo(payload, reply) = message;
        // Who has asked may have gone meanwhile.
        let _ = reply.send(payload);
        Ok(())
    }
}

/// A node server on this port.
async fn node(name: &str, port: u16) -> io::Result<ActorRef<NodeServerMessage>> {
    let (cookie, host) = ("peers".to_owned(), "localhost".to_owned());
    let server = NodeServer::new(port, cookie, name.to_owned(), host, None, None)
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let started = Actor::spawn(None, server, ()).await;
    started.map(|(node, _)| node).map_err(io::Error::other)
}

#[derive(Clone)]
struct Ractor(ActorRef<Message>);

impl Echo for Ractor {
    const PROGRAM: &'static str = "peer-ractor";
    const PEER: &'static str = "ractor_cluster";
    const GUARANTEE: &'static str =
        "answered by the one actor, a lost connection fails the call, no TLS";

    async fn serve(listening: impl FnOnce(u16)) -> io::Result<()> {
        let [port] = loopback_ports()?;
        let (_, echoing) = Actor::spawn(None, Echoing, ()).await.map_err(io::Error::other)?;
        let _node = node("server", port).await?;
        listening(port);
        echoing.await.map_err(io::Error::other)
    }

    async fn connect(port: u16) -> io::Result<Self> {
        let [own] = loopback_ports()?;
        let node = node("client", own).await?;
        client_connect(&node, (Ipv4Addr::LOCALHOST, port)).await.map_err(io::Error::other)?;
        let found = async || {
            let members = pg::get_members(&GROUP.to_owned());
            let actor = members.into_iter().next().map(ActorRef::from);
            actor.ok_or_else(|| io::Error::other("nobody is in the group"))
        };
        eventually("the actor of the other process", found).await.map(Self)
    }

    async fn echo(&self, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        let called = self.0.call(|reply| Message::Echo(payload, reply), None).await;
        match called.map_err(io::Error::other)? {
            CallResult::Success(answer) => Ok(answer),
            other => Err(io::Error::other(format!("the call ended: {other:?}"))),
        }
    }
}

fn main() -> ExitCode {
    peers_common::echo_main::<Ractor>()
}
