//! Measures tarpc: `peer-tarpc [CASE-PREFIX..] [--exact] [--list] [--seconds N]`.
//!
//! A service with one method that returns its argument, a `Vec<u8>` as a user would first write it, over the transport
//! of frames in bincode. The sockets have `TCP_NODELAY` set by hand, which tarpc's own `connect` and `listen` do not do.

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use futures::StreamExt as _;
use peers_common::Echo;
use tarpc::serde_transport::Transport;
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context};
use tokio::net::{TcpListener, TcpStream};

#[tarpc::service]
trait Bytes {
    async fn echo(payload: Vec<u8>) -> Vec<u8>;
}

#[derive(Clone)]
struct Server;

impl Bytes for Server {
    async fn echo(self, _: context::Context, payload: Vec<u8>) -> Vec<u8> {
        payload
    }
}

#[derive(Clone)]
struct Tarpc(BytesClient);

impl Echo for Tarpc {
    const PROGRAM: &'static str = "peer-tarpc";
    const PEER: &'static str = "tarpc-bincode";
    const GUARANTEE: &'static str =
        "answered by the one server, a lost connection fails the call, no TLS";

    async fn serve(listening: impl FnOnce(u16)) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        listening(listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let channel = BaseChannel::with_defaults(Transport::from((stream, Bincode::default())));
            let requests = channel.execute(Server.serve());
            tokio::spawn(requests.for_each(async |answer| drop(tokio::spawn(answer))));
        }
    }

    async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let transport = Transport::from((stream, Bincode::default()));
        Ok(Self(BytesClient::new(client::Config::default(), transport).spawn()))
    }

    async fn echo(&self, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.echo(context::current(), payload).await.map_err(io::Error::other)
    }
}

fn main() -> ExitCode {
    peers_common::echo_main::<Tarpc>()
}
