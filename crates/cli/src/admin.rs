//! The admin port: `GET /status`, enough HTTP for a browser, curl and the program itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay::Node;
use mainstay_directory::Directory;
use mainstay_runtime::{ClientListener as _, ClientStream, TcpClients};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::report::Report;

/// Most clients at once; the others wait.
const CLIENTS_MAX: usize = 16;
/// Longest head of a request.
const HEAD_MAX: usize = 4 << 10;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it waits for the system to have sockets again.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever.
pub(crate) async fn serve(name: String, node: Node<Directory>, mut listener: TcpClients) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok(stream) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (name, node) = (name.clone(), node.clone());
        tokio::task::spawn_local(async move {
            // A client that fails is nobody's error.
            let _ = timeout(PATIENCE, answer(&name, &node, stream)).await;
            drop(place);
        });
    }
}

async fn answer(
    name: &str,
    node: &Node<Directory>,
    mut stream: Box<dyn ClientStream>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let (status, body) = if head.starts_with(b"GET /status ") {
        match node.status().await {
            Ok(status) => ("200 OK", serde_json::to_string_pretty(&Report::new(name, &status))?),
            Err(reason) => ("503 Service Unavailable", format!("{{\"error\": \"{reason}\"}}")),
        }
    } else {
        ("404 Not Found", "{\"error\": \"there is GET /status\"}".to_owned())
    };
    let size = body.len() + 1;
    let text = format!(
        "HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n{body}\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}
