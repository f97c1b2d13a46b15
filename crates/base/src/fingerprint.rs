//! Canonical hashes of machine states.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// A 128-bit hash with fixed keys: equal states have equal fingerprints in every run and every process of one build.
#[derive(Clone, Default)]
pub struct Fingerprinter(SipHasher13);

impl Fingerprinter {
    /// An empty fingerprint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The hash of what was written.
    #[must_use]
    pub fn finish128(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

impl Hasher for Fingerprinter {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

/// A machine that can say which state it is in, for the exhaustive explorer and for traces.
///
/// States that behave alike from here on should write alike; deadlines are written by their order only, since the
/// explorer treats a timeout as a free step.
pub trait Fingerprint {
    /// Writes all of the state that can influence a later output.
    fn fingerprint(&self, into: &mut Fingerprinter);
}
