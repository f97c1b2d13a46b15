//! Why the program ends, and with which status.

use std::fmt::Display;
use std::process::ExitCode;

use mainstay::StartError;
use mainstay_site::identity::IdentityError;
use mainstay_site::{self as site, StorageError};

use crate::out::tell;

/// What the program says last, and its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    /// The usage or a configuration is wrong.
    pub(crate) fn usage(text: impl Display) -> Self {
        Self { status: 2, text: text.to_string() }
    }

    /// A node or a quorum cannot be reached.
    pub(crate) fn unreachable(text: impl Display) -> Self {
        Self { status: 3, text: text.to_string() }
    }

    /// Data is damaged.
    pub(crate) fn damaged(text: impl Display) -> Self {
        Self { status: 4, text: text.to_string() }
    }

    /// The system refuses what a node needs at its start: its disk is full or fails, or there are too few descriptors.
    pub(crate) fn system(text: impl Display) -> Self {
        Self { status: 5, text: text.to_string() }
    }

    /// A node halted.
    pub(crate) fn halted(text: impl Display) -> Self {
        Self { status: 70, text: text.to_string() }
    }

    /// A node did not start: the configuration, the data or the system is at fault.
    pub(crate) fn start(whose: impl Display, error: &StartError) -> Self {
        let status = match error {
            StartError::Site(site::StartError::Entropy(_)) => 70,
            StartError::Site(site::StartError::Storage(
                StorageError::Identity(IdentityError::Foreign { .. } | IdentityError::Directory(_))
                | StorageError::Directory(_),
            )) => 2,
            StartError::Site(site::StartError::Storage(_)) => 4,
            _ => 2,
        };
        let mut text = format!("{whose}: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self { status, text }
    }

    /// A node ended; it has said why. Its status is that of the program, too.
    pub(crate) fn ended(name: &str, status: Option<i32>) -> Self {
        let code = status.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
        let how =
            status.map_or_else(|| "by a signal".to_owned(), |code| format!("with status {code}"));
        Self { status: code.unwrap_or(3), text: format!("node {name} ended {how}") }
    }

    /// The usage or a configuration is wrong, or a port is in use.
    pub(crate) fn is_usage(&self) -> bool {
        self.status == 2
    }

    /// Says it, and answers the status to end with.
    pub(crate) fn report(&self) -> ExitCode {
        tell!("mainstay: {}", self.text);
        ExitCode::from(self.status)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
