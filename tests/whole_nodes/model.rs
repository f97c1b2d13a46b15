//! The directory as a sequential object, made anew: nothing of it is the directory's code.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay_check::linear::{self, Model};
use mainstay_directory::resp::Reply;
use mainstay_directory::{Kind, Operation};

/// What a client asks for. Keys have a number; those of one part are never combined with those of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Set(u64, i64),
    Get(u64),
    Incr(u64),
    Del(Vec<u64>),
    MGet(Vec<u64>),
}

/// Keys of one part.
pub const PART: u64 = 2;

pub type Asked = linear::Operation<Op, Reply>;

impl Op {
    pub fn keys(&self) -> Vec<u64> {
        match self {
            Self::Set(key, _) | Self::Get(key) | Self::Incr(key) => vec![*key],
            Self::Del(keys) | Self::MGet(keys) => keys.clone(),
        }
    }

    /// The independent part of the directory that it is about.
    pub fn part(&self) -> u64 {
        self.keys()[0] / PART
    }

    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::MGet(_))
    }

    /// As the command of the replicated directory.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Self::Set(..) => Kind::Set,
            Self::Get(_) => Kind::Get,
            Self::Incr(_) => Kind::Incr,
            Self::Del(_) => Kind::Del,
            Self::MGet(_) => Kind::MGet,
        };
        let mut arguments: Vec<Vec<u8>> = self.keys().into_iter().map(key).collect();
        if let Self::Set(_, value) = self {
            arguments.push(value.to_string().into());
        }
        let arguments = arguments.iter().map(Vec::as_slice);
        Operation::new(kind, arguments).unwrap().encode()
    }
}

pub fn key(number: u64) -> Vec<u8> {
    format!("k{number}").into()
}

/// What a directory with these keys would do.
pub struct Sequential;

impl Model for Sequential {
    type State = BTreeMap<u64, i64>;
    type Op = Op;
    type Ret = Reply;

    fn initial(&self) -> Self::State {
        BTreeMap::new()
    }

    fn step(&self, state: &Self::State, op: &Op) -> (Self::State, Reply) {
        let mut state = state.clone();
        let bulk = |value: Option<&i64>| Reply::Bulk(value.map(|it| Bytes::from(it.to_string())));
        let reply = match op {
            Op::Set(key, value) => {
                state.insert(*key, *value);
                Reply::Simple("OK".into())
            }
            Op::Get(key) => bulk(state.get(key)),
            Op::Incr(key) => {
                let value = state.entry(*key).or_default();
                *value += 1;
                Reply::Integer(*value)
            }
            Op::Del(keys) => {
                let removed = keys.iter().filter(|key| state.remove(key).is_some()).count();
                Reply::Integer(removed as i64)
            }
            Op::MGet(keys) => {
                Reply::Array(Some(keys.iter().map(|key| bulk(state.get(key))).collect()))
            }
        };
        (state, reply)
    }
}
