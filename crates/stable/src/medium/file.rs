//! The medium of production: a directory of the file system.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::{LOCK, Medium, check_name};

/// Most files that are kept open once they are synced.
const OPEN_COUNT_MAX: usize = 8;
/// Descriptors held back for when the process, or the system, has no more: one for a file that is written, one for a file or
/// directory that is read meanwhile.
const SPARE_COUNT: usize = 2;

/// Why a directory could not be taken as a medium.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum FileMediumError {
    /// Another process, or another medium of this one, has the directory. Nothing changed; retry when it has ended.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The file system refused. At most the directory and an empty lock file were made; a retry is safe.
    #[error("cannot open the directory {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// A directory of the file system, held exclusively while this value lives.
///
/// It has up to [`FileMedium::DESCRIPTORS_MAX`] descriptors, and a few of these are spare: when the rest of the process has
/// used up all that there are, files are still made and opened, so that what is written here does not fail for it.
///
/// Files are made with mode 0600, the directory with 0700 if it is missing. The lock is advisory and ends with the
/// process, so there is no stale lock to remove.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
    directory: File,
    open: Mutex<Open>,
    _lock: File,
}

/// What is open.
#[derive(Debug)]
struct Open {
    files: BTreeMap<String, Opened>,
    /// Given up one by one for files, and taken again when there are descriptors.
    spare: Vec<File>,
}

#[derive(Debug)]
struct Opened {
    file: Arc<File>,
    /// Written to since it was synced. It stays open: closing loses the report of a failed write-back.
    dirty: bool,
}

impl Open {
    /// What opens a file, with what can be closed and the spare descriptors if there are no others.
    fn opening<T>(&mut self, directory: &File, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut opened = open();
        if opened.as_ref().is_err_and(are_used_up) {
            self.files.retain(|_, file| file.dirty);
            opened = open();
        }
        while opened.as_ref().is_err_and(are_used_up) && self.spare.pop().is_some() {
            opened = open();
        }
        while opened.is_ok() && self.spare.len() < SPARE_COUNT {
            let Ok(again) = directory.try_clone() else { break };
            self.spare.push(again);
        }
        opened
    }
}

impl FileMedium {
    /// Most descriptors that it has at a time: files, one that is being read or made, the directory and one that lists it, the
    /// lock, and the spare ones.
    pub const DESCRIPTORS_MAX: usize = OPEN_COUNT_MAX + 5 + SPARE_COUNT;

    /// Takes the directory at `path`, making it if it is missing (its parent must exist).
    ///
    /// # Errors
    /// [`FileMediumError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileMediumError> {
        let path = path.as_ref().to_path_buf();
        let refused = |source| FileMediumError::Io { path: path.clone(), source };
        make_directory(&path).map_err(refused)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join(LOCK)).map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileMediumError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        let directory = File::open(&path).map_err(refused)?;
        let spare = (0..SPARE_COUNT).map(|_| directory.try_clone()).collect::<io::Result<_>>();
        let open = Open { files: BTreeMap::new(), spare: spare.map_err(refused)? };
        Ok(Self { path, directory, open: Mutex::new(open), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_files(&self) -> MutexGuard<'_, Open> {
        // The map is whole between any two statements, so a panic elsewhere cannot have left it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of that name, opened if need be, and whether it is to be written to.
    fn file(&self, name: &str, writes: bool) -> io::Result<Arc<File>> {
        check_name(name)?;
        let mut held = self.open_files();
        if let Some(opened) = held.files.get_mut(name) {
            opened.dirty |= writes;
            return Ok(Arc::clone(&opened.file));
        }
        let open = || OpenOptions::new().read(true).write(true).open(self.path.join(name));
        let file = Arc::new(held.opening(&self.directory, open)?);
        held.files.insert(name.to_owned(), Opened { file: Arc::clone(&file), dirty: writes });
        Ok(file)
    }

    /// The open file of that name, or one that is closed again after the read.
    fn file_to_read(&self, name: &str) -> io::Result<Arc<File>> {
        check_name(name)?;
        let mut held = self.open_files();
        if let Some(opened) = held.files.get(name) {
            return Ok(Arc::clone(&opened.file));
        }
        held.opening(&self.directory, || File::open(self.path.join(name))).map(Arc::new)
    }
}

impl Medium for FileMedium {
    fn create(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut held = self.open_files();
        let file = held.opening(&self.directory, || options.open(self.path.join(name)))?;
        held.files.insert(name.to_owned(), Opened { file: Arc::new(file), dirty: true });
        Ok(())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.file_to_read(name)?.metadata()?.len())
    }

    fn read_at(&self, name: &str, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let file = self.file_to_read(name)?;
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name, true)?.write_all_at(bytes, offset)
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.file(name, true)?.set_len(size)
    }

    fn sync_data(&self, name: &str) -> io::Result<()> {
        let file = self.file(name, false)?;
        let mut held = self.open_files();
        // What is written from here on is not known to be covered.
        if let Some(opened) = held.files.get_mut(name) {
            opened.dirty = false;
        }
        drop(held);
        if let Err(error) = file.sync_data() {
            if let Some(opened) = self.open_files().files.get_mut(name) {
                opened.dirty = true;
            }
            return Err(error);
        }
        let mut held = self.open_files();
        let clean = held.files.get(name).is_some_and(|opened| !opened.dirty);
        if clean && held.files.len() > OPEN_COUNT_MAX {
            held.files.remove(name);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let files = &mut self.open_files().files;
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        files.remove(to);
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let files = &mut self.open_files().files;
        std::fs::remove_file(self.path.join(name))?;
        files.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries =
            self.open_files().opening(&self.directory, || std::fs::read_dir(&self.path))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if check_name(&name).is_ok() && entry.file_type()?.is_file() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

/// Whether the process or the system has no descriptor left (EMFILE, ENFILE).
fn are_used_up(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Makes the directory if it is missing, durably.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Checks that only one medium at a time has a directory, and that dropping it frees the directory.
    #[test]
    fn a_directory_has_one_holder() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("site");
        let medium = FileMedium::open(&path).unwrap();
        assert!(matches!(FileMedium::open(&path), Err(FileMediumError::Locked(_))));
        assert_eq!(medium.path(), path);
        drop(medium);
        FileMedium::open(&path).unwrap();
    }

    /// Checks that nobody else may read what is stored.
    #[test]
    fn files_and_directory_are_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("site");
        let medium = FileMedium::open(&path).unwrap();
        medium.create("secret").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("secret")), 0o600);
        assert_eq!(mode(&path.join(LOCK)), 0o600);
    }

    /// Checks that the count of open files stays bounded and that closed files open again.
    #[test]
    fn synced_files_are_closed() {
        let temp = tempfile::tempdir().unwrap();
        let medium = FileMedium::open(temp.path()).unwrap();
        for index in 0..2 * OPEN_COUNT_MAX {
            let name = format!("file-{index}");
            medium.create(&name).unwrap();
            medium.write_at(&name, 0, b"abc").unwrap();
            medium.sync_data(&name).unwrap();
        }
        assert_eq!(medium.open_files().files.len(), OPEN_COUNT_MAX);
        let last = format!("file-{}", 2 * OPEN_COUNT_MAX - 1);
        medium.write_at(&last, 3, b"def").unwrap();
        assert_eq!(medium.read_at(&last, 1, 9).unwrap(), b"bcdef");
    }
}
