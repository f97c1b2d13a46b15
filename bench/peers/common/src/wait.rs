//! Waiting for a condition, never longer than a limit.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long a peer may take to start, to answer, or to come back.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is an answer; `what` is told in the error when there is none within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask()? {
            Some(answer) => return Ok(answer),
            None if Instant::now() < until => thread::sleep(PAUSE),
            None => return Err(in_vain(what)),
        }
    }
}

/// The same among tasks; an attempt that fails or hangs is made again, and the error tells the last one's.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    const ATTEMPT: Duration = Duration::from_secs(5);
    let until = Instant::now() + PATIENCE;
    loop {
        let error = match tokio::time::timeout(ATTEMPT, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        if Instant::now() >= until {
            return Err(io::Error::other(format!("{}: {error}", in_vain(what))));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn in_vain(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("waited in vain for {what}"))
}
