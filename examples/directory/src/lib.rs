//! A replicated directory that speaks RESP2.
//!
//! Keys and values are bytes. The library is pure; a host joins it to sockets and to a group (module `host`, with the
//! feature of that name, is the one of the `mainstay` program):
//!
//! - Each client connection has a [`Connection`]: bytes in, [`Request`]s out, answers in, bytes out in the order of the
//!   commands. The host reads from the socket only while [`Connection::wants_input`], and closes it when
//!   [`Connection::is_closed`].
//! - A [`Request::Write`] is cast to the group in its connection's order; its answer is what
//!   [`command::reply_to`] makes of the replica's outcome, once the message has reached the group's level.
//! - A [`Request::Read`] is answered by [`Directory::read`], or [put back](Connection::put_back) for want of room, on `Replica::machine()`: after a probe of a majority begun
//!   after the request, and after the replica has reached the highest position that the probe found; at once if
//!   the request is `local`.
//! - If nothing was executed and nothing will be, the answer is [`command::CLUSTER_DOWN`], reads included; if
//!   that is not known, [`command::UNKNOWN_FATE`].
//!
//! Commands: SET, GET, DEL, EXISTS, INCR, MGET, DBSIZE; and PING, ECHO, SELECT 0, INFO, COMMAND, CONFIG GET, READONLY,
//! READWRITE, QUIT, which the connection answers itself.
//!
//! ```
//! use mainstay_base::{ClusterId, Incarnation, MessageId, NodeId, SiteId};
//! use mainstay_directory::{Client, Connection, Directory, Request, command, resp::Reply};
//! use mainstay_paradigm::{Config, Output, Replica};
//!
//! let node = NodeId::new(ClusterId::from_entropy(1), "a");
//! let sender = SiteId { node, incarnation: Incarnation(1) };
//! let mut replica = Replica::new(Config::builder().build()?, Directory::default());
//! let (mut client, mut connection) = (Client::new(), Connection::new());
//! client.send(&[b"SET", b"k", b"41"]);
//! client.send(&[b"INCR", b"k"]);
//! client.send(&[b"GET", b"k"]);
//! connection.receive(&client.take_output());
//! while let Some(request) = connection.poll_request() {
//!     match request {
//!         Request::Write { ticket, payload } => {
//!             let position = replica.position().next();
//!             let message = MessageId { sender, sequence: position.0 };
//!             replica.deliver(position, message, payload, true)?;
//!             while let Some(output) = replica.poll_output() {
//!                 if let Output::Reply { outcome, .. } = output {
//!                     connection.answer(ticket, command::reply_to(&outcome));
//!                 }
//!             }
//!         }
//!         Request::Read { ticket, read, local, room } => {
//!             let directory = replica.machine().ok_or("halted")?;
//!             match directory.read(&read, room) {
//!                 Ok(answer) => connection.answer(ticket, answer),
//!                 Err(no_room) => connection.put_back(ticket, read, local, no_room.size),
//!             }
//!         }
//!         Request::Info { ticket } => connection.answer_info(ticket, "role:member"),
//!     }
//! }
//! client.receive(&connection.take_output());
//! assert_eq!(client.poll_reply()?, Some(Reply::Simple("OK".into())));
//! assert_eq!(client.poll_reply()?, Some(Reply::Integer(42)));
//! assert_eq!(client.poll_reply()?, Some(Reply::Bulk(Some("42".into()))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod client;
pub mod command;
mod connection;
#[cfg(feature = "host")]
pub mod host;
mod item;
mod operation;
pub mod resp;
mod state;

pub use answer::{Answer, Output};
pub use client::Client;
pub use connection::{Connection, Request};
pub use operation::{KEYS_MAX, Kind, Operation, OperationError};
pub use state::{Directory, DirectorySnapshot, NoRoom, ORDERED_REPLY_BYTES_MAX, REPLY_BYTES_MAX};
