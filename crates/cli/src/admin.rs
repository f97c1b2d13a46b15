//! The admin port: `GET /status`, `POST /skip/POSITION`, `POST /accept-loss`; enough HTTP for a browser, curl and the
//! program itself.
//!
//! A POST changes something, so a page in the operator's browser must not be able to send one: it needs the header
//! [`HEADER`], which a browser sends to another origin only after it was allowed to, and nobody allows it; and a page that
//! has its own name point here is known by that name in `Host`.

mod places;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use mainstay::{AcceptLossError, NotDone, Outcome, Replicated, StateMachine};
use mainstay_base::Position;
use mainstay_runtime::{ClientListener as _, ClientStream, TcpClients};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use self::places::Places;
use crate::metrics;
use crate::report::{Own, Report};

/// What a POST carries, with any value.
pub(crate) const HEADER: &str = "X-Mainstay-Operator";
/// Longest head of a request.
const HEAD_MAX: usize = 4 << 10;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the system to have sockets again.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever; `own` is what the program knows of the node. At most `clients_max` connections at once; the others wait to
/// be accepted, unless one gives way that has not asked for anything.
pub(crate) async fn serve<S: StateMachine + 'static>(
    name: String,
    node: Replicated<S>,
    own: Rc<Own>,
    mut listener: TcpClients,
    clients_max: usize,
) {
    let mut places = Places::new(clients_max);
    loop {
        let Ok(stream) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        places.free().await;
        let (name, node, own) = (name.clone(), node.clone(), Rc::clone(&own));
        places.take(|asked| async move {
            // A client that fails is nobody's error.
            let _ = timeout(PATIENCE, answer(&name, &node, &own, stream, &asked)).await;
        });
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Status,
    Metrics,
    Skip(Position),
    AcceptLoss,
}

/// The status line and the body of an answer.
type Answer = (&'static str, String);

impl Asked {
    /// What the head of a request asks for, or how it is refused.
    fn read(head: &[u8]) -> Result<Self, Answer> {
        let Ok(head) = std::str::from_utf8(head) else { return Err(refuse("400 Bad Request")) };
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let skip = || path.strip_prefix("/skip/").and_then(|number| number.parse().ok());
        let asked = match (method, path) {
            ("GET", "/status") => return Ok(Self::Status),
            ("GET", "/metrics") => return Ok(Self::Metrics),
            ("POST", "/accept-loss") => Self::AcceptLoss,
            ("POST", _) => Self::Skip(Position(skip().ok_or_else(|| refuse("404 Not Found"))?)),
            _ => return Err(refuse("404 Not Found")),
        };
        let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
        let header = |wanted: &str| {
            let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            named.map(|(_, value)| value.trim())
        };
        let here = header("Host").is_none_or(is_loopback);
        if here && header(HEADER).is_some() { Ok(asked) } else { Err(refuse("403 Forbidden")) }
    }

    async fn answer<S: StateMachine + 'static>(
        self,
        name: &str,
        node: &Replicated<S>,
        own: &Own,
    ) -> io::Result<Answer> {
        match self {
            Self::Status | Self::Metrics => Ok(match node.status().await {
                Ok(status) => {
                    let report = Report::new(name, &status, own);
                    match self {
                        Self::Metrics => ("200 OK", metrics::of(&report)),
                        _ => ("200 OK", serde_json::to_string_pretty(&report)?),
                    }
                }
                Err(reason) => ("503 Service Unavailable", said("error", &reason.to_string())),
            }),
            Self::Skip(position) => {
                tracing::warn!(
                    position = position.0,
                    "an operator asks to have a command passed over"
                );
                Ok(skip(node, position).await)
            }
            Self::AcceptLoss => {
                tracing::warn!("an operator asks to accept that acknowledged commands may be lost");
                Ok(accept_loss(node).await)
            }
        }
    }
}

/// From when on loss is accepted. Without a quorum that may be never.
async fn accepted<S: StateMachine + 'static>(node: &Replicated<S>) -> &'static str {
    let status = node.status().await;
    if status.is_ok_and(|it| it.site.stack.is_some_and(|stack| stack.minority)) {
        "loss is accepted at the next view, and none follows while too few votes are to be had; see status"
    } else {
        "loss is accepted at the next view"
    }
}

/// Lets the group go on without those that may have more of its past.
async fn accept_loss<S: StateMachine + 'static>(node: &Replicated<S>) -> Answer {
    let reason = match node.accept_loss().await {
        Ok(()) => return ("200 OK", said("done", accepted(node).await)),
        Err(reason) => reason,
    };
    let status = match reason {
        AcceptLossError::NothingToAccept => "409 Conflict",
        AcceptLossError::Unknown => "504 Gateway Timeout",
        _ => "503 Service Unavailable",
    };
    (status, said("error", &reason.to_string()))
}

/// Puts the skip into the order.
async fn skip<S: StateMachine + 'static>(node: &Replicated<S>, position: Position) -> Answer {
    match node.skip(position).await {
        Outcome::Done(_) => ("200 OK", said("done", "it is passed over")),
        Outcome::NotDone(NotDone::NotPoisoned) => {
            ("409 Conflict", said("error", "no group is halted there; nothing changed"))
        }
        Outcome::NotDone(reason) => ("503 Service Unavailable", said("error", &reason.to_string())),
        Outcome::Unknown => ("504 Gateway Timeout", said("error", "no answer in time; ask again")),
    }
}

fn said(key: &str, text: &str) -> String {
    serde_json::json!({ key: text }).to_string()
}

fn refuse(status: &'static str) -> Answer {
    let text = format!(
        "there are GET /status, GET /metrics, and with the header {HEADER} POST /skip/POSITION and POST /accept-loss"
    );
    (status, said("error", &text))
}

/// Whether a `Host` is an address of this machine, or the name that always is.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn answer<S: StateMachine + 'static>(
    name: &str,
    node: &Replicated<S>,
    own: &Own,
    mut stream: Box<dyn ClientStream>,
    has_asked: &Cell<bool>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let end = |head: &[u8]| head.windows(4).position(|end| end == b"\r\n\r\n");
    while end(&head).is_none() && head.len() < HEAD_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    has_asked.set(true);
    head.truncate(end(&head).unwrap_or(head.len()));
    let asked = Asked::read(&head);
    let (status, body) = match asked {
        Ok(asked) => asked.answer(name, node, own).await?,
        Err(ref refusal) => refusal.clone(),
    };
    let of_type = match asked {
        Ok(Asked::Metrics) if status == "200 OK" => metrics::TYPE,
        _ => "application/json",
    };
    let size = body.len() + 1;
    let text = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {of_type}\r\nContent-Length: {size}\r\n\r\n{body}\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that only what no browser sends by itself to another origin changes anything.
    #[test]
    fn a_post_needs_the_header_and_a_host_of_this_machine() {
        let asked = |head: &str| Asked::read(head.as_bytes());
        assert_eq!(asked("GET /status HTTP/1.1\r\nHost: evil.example"), Ok(Asked::Status));
        let with = format!("{HEADER}: 1");
        for host in ["127.0.0.1", "127.0.0.1:80", "localhost:7", "[::1]:7"] {
            let head = format!("POST /skip/7 HTTP/1.1\r\nHost: {host}\r\n{with}");
            assert_eq!(asked(&head), Ok(Asked::Skip(Position(7))), "{host}");
        }
        for (head, status) in [
            (format!("POST /accept-loss HTTP/1.1\r\nHost: evil.example:80\r\n{with}"), "403"),
            ("POST /accept-loss HTTP/1.1\r\nHost: localhost".to_owned(), "403"),
            (format!("GET /accept-loss HTTP/1.1\r\n{with}"), "404"),
            (format!("POST /skip/x HTTP/1.1\r\n{with}"), "404"),
            (format!("POST /status HTTP/1.1\r\n{with}"), "404"),
            (String::new(), "404"),
        ] {
            let refused = asked(&head).expect_err(&head).0;
            assert!(refused.starts_with(status), "{head}: {refused}");
        }
        assert!(Asked::read(b"POST \xff").is_err());
    }
}
