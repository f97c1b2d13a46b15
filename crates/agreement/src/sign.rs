//! Signatures, by the places of processes in a list that all have alike.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "signed")]
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
#[cfg(feature = "test-util")]
use std::hash::Hasher as _;

/// A signature: 64 bytes that mean something to a [`Keyring`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// These bytes, whatever they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature:{:02x}{:02x}", self.0[0], self.0[1])
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Signature;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Signature, E> {
                bytes.try_into().map(Signature).map_err(|_| E::custom("not 64 bytes"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Signature, A::Error> {
                let mut bytes = [0; 64];
                for byte in &mut bytes {
                    *byte = seq.next_element()?.ok_or_else(|| A::Error::custom("not 64 bytes"))?;
                }
                Ok(Signature(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The own key, and what the signatures of all are checked with.
#[derive(Clone)]
pub struct Keyring {
    me: usize,
    keys: Keys,
}

#[derive(Clone)]
enum Keys {
    #[cfg(feature = "signed")]
    Ed25519(Box<SigningKey>, std::sync::Arc<[VerifyingKey]>),
    #[cfg(feature = "test-util")]
    Ideal { seed: u64, count: usize },
    #[cfg(not(any(feature = "signed", feature = "test-util")))]
    #[allow(dead_code, reason = "without a scheme there are no keys")]
    None(std::convert::Infallible),
}

/// The keys are no keys of these processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BadKeys {
    /// The public key at this place is none.
    NoKey(usize),
    /// These two places have one key: one process would sign for both.
    Twice(usize, usize),
    /// The public key at the own place is not that of the secret one.
    NotMine,
}

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey(place) => write!(f, "the public key at place {place} is none"),
            Self::Twice(first, second) => {
                write!(f, "places {first} and {second} have one public key")
            }
            Self::NotMine => {
                f.write_str("the public key at the own place belongs to another secret")
            }
        }
    }
}

impl std::error::Error for BadKeys {}

impl Keyring {
    /// Ed25519: the own secret, and the public keys of all in the order of their places.
    ///
    /// # Errors
    /// [`BadKeys`].
    #[cfg(feature = "signed")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signed")))]
    pub fn ed25519(me: usize, secret: [u8; 32], publics: &[[u8; 32]]) -> Result<Self, BadKeys> {
        let secret = SigningKey::from_bytes(&secret);
        let mut keys = Vec::new();
        for (place, bytes) in publics.iter().enumerate() {
            if let Some(first) = publics[..place].iter().position(|other| other == bytes) {
                return Err(BadKeys::Twice(first, place));
            }
            keys.push(VerifyingKey::from_bytes(bytes).map_err(|_| BadKeys::NoKey(place))?);
        }
        if keys.get(me) != Some(&secret.verifying_key()) {
            return Err(BadKeys::NotMine);
        }
        Ok(Self { me, keys: Keys::Ed25519(Box::new(secret), keys.into()) })
    }

    /// The public key that belongs to a secret.
    #[cfg(feature = "signed")]
    #[cfg_attr(docsrs, doc(cfg(feature = "signed")))]
    #[must_use]
    pub fn public(secret: [u8; 32]) -> [u8; 32] {
        SigningKey::from_bytes(&secret).verifying_key().to_bytes()
    }

    /// Signatures that nobody forges because nobody tries: for simulations, where a traitor has this keyring too and signs for
    /// itself alone.
    #[cfg(feature = "test-util")]
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    #[must_use]
    pub const fn ideal(me: usize, count: usize, seed: u64) -> Self {
        Self { me, keys: Keys::Ideal { seed, count } }
    }

    /// For how many processes.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.keys {
            #[cfg(feature = "signed")]
            Keys::Ed25519(_, keys) => keys.len(),
            #[cfg(feature = "test-util")]
            Keys::Ideal { count, .. } => *count,
            #[cfg(not(any(feature = "signed", feature = "test-util")))]
            Keys::None(never) => match *never {},
        }
    }

    /// The own place.
    #[must_use]
    pub const fn me(&self) -> usize {
        self.me
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Signature {
        match &self.keys {
            #[cfg(feature = "signed")]
            Keys::Ed25519(secret, _) => Signature(secret.sign(text).to_bytes()),
            #[cfg(feature = "test-util")]
            Keys::Ideal { seed, .. } => ideal(*seed, self.me, text),
            #[cfg(not(any(feature = "signed", feature = "test-util")))]
            Keys::None(never) => {
                let _ = text;
                match *never {}
            }
        }
    }

    /// Whether the process at place `who` signed this. Anything else, a place that is none included, is no.
    #[must_use]
    pub fn is_signed(&self, who: usize, text: &[u8], signature: &Signature) -> bool {
        match &self.keys {
            #[cfg(feature = "signed")]
            Keys::Ed25519(_, keys) => keys.get(who).is_some_and(|key| {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                key.verify_strict(text, &signature).is_ok()
            }),
            #[cfg(feature = "test-util")]
            Keys::Ideal { seed, count } => who < *count && ideal(*seed, who, text) == *signature,
            #[cfg(not(any(feature = "signed", feature = "test-util")))]
            Keys::None(never) => {
                let _ = (who, text, signature);
                match *never {}
            }
        }
    }
}

/// The secret is not shown.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("me", &self.me).finish_non_exhaustive()
    }
}

#[cfg(feature = "test-util")]
fn ideal(seed: u64, who: usize, text: &[u8]) -> Signature {
    let mut hash = mainstay_base::Fingerprinter::new();
    hash.write_u64(seed);
    hash.write_u64(who as u64);
    hash.write(text);
    let mut bytes = [0; 64];
    bytes[..16].copy_from_slice(&hash.finish128().to_be_bytes());
    Signature(bytes)
}

#[cfg(all(test, feature = "signed"))]
mod tests {
    use super::*;

    fn three() -> Vec<Keyring> {
        let secrets: Vec<[u8; 32]> = (1..=3).map(|it| [it; 32]).collect();
        let publics: Vec<_> = secrets.iter().map(|it| Keyring::public(*it)).collect();
        (0..3).map(|me| Keyring::ed25519(me, secrets[me], &publics).expect("keys")).collect()
    }

    /// Checks BA-9: what is forged, altered, or of another signer is refused.
    #[test]
    fn a_signature_is_of_one_signer_and_one_text() {
        let keys = three();
        let signature = keys[1].sign(b"text");
        assert!(keys[0].is_signed(1, b"text", &signature));
        assert!(!keys[0].is_signed(2, b"text", &signature));
        assert!(!keys[0].is_signed(1, b"texT", &signature));
        assert!(!keys[0].is_signed(7, b"text", &signature));
        let mut bytes = *signature.as_bytes();
        bytes[5] ^= 1;
        assert!(!keys[0].is_signed(1, b"text", &Signature::from_bytes(bytes)));
    }

    #[test]
    fn keys_of_others_are_refused() {
        let publics: Vec<_> = (1..=3).map(|it| Keyring::public([it; 32])).collect();
        assert_eq!(Keyring::ed25519(0, [2; 32], &publics).err(), Some(BadKeys::NotMine));
        assert_eq!(Keyring::ed25519(3, [2; 32], &publics).err(), Some(BadKeys::NotMine));
    }

    #[test]
    fn a_signature_goes_over_the_wire_as_64_bytes() {
        let signature = three()[0].sign(b"text");
        let bytes = mainstay_base::codec::encode(&signature);
        assert_eq!(bytes.len(), 66);
        assert_eq!(mainstay_base::codec::decode(&bytes), Ok(signature));
    }
}
