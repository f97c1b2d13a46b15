//! SM(f), the signed messages of Lamport, Shostak and Pease (1982): agreement with signatures, for any f.
//!
//! *Idea.* A value travels with a chain of signatures, the first by whose value it is. A receiver looks at all of them, keeps the
//! value, adds its own signature and passes it on, unless the chain has f + 1 already: then a correct process among the signers has passed it on
//! to all. So all correct processes keep the same values of each process: one, if it did not lie; else the default.
//!
//! What is signed names the instance, so that a chain of another one is worth nothing. Of each process at most two values are kept and
//! passed on: two suffice to show that it lies (Dolev and Strong 1983).

use crate::sign::{Keyring, Signature};

/// A chain: places, and their signatures over the same text.
pub type Chain = Vec<(u16, Signature)>;

/// Why a chain is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BadChain {
    /// It does not begin with whose value it is.
    Start,
    /// No signature, or more than there may be.
    Length,
    /// The same signer twice, or the receiver itself.
    Twice,
    /// A signature is not of this signer over this text.
    Forged,
}

/// Looks at a chain over `text` that is said to begin with `first`, as it arrives at the owner of `keys`.
///
/// # Errors
/// [`BadChain`].
pub fn check(
    keys: &Keyring,
    first: Option<usize>,
    text: &[u8],
    chain: &[(u16, Signature)],
    length_max: usize,
) -> Result<(), BadChain> {
    if chain.is_empty() || chain.len() > length_max {
        return Err(BadChain::Length);
    }
    if first.is_some_and(|first| usize::from(chain[0].0) != first) {
        return Err(BadChain::Start);
    }
    for (at, (signer, signature)) in chain.iter().enumerate() {
        let is_twice = chain[..at].iter().any(|(other, _)| other == signer);
        if is_twice || usize::from(*signer) == keys.me() {
            return Err(BadChain::Twice);
        }
        if !keys.is_signed(usize::from(*signer), text, signature) {
            return Err(BadChain::Forged);
        }
    }
    Ok(())
}

/// Adds the own signature.
#[must_use]
pub fn extend(keys: &Keyring, text: &[u8], mut chain: Chain) -> Chain {
    let me = u16::try_from(keys.me()).expect("places are few");
    chain.push((me, keys.sign(text)));
    chain
}

/// What is known of the value of one process: at most two different ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard<V> {
    values: Vec<V>,
}

impl<V> Default for Heard<V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<V: Copy> Heard<V> {
    /// Keeps a value, unless one like it, or two, are there. True: it is new, and is to be passed on.
    pub fn keep(&mut self, value: V, is_same: impl Fn(&V, &V) -> bool) -> bool {
        let is_new = self.values.len() < 2 && !self.values.iter().any(|it| is_same(it, &value));
        if is_new {
            self.values.push(value);
        }
        is_new
    }

    /// The value, if there is exactly one.
    #[must_use]
    pub fn choice(&self) -> Option<V> {
        match self.values[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;

    fn keys(me: usize) -> Keyring {
        Keyring::ideal(me, 4, 9)
    }

    /// Checks BA-9.
    #[test]
    fn a_chain_is_checked_whole() {
        let one = extend(&keys(1), b"x", Vec::new());
        let two = extend(&keys(2), b"x", one.clone());
        let at = |chain: &Chain, text: &[u8], first| check(&keys(0), Some(first), text, chain, 2);
        assert_eq!(at(&two, b"x", 1), Ok(()));
        assert_eq!(at(&two, b"y", 1), Err(BadChain::Forged));
        assert_eq!(at(&two, b"x", 2), Err(BadChain::Start));
        assert_eq!(at(&Vec::new(), b"x", 1), Err(BadChain::Length));
        let three = extend(&keys(3), b"x", two.clone());
        assert_eq!(at(&three, b"x", 1), Err(BadChain::Length));
        let twice = vec![one[0], one[0]];
        assert_eq!(at(&twice, b"x", 1), Err(BadChain::Twice));
        assert_eq!(check(&keys(2), Some(1), b"x", &two, 2), Err(BadChain::Twice));
        let doctored = vec![one[0], (3, two[1].1)];
        assert_eq!(at(&doctored, b"x", 1), Err(BadChain::Forged));
    }

    /// Checks BA-7: three agree with a transmitter that says two things.
    #[test]
    fn who_says_two_things_has_no_value() {
        let mut heard = Heard::default();
        let same = |a: &u8, b: &u8| a == b;
        assert!(heard.keep(1, same));
        assert_eq!(heard.choice(), Some(1));
        assert!(!heard.keep(1, same));
        assert!(heard.keep(2, same));
        assert_eq!(heard.choice(), None);
        assert!(!heard.keep(3, same));
    }
}
