//! Huge pages for large processes only.
//!
//! An allocator like mimalloc asks the kernel for huge pages. The first touch of one waits until 2 MiB are free and cleared: a few
//! milliseconds, in the middle of a turn. A process with a large heap gains more by them than that; a small one does not. So they are off
//! until a process has grown.

use std::io;
use std::time::Duration;

/// How often the size of the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// From here on this process has no huge pages until it has so many bytes in memory; then it may have them as the kernel is set.
/// Looked at twice a second, by a thread that ends then. On other systems than Linux nothing happens.
///
/// # Errors
/// What the kernel says, or that there is no thread: huge pages are then as they were.
#[cfg(target_os = "linux")]
pub fn huge_pages_from(bytes: u64) -> io::Result<()> {
    rustix::thread::disable_transparent_huge_pages(true)?;
    let grow = move || {
        while resident().is_some_and(|resident| resident < bytes) {
            std::thread::sleep(LOOK_EVERY);
        }
        // It was possible to switch them off: so it is to switch them on.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
    };
    std::thread::Builder::new().name("huge-pages".to_owned()).spawn(grow).map(drop)
}

/// See the same function on Linux.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn huge_pages_from(bytes: u64) -> io::Result<()> {
    let _ = (bytes, LOOK_EVERY);
    Ok(())
}

/// Bytes of this process that are in memory; `None` if the system does not say.
#[cfg(target_os = "linux")]
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    /// A process that is large enough gets them back; one that is not goes without.
    #[test]
    fn huge_pages_come_with_size() {
        assert!(resident().unwrap() > 100_000);
        huge_pages_from(u64::MAX).unwrap();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        huge_pages_from(1).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while rustix::thread::transparent_huge_pages_are_disabled().unwrap() {
            assert!(std::time::Instant::now() < deadline, "still off");
            std::thread::yield_now();
        }
    }
}
