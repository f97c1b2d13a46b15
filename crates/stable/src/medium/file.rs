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
const OPEN_COUNT_MAX: usize = 32;

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
/// Files are made with mode 0600, the directory with 0700 if it is missing. The lock is advisory and ends with the
/// process, so there is no stale lock to remove.
#[derive(Debug)]
pub struct FileMedium {
    path: PathBuf,
    directory: File,
    open: Mutex<BTreeMap<String, Arc<File>>>,
    _lock: File,
}

impl FileMedium {
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
        Ok(Self { path, directory, open: Mutex::new(BTreeMap::new()), _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<File>>> {
        // The map is whole between any two statements, so a panic elsewhere cannot have left it half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of that name, opened if need be.
    fn file(&self, name: &str) -> io::Result<Arc<File>> {
        check_name(name)?;
        let mut files = self.files();
        if let Some(file) = files.get(name) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?);
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// The open file of that name, or one that is closed again after the read.
    fn file_to_read(&self, name: &str) -> io::Result<Arc<File>> {
        check_name(name)?;
        let open = self.files().get(name).map(Arc::clone);
        open.map_or_else(|| File::open(self.path.join(name)).map(Arc::new), Ok)
    }
}

impl Medium for FileMedium {
    fn create(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(self.path.join(name))?;
        self.files().insert(name.to_owned(), Arc::new(file));
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
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        self.file(name)?.set_len(size)
    }

    fn sync_data(&self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()?;
        // Only a file that has just been synced may be closed: closing loses the report of a failed write-back.
        let mut files = self.files();
        if files.len() > OPEN_COUNT_MAX {
            files.remove(name);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut files = self.files();
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        files.remove(to);
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut files = self.files();
        std::fs::remove_file(self.path.join(name))?;
        files.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
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
        assert_eq!(medium.files().len(), OPEN_COUNT_MAX);
        medium.write_at("file-63", 3, b"def").unwrap();
        assert_eq!(medium.read_at("file-63", 1, 9).unwrap(), b"bcdef");
    }
}
