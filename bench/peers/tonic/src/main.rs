//! Measures tonic: `peer-tonic [CASE-PREFIX..] [--exact] [--list] [--seconds N]`.
//!
//! A unary method of gRPC that returns its message, one field of bytes. What tonic's generator writes from a file of
//! protocol buffers is written by hand in `service.rs`: the program builds without `protoc`.

mod service;

use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use peers_common::Echo;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use service::EchoServer;

#[derive(Clone)]
struct Tonic(Channel);

impl Echo for Tonic {
    const PROGRAM: &'static str = "peer-tonic";
    const PEER: &'static str = "tonic";
    const GUARANTEE: &'static str =
        "answered by the one server, a lost connection fails the call, no TLS";

    async fn serve(listening: impl FnOnce(u16)) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        listening(listener.local_addr()?.port());
        let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .add_service(EchoServer)
            .serve_with_incoming(connections)
            .await
            .map_err(io::Error::other)
    }

    async fn connect(port: u16) -> io::Result<Self> {
        let server = Endpoint::from_shared(format!("http://{}:{port}", Ipv4Addr::LOCALHOST));
        let server = server.map_err(io::Error::other)?.tcp_nodelay(true);
        server.connect().await.map(Self).map_err(io::Error::other)
    }

    async fn echo(&self, payload: Vec<u8>) -> io::Result<Vec<u8>> {
        service::echo(self.0.clone(), payload).await.map_err(io::Error::other)
    }
}

fn main() -> ExitCode {
    peers_common::echo_main::<Tonic>()
}
