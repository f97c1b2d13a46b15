//! The client's side of a connection.

use bytes::Bytes;

use crate::resp::{Reply, ReplyError, ReplyParser, write};

/// A client's connection without its socket: commands go out, replies come back in the same order.
///
/// What is sent is not bounded here: a caller that pipelines looks at [`unanswered`](Self::unanswered).
#[derive(Debug, Default)]
pub struct Client {
    output: Vec<u8>,
    parser: ReplyParser,
    unanswered: u64,
}

impl Client {
    /// A connection just opened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a command: its name and its arguments.
    pub fn send(&mut self, command: &[&[u8]]) {
        write::command(&mut self.output, command);
        self.unanswered += 1;
    }

    /// What is to be written to the socket; empty if nothing is queued.
    #[must_use]
    pub fn take_output(&mut self) -> Bytes {
        std::mem::take(&mut self.output).into()
    }

    /// Takes in what the server sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.parser.feed(bytes);
    }

    /// The reply to the oldest unanswered command; `None` if it has not come yet.
    ///
    /// # Errors
    /// [`ReplyError`]: close the connection; the fate of what is unanswered is unknown.
    pub fn poll_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        let reply = self.parser.next_reply()?;
        if reply.is_some() {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        Ok(reply)
    }

    /// How many commands have no reply yet.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }
}
