//! Why the program ends, and with which status.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use mainstay::StartError;
use mainstay_service::{DiskError, ServicesError};
use mainstay_site::identity::IdentityError;
use mainstay_site::{self as site, StorageError};
use mainstay_stable::{
    FileMediumError, OpenCellError, OpenCheckpointsError, OpenError, ReadCellError,
    ReadCheckpointError, WriteCellError,
};
use rustix::io::Errno;

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
            StartError::Site(site::StartError::Services(error)) => of_services(error),
            _ => USAGE,
        };
        let refused = match status {
            SYSTEM if is_of_disk(error) => "the disk is full or fails, the data is as it was: ",
            SYSTEM => "the system refuses what the node needs, the data is as it was: ",
            _ => "",
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
        Storage::GroupMissing { .. }
        | Storage::Identity(Identity::Foreign { .. })
        | Storage::Identity(Identity::Read(
            ReadCellError::Version(_) | ReadCellError::Foreign(_),
        )) => USAGE,
        Storage::Identity(
            Identity::Open(OpenCellError::Io(_))
            | Identity::Read(ReadCellError::Io(_))
            | Identity::Write(WriteCellError::NotWritten(_) | WriteCellError::Unknown(_)),
        )
        | Storage::First(_) => SYSTEM,
        Storage::Log(error) => of_log(error),
        Storage::OpenCheckpoints(error) => of_shelf(error),
        Storage::ReadCheckpoint(error) => of_checkpoint(error),
        _ => DAMAGED,
    }
}

/// The same of the directories of services.
fn of_services(error: &ServicesError) -> u8 {
    match error {
        ServicesError::Disk(DiskError::Directory(FileMediumError::Io { source, .. })) => {
            of_file(source)
        }
        ServicesError::Disk(DiskError::Log(error)) => of_log(error),
        ServicesError::Disk(DiskError::OpenCheckpoints(error)) => of_shelf(error),
        ServicesError::Disk(DiskError::ReadCheckpoint(error)) => of_checkpoint(error),
        ServicesError::Disk(DiskError::Record { .. })
        | ServicesError::Record(_)
        | ServicesError::Fold { .. } => DAMAGED,
        _ => USAGE,
    }
}

fn of_log(error: &OpenError) -> u8 {
    match error {
        OpenError::Version { .. } | OpenError::Foreign { .. } => USAGE,
        OpenError::Io(_) => SYSTEM,
        _ => DAMAGED,
    }
}

fn of_shelf(error: &OpenCheckpointsError) -> u8 {
    match error {
        OpenCheckpointsError::Io(_) => SYSTEM,
        _ => DAMAGED,
    }
}

fn of_checkpoint(error: &ReadCheckpointError) -> u8 {
    match error {
        ReadCheckpointError::Version { .. } | ReadCheckpointError::Foreign { .. } => USAGE,
        ReadCheckpointError::Io(_) => SYSTEM,
        _ => DAMAGED,
    }
}

/// Whether the system says of the disk that it is full or fails. It may refuse for want of descriptors, memory or rights as well.
fn is_of_disk(error: &StartError) -> bool {
    use io::ErrorKind as Is;
    let mut cause: Option<&(dyn Error + 'static)> = match error {
        StartError::Site(site::StartError::Storage(error)) => Some(error),
        StartError::Site(site::StartError::Services(error)) => Some(error),
        _ => None,
    };
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let of_device =
                error.raw_os_error().is_some_and(|code| code == Errno::IO.raw_os_error());
            return of_device
                || matches!(
                    error.kind(),
                    Is::StorageFull | Is::QuotaExceeded | Is::FileTooLarge | Is::ReadOnlyFilesystem
                );
        }
        cause = error.source();
    }
    false
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

    /// Checks the same of what services keep, as the clock of a node does.
    #[test]
    fn what_services_keep_has_the_same_statuses() {
        let status = |error: ServicesError| {
            Failure::start("here", &StartError::Site(site::StartError::Services(error))).status
        };
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        let path = std::path::PathBuf::new;
        let directory = |source| FileMediumError::Io { path: path(), source };
        assert_eq!(status(DiskError::from(directory(io())).into()), 5);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(status(DiskError::from(directory(denied)).into()), 2);
        assert_eq!(status(DiskError::from(OpenError::Io(io())).into()), 5);
        assert_eq!(status(DiskError::from(OpenCheckpointsError::Io(io())).into()), 5);
        assert_eq!(status(DiskError::from(ReadCheckpointError::Io(io())).into()), 5);
        let damaged = OpenError::Damaged { segment: String::new(), offset: 0 };
        assert_eq!(status(DiskError::from(damaged).into()), 4);
        assert_eq!(status(DiskError::from(ReadCheckpointError::Damaged(0)).into()), 4);
        let why = mainstay_base::codec::decode::<u8>(&[]).unwrap_err();
        assert_eq!(status(DiskError::Record { lsn: 1, why }.into()), 4);
    }

    /// Checks that the disk is blamed for what it does, and for nothing else.
    #[test]
    fn the_disk_is_blamed_for_what_it_does() {
        let text = |errno: Errno| {
            let error = StorageError::from(OpenError::Io(errno.into()));
            Failure::start("here", &StartError::Site(site::StartError::Storage(error))).text
        };
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::ROFS, Errno::IO] {
            assert!(text(errno).contains("the disk is full or fails"), "{}", text(errno));
        }
        for errno in [Errno::ACCESS, Errno::MFILE, Errno::NOMEM] {
            assert!(text(errno).contains("the system refuses"), "{}", text(errno));
        }
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
