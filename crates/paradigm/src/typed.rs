//! State machines whose commands and replies have types.

use bytes::Bytes;
use mainstay_base::{Position, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::RestoreError;
use crate::client::{Failed, NotDone};
use crate::state::State;
use crate::user::StateMachine;
use crate::views::MembersChanged;

/// In front of a reply: what follows is its MessagePack.
const REPLY: u8 = 0;
/// The command was not one.
const MALFORMED: u8 = 1;

/// A deterministic state machine with types for its commands and replies, over a [`State`] of parts that the crate brings
/// along. It is a [`StateMachine`], whose law it keeps: no clock, no randomness, no order of a hash table.
///
/// Commands and replies go through serde, structs as arrays: to add a variant at the end of an enum keeps old logs readable, to
/// change a struct does not. Bytes that are no command are answered as [`NotDone::Malformed`], and change nothing.
///
/// ```
/// use mainstay_base::Position;
/// use mainstay_paradigm::{Commands, Map, Small};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum Command { Set(String, u64), Add(String, u64) }
///
/// /// Numbers by name, and how often they were changed.
/// #[derive(Default)]
/// struct Machine { state: (Map<String, u64>, Small<u64>) }
///
/// impl Commands for Machine {
///     type Command = Command;
///     type Reply = u64;
///     type State = (Map<String, u64>, Small<u64>);
///     fn execute(&mut self, _at: Position, command: Command) -> u64 {
///         let (numbers, changes) = &mut self.state;
///         **changes += 1;
///         let (name, number) = match command {
///             Command::Set(name, number) => (name, number),
///             Command::Add(name, more) => {
///                 let old = numbers.get(&name).copied().unwrap_or(0);
///                 (name, old.wrapping_add(more))
///             }
///         };
///         numbers.insert(name, number);
///         number
///     }
///     fn state(&self) -> &Self::State { &self.state }
///     fn state_mut(&mut self) -> &mut Self::State { &mut self.state }
/// }
/// ```
pub trait Commands: Send + 'static {
    /// What can be executed.
    type Command: Serialize + DeserializeOwned;
    /// What it is answered with.
    type Reply: Serialize + DeserializeOwned;
    /// What is kept.
    type State: State;

    /// Executes one command; see [`StateMachine::apply`].
    fn execute(&mut self, at: Position, command: Self::Command) -> Self::Reply;

    /// All that is kept: two machines with equal states do the same.
    fn state(&self) -> &Self::State;

    /// As [`state`](Self::state); asked for when a snapshot is made or comes in.
    fn state_mut(&mut self) -> &mut Self::State;

    /// The members of the group are others; see [`StateMachine::view`]. Default: nothing.
    fn view(&mut self, at: Position, view: &MembersChanged) {
        let _ = (at, view);
    }
}

impl<C: Commands> StateMachine for C {
    type Snapshot = <C::State as State>::Snapshot;

    fn apply(&mut self, at: Position, command: &[u8], reply: &mut Vec<u8>) {
        match codec::decode(command) {
            Ok(command) => {
                let answer = self.execute(at, command);
                self.state_mut().settle();
                reply.push(REPLY);
                reply.extend_from_slice(&codec::encode(&answer));
            }
            Err(_) => reply.push(MALFORMED),
        }
    }

    fn view(&mut self, at: Position, view: &MembersChanged) {
        Commands::view(self, at, view);
        self.state_mut().settle();
    }

    fn begin_snapshot(&mut self) -> Self::Snapshot {
        self.state_mut().begin_snapshot()
    }

    fn restore_chunk(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.state_mut().restore_chunk(chunk)
    }

    fn state_hash(&self) -> u128 {
        self.state().state_hash()
    }

    fn work(&self) -> u64 {
        self.state().work()
    }
}

/// The bytes of a command of `C`.
///
/// # Panics
/// If the command's `Serialize` fails.
#[must_use]
pub fn encode_command<C: Commands>(command: &C::Command) -> Bytes {
    codec::encode(command)
}

/// The reply of `C` in an answer of its replicas.
///
/// # Errors
/// [`Failed::NotDone`] with [`NotDone::Malformed`] if the command was none for the replicas; [`Failed::Reply`] if the answer
/// is not one of `C`'s.
pub fn decode_reply<C: Commands>(answer: &[u8]) -> Result<C::Reply, Failed> {
    match answer.split_first() {
        Some((&REPLY, reply)) => codec::decode(reply).map_err(|_| Failed::Reply),
        Some((&MALFORMED, [])) => Err(Failed::NotDone(NotDone::Malformed)),
        _ => Err(Failed::Reply),
    }
}
