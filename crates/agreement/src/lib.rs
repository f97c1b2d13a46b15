//! Interactive consistency: processes agree on a value of each of them, though some of them lie.
//!
//! | module | is | needs |
//! |---|---|---|
//! | [`oral`] | OM(f) of Lamport, Shostak and Pease (1982): what was said about what was said, as a tree | n ≥ 3f + 1, rounds |
//! | [`chain`] | SM(f) of the same: values with chains of signatures | any f, rounds, signatures |
//! | [`sign`] | signatures over bytes, by the places of processes | keys |
//!
//! All of it is plain data: who owns it sends what it says, and knows when a round is over. What stands for a value, and how values
//! become one, is the owner's choice: a majority for commands, a median for clocks.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chain;
pub mod oral;
pub mod sign;
