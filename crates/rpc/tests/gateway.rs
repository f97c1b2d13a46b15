//! Calls by HTTP and JSON, as `curl` would make them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[allow(unreachable_pub, reason = "shared by tests")]
mod stations;

use std::net::SocketAddr;

use actix::Message;
use mainstay_rpc::{Config, Procedure, gateway::Gateway};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use stations::{Place, roster, station, within};

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<u64, String>")]
struct Divide {
    number: u64,
    by: u64,
}

impl Procedure for Divide {
    const NAME: &'static str = "math.divide";
}

#[derive(Serialize, Deserialize, Message)]
#[rtype(result = "Result<(), String>")]
struct Secret;

impl Procedure for Secret {
    const NAME: &'static str = "math.secret";
}

async fn ask(at: SocketAddr, path: &str, host: &str, kind: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    (status, body.to_owned())
}

#[tokio::test]
async fn calls_by_http() {
    let run = async {
        let roster = roster(2);
        let (_one, client) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        let (_two, server) = station(&roster, 1, Place::Mounted, Config::started_now(), None).await;
        let divide = |Divide { number, by }, _| async move {
            number.checked_div(by).ok_or_else(|| "by nothing".to_owned())
        };
        server.serve_fn(divide).await.unwrap();
        server.serve_fn(|Secret, _| async { Ok(()) }).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::task::spawn_local(Gateway::new(client).expose::<Divide>().serve(listener));
        let json = "application/json";
        let good = r#"{"number": 12, "by": 4}"#;
        let path = "/call/n1/math.divide";
        let cases = [
            (path, "localhost:1", json, good, 200, r#"{"value":3}"#),
            (path, "[::1]:1", json, r#"{"number": 1, "by": 0}"#, 422, r#"{"error":"by nothing"}"#),
            ("/call/n9/math.divide?deadline_ms=50", "localhost", json, good, 503, "not_at_all"),
            (path, "localhost", json, "{", 400, ""),
            (path, "localhost", json, r#"{"number": "x"}"#, 400, "not_at_all"),
            (path, "localhost", "text/plain", good, 415, ""),
            (path, "evil.example", json, good, 403, "not_at_all"),
            ("/call/n1/math.secret", "localhost", json, "null", 404, "not_at_all"),
            ("/nothing", "localhost", json, good, 404, ""),
        ];
        for (path, host, kind, body, status, says) in cases {
            let (told, text) = ask(at, path, host, kind, body).await;
            assert_eq!(told, status, "{path} {host} {body}: {text}");
            assert!(text.contains(says), "{path} {host} {body}: {text}");
        }
        let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
        assert!(Gateway::new(server).serve(open).await.is_err(), "no TLS yet");
    };
    LocalSet::new().run_until(run).await;
}

/// Requests whose bodies do not come take their places and no more: the next one is told so at once, and is let in when one of them goes.
#[tokio::test]
async fn bodies_that_do_not_come_are_bounded() {
    let run = async {
        let roster = roster(1);
        let (_one, rpc) = station(&roster, 0, Place::Mounted, Config::started_now(), None).await;
        let divide = |Divide { number, by }, _| async move { Ok(number / by) };
        rpc.serve_fn(divide).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::task::spawn_local(Gateway::new(rpc).expose::<Divide>().serve(listener));
        let begin = "POST /call/n0/math.divide HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
        let mut begun = Vec::new();
        for _ in 0..256 {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            begun.push(stream);
        }
        let good = r#"{"number": 12, "by": 4}"#;
        let ask = || ask(at, "/call/n0/math.divide", "localhost", "application/json", good);
        let (status, text) = ask().await;
        // All have their places, or this one is the last to get one.
        assert!(status == 200 || (status == 503 && text.contains("not_at_all")), "{text}");
        let full = async { while ask().await.0 != 503 {} };
        within(full).await;
        drop(begun);
        let free = async { while ask().await.0 != 200 {} };
        within(free).await;
    };
    LocalSet::new().run_until(run).await;
}
