//! A client of the directory that pipelines.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mainstay_directory::Client as Pure;
use mainstay_directory::resp::Reply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How many keys one client writes.
const KEYS: u64 = 1_000;
const VALUE: [u8; 64] = [b'v'; 64];

/// A connection to one node.
pub(crate) struct Client {
    stream: TcpStream,
    pure: Pure,
    buffer: Vec<u8>,
    name: usize,
    sent: u64,
    /// When each command without an answer was sent.
    waiting: VecDeque<Instant>,
}

impl Client {
    /// Connects; `name` tells the keys of the clients apart.
    pub(crate) async fn connect(address: SocketAddr, name: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (buffer, waiting) = (vec![0; 16 << 10], VecDeque::new());
        Ok(Self { stream, pure: Pure::new(), buffer, name, sent: 0, waiting })
    }

    /// Sends SETs until `most` have no answer.
    pub(crate) async fn fill(&mut self, most: usize) -> io::Result<()> {
        while self.waiting.len() < most {
            let key = format!("key:{}:{}", self.name, self.sent % KEYS);
            self.sent += 1;
            self.push(key.as_bytes(), &VALUE);
        }
        self.flush().await
    }

    /// Queues a SET for the next [`flush`](Self::flush).
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.pure.send(&[b"SET", key, value]);
        self.waiting.push_back(Instant::now());
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.pure.take_output()).await
    }

    /// How many SETs have no answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Waits for an answer at least; each that has come goes to `answered`, with the time when its command was sent.
    pub(crate) async fn receive(
        &mut self,
        mut answered: impl FnMut(Reply, Instant),
    ) -> io::Result<()> {
        let mut any = false;
        while !any {
            let size = self.stream.read(&mut self.buffer).await?;
            if size == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.pure.receive(&self.buffer[..size]);
            while let Some(reply) = self.pure.poll_reply().map_err(io::Error::other)? {
                let sent = self.waiting.pop_front();
                let sent = sent.ok_or_else(|| io::Error::other("an answer to no command"))?;
                answered(reply, sent);
                any = true;
            }
        }
        Ok(())
    }
}

/// Whether the SET is acknowledged.
pub(crate) fn is_done(reply: &Reply) -> bool {
    matches!(reply, Reply::Simple(text) if text == "OK")
}
