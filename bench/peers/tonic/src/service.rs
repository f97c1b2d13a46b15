//! The service: what tonic's generator writes for `rpc Echo(Payload) returns (Payload)`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::server::{Grpc as Server, NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

const PATH: &str = "/peers.Echo/Echo";

/// `message Payload { bytes data = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

type Codec = ProstCodec<Payload, Payload>;
type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Calls the method.
///
/// # Errors
/// That of the call, or that the connection is gone; then it may have been carried out.
pub(crate) async fn echo(channel: Channel, data: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = Client::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static(PATH);
    let answer = client.unary(Request::new(Payload { data }), path, Codec::default()).await?;
    Ok(answer.into_inner().data)
}

/// Sends every message back.
#[derive(Clone, Copy)]
pub(crate) struct EchoServer;

impl UnaryService<Payload> for EchoServer {
    type Response = Payload;
    type Future = Answer<Response<Payload>, Status>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner())) })
    }
}

impl NamedService for EchoServer {
    const NAME: &'static str = "peers.Echo";
}

impl Service<http::Request<Body>> for EchoServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = *self;
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            Ok(Server::new(Codec::default()).unary(method, request).await)
        })
    }
}
