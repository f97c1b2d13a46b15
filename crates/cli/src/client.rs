//! A client of the RESP port that waits for its answers.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mainstay_directory::Client as Pure;
use mainstay_directory::resp::Reply;

/// A connection to one node.
pub(crate) struct Client {
    stream: TcpStream,
    pure: Pure,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects; `patience` is for this and for each answer.
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, pure: Pure::new(), buffer: vec![0; 64 << 10] })
    }

    /// Queues a command.
    pub(crate) fn send(&mut self, command: &[&str]) {
        let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
        self.pure.send(&words);
    }

    /// Writes what is queued.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.pure.take_output())
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(reply) = self.poll()? {
                return Ok(reply);
            }
            match self.stream.read(&mut self.buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                size => self.pure.receive(&self.buffer[..size]),
            }
        }
    }

    /// An answer that is here already.
    pub(crate) fn poll(&mut self) -> io::Result<Option<Reply>> {
        self.pure.poll_reply().map_err(io::Error::other)
    }

    /// Sends one command and waits for its answer.
    pub(crate) fn call(&mut self, command: &[&str]) -> io::Result<Reply> {
        self.send(command);
        self.flush()?;
        self.receive()
    }
}
