//! What a command of a client asks for.

use bytes::Bytes;
use mainstay_paradigm::{Envelope, Outcome};

use crate::operation::{KEYS_MAX, Kind, Operation};
use crate::resp::{RespCommand, write};

/// The answer if the site cannot serve and nothing was executed, nor will be.
pub const CLUSTER_DOWN: &[u8] =
    b"-CLUSTERDOWN no majority can be reached; nothing was executed\r\n";
/// The answer if it is not known whether the command was or will be executed.
pub const UNKNOWN_FATE: &[u8] = b"-UNKNOWN the command may have been executed or not\r\n";

/// Options of SET that Redis knows and the directory does not.
const SET_OPTIONS: [&str; 12] =
    ["EX", "PX", "EXAT", "PXAT", "NX", "XX", "KEEPTTL", "GET", "IFEQ", "IFNE", "IFDEQ", "IFDNE"];
/// Longest part of a client's words that an error repeats, in bytes.
const ECHO_BYTES_MAX: usize = 128;

/// Room for an answer without values: a number, an error of a read, the head of an array.
const SHORT_ANSWER_BYTES: usize = 128;

/// A read: evaluated on the state of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    kind: Kind,
    command: RespCommand,
}

impl Read {
    /// The operation.
    #[must_use]
    pub fn operation(&self) -> Operation<'_> {
        Operation::new(self.kind, self.command.arguments().skip(1))
            .expect("the number of arguments was checked when the read was made")
    }

    /// The most bytes that its answer can be if each value with its header takes `value_bytes`.
    pub(crate) fn answer_bytes(&self, value_bytes: usize) -> usize {
        let values = match self.kind {
            Kind::Get | Kind::MGet => self.command.len() - 1,
            _ => 0,
        };
        SHORT_ANSWER_BYTES + values.saturating_mul(value_bytes)
    }

    /// The payload of a message that has the read executed in the total order instead.
    #[must_use]
    pub fn ordered(&self) -> Bytes {
        Envelope::Anonymous.encode(&self.operation().encode())
    }
}

/// What is to be done for a command.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Answer this, as RESP; the group is not needed.
    Reply(Bytes),
    /// Evaluate on the state.
    Read(Read),
    /// Cast this payload to the group.
    Write(Bytes),
    /// Answer with the host's text.
    Info,
    /// Answer `OK`; reads of the connection may be local from here on, or not any more.
    LocalReads(bool),
    /// Answer `OK` and close.
    Quit,
}

/// The commands, their names in lower case, and how many words they have: at least, at most.
const COMMANDS: [(&str, Name, usize, usize); 16] = [
    ("set", Name::Set, 3, usize::MAX),
    ("get", Name::Operation(Kind::Get), 2, 2),
    ("del", Name::Operation(Kind::Del), 2, usize::MAX),
    ("exists", Name::Operation(Kind::Exists), 2, usize::MAX),
    ("incr", Name::Operation(Kind::Incr), 2, 2),
    ("mget", Name::Operation(Kind::MGet), 2, usize::MAX),
    ("dbsize", Name::Operation(Kind::DbSize), 1, 1),
    ("ping", Name::Ping, 1, 2),
    ("echo", Name::Echo, 2, 2),
    ("select", Name::Select, 2, 2),
    ("info", Name::Info, 1, usize::MAX),
    ("command", Name::Command, 1, usize::MAX),
    ("config", Name::Config, 2, usize::MAX),
    ("readonly", Name::LocalReads(true), 1, 1),
    ("readwrite", Name::LocalReads(false), 1, 1),
    ("quit", Name::Quit, 1, usize::MAX),
];

#[derive(Clone, Copy)]
enum Name {
    Set,
    Operation(Kind),
    Ping,
    Echo,
    Select,
    Info,
    Command,
    Config,
    LocalReads(bool),
    Quit,
}

/// What `command` asks for. Anything unknown or malformed is a [`Action::Reply`] with an error.
#[must_use]
pub fn classify(command: RespCommand) -> Action {
    let name = command.argument(0).unwrap_or_default();
    let known = COMMANDS.iter().find(|(known, ..)| name.eq_ignore_ascii_case(known.as_bytes()));
    let Some((known, name, least, most)) = known else { return unknown(&command) };
    if !(*least..=*most).contains(&command.len()) {
        return error(&format!("ERR wrong number of arguments for '{known}' command"));
    }
    match *name {
        Name::Operation(_) if command.len() > 1 + KEYS_MAX => {
            error(&format!("ERR more than {KEYS_MAX} keys in one command"))
        }
        Name::Set => set(&command),
        Name::Operation(kind) if kind.writes() => write(kind, &command),
        Name::Operation(kind) => Action::Read(Read { kind, command }),
        Name::Ping => match command.argument(1) {
            None => reply(|into| write::simple(into, "PONG")),
            Some(text) => reply(|into| write::bulk(into, text)),
        },
        Name::Echo => reply(|into| write::bulk(into, command.argument(1).unwrap_or_default())),
        Name::Select => match command.argument(1) {
            Some(b"0") => ok(),
            _ => error("ERR DB index is out of range"),
        },
        Name::Info => Action::Info,
        Name::Command => of_commands(&command),
        Name::Config => config(&command),
        Name::LocalReads(on) => Action::LocalReads(on),
        Name::Quit => Action::Quit,
    }
}

/// The answer that an outcome of the replica means for a client.
#[must_use]
pub fn reply_to(outcome: &Outcome) -> Bytes {
    match outcome {
        Outcome::Done(reply) => reply.clone(),
        Outcome::Skipped => Bytes::from_static(b"-ERR the command was skipped by an operator\r\n"),
        _ => Bytes::from_static(UNKNOWN_FATE),
    }
}

fn set(command: &RespCommand) -> Action {
    let Some(option) = command.argument(3) else { return write(Kind::Set, command) };
    let known = SET_OPTIONS.iter().find(|known| option.eq_ignore_ascii_case(known.as_bytes()));
    match known {
        Some(known) => error(&format!("ERR SET option {known} is not supported")),
        None => error("ERR syntax error"),
    }
}

fn write(kind: Kind, command: &RespCommand) -> Action {
    let operation = Operation::new(kind, command.arguments().skip(1))
        .expect("the number of arguments has just been checked");
    Action::Write(Envelope::Anonymous.encode(&operation.encode()))
}

/// `COMMAND`, of which clients ask for documentation and the count when they start.
fn of_commands(command: &RespCommand) -> Action {
    match command.argument(1) {
        None => reply(|into| write::array(into, 0)),
        Some(sub) if sub.eq_ignore_ascii_case(b"docs") => reply(|into| write::array(into, 0)),
        Some(sub) if sub.eq_ignore_ascii_case(b"count") => {
            reply(|into| write::integer(into, COMMANDS.len() as i64))
        }
        Some(sub) => error(&format!("ERR unknown subcommand '{}'", shown(sub))),
    }
}

/// `CONFIG GET`, of which benchmarks ask how the server persists.
fn config(command: &RespCommand) -> Action {
    let sub = command.argument(1).unwrap_or_default();
    if !sub.eq_ignore_ascii_case(b"get") || command.len() != 3 {
        return error("ERR CONFIG knows GET of one parameter only");
    }
    let parameter = command.argument(2).unwrap_or_default();
    let value = [("save", ""), ("appendonly", "no")]
        .into_iter()
        .find(|(name, _)| parameter.eq_ignore_ascii_case(name.as_bytes()));
    reply(|into| match value {
        None => write::array(into, 0),
        Some((name, value)) => {
            write::array(into, 2);
            write::bulk(into, name.as_bytes());
            write::bulk(into, value.as_bytes());
        }
    })
}

fn unknown(command: &RespCommand) -> Action {
    let mut text = String::from("ERR unknown command '");
    text.push_str(&shown(command.argument(0).unwrap_or_default()));
    text.push_str("', with args beginning with: ");
    for argument in command.arguments().skip(1) {
        if text.len() >= 2 * ECHO_BYTES_MAX {
            break;
        }
        text.push_str(&format!("'{}' ", shown(argument)));
    }
    error(&text)
}

/// The start of a client's word, fit for an error.
fn shown(word: &[u8]) -> String {
    let start = &word[..word.len().min(ECHO_BYTES_MAX)];
    String::from_utf8_lossy(start).into_owned()
}

fn ok() -> Action {
    reply(|into| write::simple(into, "OK"))
}

fn error(text: &str) -> Action {
    reply(|into| write::error(into, text))
}

fn reply(write: impl FnOnce(&mut Vec<u8>)) -> Action {
    let mut bytes = Vec::new();
    write(&mut bytes);
    Action::Reply(bytes.into())
}
