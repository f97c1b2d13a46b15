//! Why the program ends, and with which status.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use mainstay::StartError;
use mainstay_site::identity::IdentityError;
use mainstay_site::{self as site, StorageError};
use mainstay_stable::{
    FileMediumError, OpenCellError, OpenCheckpointsError, OpenError, ReadCellError,
    ReadCheckpointError, WriteCellError,
};

use crate::out::tell;

/// The usage or a configuration is wrong.
const USAGE: u8 = 2;
/// Data is damaged.
const DAMAGED: u8 = 4;
/// The system refuses what a node needs at its start.
const SYSTEM: u8 = 5;

/// What the program says last, and its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    /// The usage or a configuration is wrong.
    pub(crate) fn usage(text: impl Display) -> Self {
        Self { status: USAGE, text: text.to_string() }
    }

    /// A node or a quorum cannot be reached.
    pub(crate) fn unreachable(text: impl Display) -> Self {
        Self { status: 3, text: text.to_string() }
    }

    /// Data is damaged.
    pub(crate) fn damaged(text: impl Display) -> Self {
        Self { status: DAMAGED, text: text.to_string() }
    }

    /// The system refuses what a node needs at its start: its disk is full or fails, or there are too few descriptors.
    pub(crate) fn system(text: impl Display) -> Self {
        Self { status: SYSTEM, text: text.to_string() }
    }

    /// A node halted.
    pub(crate) fn halted(text: impl Display) -> Self {
        Self { status: 70, text: text.to_string() }
    }

    /// A node did not start: the configuration, the data or the system is at fault.
    pub(crate) fn start(whose: impl Display, error: &StartError) -> Self {
        let status = match error {
            StartError::Site(site::StartError::Entropy(_)) => 70,
            StartError::Site(site::StartError::Storage(error)) => of_storage(error),
            _ => USAGE,
        };
        let refused = if status == SYSTEM {
            "the disk is full or fails, the data is as it was: "
        } else {
            ""
        };
        Self { status, text: format!("{whose}: {refused}{error}") }
    }

    /// A file cannot be made, written or removed: the system is at fault, or whoever named it.
    pub(crate) fn file(place: impl Display, error: &io::Error) -> Self {
        Self { status: of_file(error), text: format!("{place}: {error}") }
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
        self.status == USAGE
    }

    /// Says it, and answers the status to end with.
    pub(crate) fn report(&self) -> ExitCode {
        tell!("mainstay: {}", self.text);
        ExitCode::from(self.status)
    }
}

/// Data is damaged only where its bytes say so. What the system does not read or write says nothing of them.
fn of_storage(error: &StorageError) -> u8 {
    use IdentityError as Identity;
    use StorageError as Storage;
    match error {
        Storage::Directory(error) | Storage::Identity(Identity::Directory(error)) => match error {
            FileMediumError::Io { source, .. } => of_file(source),
            _ => USAGE,
        },
        Storage::NotConfigured { .. }
        | Storage::Identity(Identity::Foreign { .. })
        | Storage::Identity(Identity::Read(
            ReadCellError::Version(_) | ReadCellError::Foreign(_),
        ))
        | Storage::Log(OpenError::Version { .. } | OpenError::Foreign { .. })
        | Storage::ReadCheckpoint(
            ReadCheckpointError::Version { .. } | ReadCheckpointError::Foreign { .. },
        ) => USAGE,
        Storage::Identity(
            Identity::Open(OpenCellError::Io(_))
            | Identity::Read(ReadCellError::Io(_))
            | Identity::Write(WriteCellError::NotWritten(_) | WriteCellError::Unknown(_)),
        )
        | Storage::Log(OpenError::Io(_))
        | Storage::First(_)
        | Storage::OpenCheckpoints(OpenCheckpointsError::Io(_))
        | Storage::ReadCheckpoint(ReadCheckpointError::Io(_)) => SYSTEM,
        _ => DAMAGED,
    }
}

/// A path that is wrong is the usage's fault, all else the system's.
fn of_file(error: &io::Error) -> u8 {
    use io::ErrorKind as Is;
    match error.kind() {
        Is::NotFound
        | Is::PermissionDenied
        | Is::AlreadyExists
        | Is::NotADirectory
        | Is::IsADirectory
        | Is::InvalidInput
        | Is::InvalidFilename => USAGE,
        _ => SYSTEM,
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that only bytes that are wrong are damage: what the system refuses is its fault, and a wrong directory the user's.
    #[test]
    fn what_cannot_be_read_is_not_called_damaged() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let (full, bad) = (io::ErrorKind::StorageFull, io::ErrorKind::Other);
        let path = std::path::PathBuf::new;
        let status = |error: StorageError| {
            let error = StartError::Site(site::StartError::Storage(error));
            Failure::start("here", &error).status
        };
        assert_eq!(status(OpenError::Io(io(full)).into()), 5);
        assert_eq!(status(StorageError::First(io(full))), 5);
        assert_eq!(status(IdentityError::Read(ReadCellError::Io(io(bad))).into()), 5);
        assert_eq!(status(IdentityError::Write(WriteCellError::NotWritten(io(full))).into()), 5);
        assert_eq!(status(OpenCheckpointsError::Io(io(bad)).into()), 5);
        assert_eq!(status(ReadCheckpointError::Io(io(bad)).into()), 5);
        let directory = |kind| FileMediumError::Io { path: path(), source: io(kind) };
        assert_eq!(status(directory(full).into()), 5);
        assert_eq!(status(directory(io::ErrorKind::ReadOnlyFilesystem).into()), 5);
        assert_eq!(status(directory(io::ErrorKind::NotADirectory).into()), 2);
        assert_eq!(status(FileMediumError::Locked(path()).into()), 2);
        assert_eq!(status(OpenError::Version { segment: String::new(), version: 9 }.into()), 2);
        assert_eq!(status(OpenError::Damaged { segment: String::new(), offset: 0 }.into()), 4);
        assert_eq!(status(IdentityError::Read(ReadCellError::Damaged).into()), 4);
        assert_eq!(status(ReadCheckpointError::Damaged(0).into()), 4);
    }

    /// Checks that what the system said is printed, once.
    #[test]
    fn a_cause_is_told_once() {
        for error in [
            StorageError::First(io::Error::other("out of luck")),
            OpenError::Io(io::Error::other("out of luck")).into(),
        ] {
            let error = StartError::Site(site::StartError::Storage(error));
            let text = Failure::start("here", &error).text;
            assert_eq!(text.matches("out of luck").count(), 1, "{text}");
        }
    }
}
