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
//!
//! ```
//! use mainstay_agreement::oral::{Tree, majority};
//!
//! // Place 0 of four, of whom one may lie. Place 3 says 9 here and something else to the others.
//! let mut tree = Tree::new(4, 1, 0);
//! for (from, value) in [(0, 5), (1, 7), (2, 7), (3, 9)] {
//!     assert!(tree.hear(from, value));
//! }
//! let said = tree.say(2);
//! assert_eq!(said, [Some(7), Some(7), Some(9)]);
//! assert!(tree.said(2, &said));
//! // What the others say of all but themselves: 0, 1, 2 and 3 in order.
//! assert!(tree.hear_all(2, 1, &[Some(5), Some(7), Some(8)], |it| it));
//! assert!(tree.hear_all(2, 2, &[Some(5), Some(7), Some(8)], |it| it));
//! assert!(tree.hear_all(2, 3, &[Some(0), Some(0), Some(0)], |it| it));
//! // So all see 8 of place 3, whatever it said to each.
//! assert_eq!(tree.resolve(majority), [Some(5), Some(7), Some(7), Some(8)]);
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chain;
pub mod oral;
pub mod sign;
