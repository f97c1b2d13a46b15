//! The key with which a node signs its words in signed clock algorithms: 64 hexadecimal digits in a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use mainstay_clock::sync::Keyring;
use mainstay_runtime::{Entropy as _, EntropyError, OsEntropy};
use thiserror::Error;

use crate::failure::Failure;
use crate::out::say;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the secret key is; made if it is not there.
    file: PathBuf,
}

/// Why there is no key.
#[derive(Error, Debug)]
pub(crate) enum KeyError {
    #[error("{}: {error}", .file.display())]
    File { file: PathBuf, error: io::Error },
    #[error("{}: not 64 hexadecimal digits", .file.display())]
    NoKey { file: PathBuf },
    #[error("{0}")]
    Entropy(#[from] EntropyError),
}

/// Prints the public key that belongs to the secret one in a file.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let public = make(&options.file).map_err(|error| Failure::usage(error.to_string()))?;
    say!("{public}");
    Ok(())
}

/// The public key of the secret in a file, which is drawn and written if there is no such file.
pub(crate) fn make(file: &Path) -> Result<String, KeyError> {
    let wrong = |error| KeyError::File { file: file.to_owned(), error };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut made) => {
            let mut secret = [0; 32];
            for half in secret.chunks_exact_mut(16) {
                half.copy_from_slice(&OsEntropy.draw()?.to_le_bytes());
            }
            made.write_all(hex(&secret).as_bytes())
                .and_then(|()| made.sync_all())
                .map_err(wrong)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(error)),
    }
    Ok(hex(&Keyring::public(read(file)?)))
}

/// The secret in a file.
pub(crate) fn read(file: &Path) -> Result<[u8; 32], KeyError> {
    let wrong = |error| KeyError::File { file: file.to_owned(), error };
    let text = fs::read_to_string(file).map_err(wrong)?;
    parse(text.trim()).ok_or_else(|| KeyError::NoKey { file: file.to_owned() })
}

/// A key of 64 hexadecimal digits.
pub(crate) fn parse(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("key");
        let public = make(&file).unwrap();
        assert_eq!(make(&file).unwrap(), public);
        assert_ne!(make(&home.path().join("other")).unwrap(), public);
        assert_eq!(hex(&Keyring::public(read(&file).unwrap())), public);
        fs::write(&file, "no key").unwrap();
        assert!(matches!(make(&file), Err(KeyError::NoKey { .. })));
        assert_eq!(parse(&"é".repeat(32)), None);
    }
}
