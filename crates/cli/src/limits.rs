//! How many files a node may have open, and who gets how many of them. What clients may use is bounded so that the log and
//! the checkpoints always find theirs.

use mainstay_directory::host::CLIENTS_MAX;
use mainstay_stable::FileMedium;

use crate::failure::Failure;

/// Operators at the admin port at once: at most, and at least.
const OPERATORS: (usize, usize) = (16, 4);
/// Clients at the Redis port at once: at most, and at least.
const CLIENTS: (usize, usize) = (CLIENTS_MAX, 8);
/// Connections at the port for nodes that are of no peer, at most: a stranger's is closed when it has said nothing for long.
const STRANGERS_MAX: usize = 16;
/// The standard ones, three listeners, the trace, and what the runtime needs.
const ELSEWHERE: usize = 24;
/// Directories of the log and of the checkpoints; a clock has such ones of its own.
const DIRECTORIES: usize = 2;

/// Most connections of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) clients: usize,
    pub(crate) operators: usize,
    /// At the port for nodes, opened by others.
    pub(crate) accepted: usize,
}

impl Limits {
    /// Of a node with so many peers, and perhaps a clock, on this system. The limit of the process is raised as far as is wanted and allowed.
    ///
    /// # Errors
    /// There are too few.
    pub(crate) fn of_process(peers: usize, has_clock: bool) -> Result<Self, Failure> {
        let wanted = reserved(peers, has_clock) + Self::most(peers).sum();
        let limit = open_files(wanted);
        Self::share(limit, peers, has_clock).ok_or_else(|| {
            let needed = reserved(peers, has_clock) + Self::least(peers).sum();
            Failure::system(format!(
                "{limit} files may be open at once (ulimit -n), and a node with {peers} peers needs {needed}"
            ))
        })
    }

    const fn most(peers: usize) -> Self {
        let accepted = 4 * peers + STRANGERS_MAX;
        Self { clients: CLIENTS.0, operators: OPERATORS.0, accepted }
    }

    const fn least(peers: usize) -> Self {
        Self { clients: CLIENTS.1, operators: OPERATORS.1, accepted: 2 * peers + 4 }
    }

    const fn sum(self) -> usize {
        self.clients + self.operators + self.accepted
    }

    /// What is left of the limit: the least to each, an eighth of the rest to operators and nodes, clients get the rest.
    fn share(limit: usize, peers: usize, has_clock: bool) -> Option<Self> {
        let (most, least) = (Self::most(peers), Self::least(peers));
        let left = limit.checked_sub(reserved(peers, has_clock) + least.sum())?;
        let operators = most.operators.min(least.operators + left / 8);
        let accepted = most.accepted.min(least.accepted + left / 8);
        let taken = operators - least.operators + accepted - least.accepted;
        let clients = most.clients.min(least.clients + left - taken);
        Some(Self { clients, operators, accepted })
    }
}

/// What no client may use: the files of the node, and what it dials.
const fn reserved(peers: usize, has_clock: bool) -> usize {
    let directories = if has_clock { 2 * DIRECTORIES } else { DIRECTORIES };
    ELSEWHERE + directories * FileMedium::DESCRIPTORS_MAX + 2 * peers
}

/// How many files this process may have open: as many as are wanted, if the system allows it.
fn open_files(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let may = |limit: Option<u64>| {
        limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX))
    };
    if may(current) >= wanted {
        return may(current);
    }
    let raised = Some(wanted.min(may(maximum)) as u64);
    match setrlimit(Resource::Nofile, Rlimit { current: raised, maximum }) {
        Ok(()) => may(raised),
        Err(_) => may(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that all together never have more than the limit, that each has what it needs, and that a limit that is not
    /// tight gives all to all.
    #[test]
    fn all_together_have_no_more_than_there_are() {
        for (peers, has_clock) in (0..9).flat_map(|peers| [(peers, false), (peers, true)]) {
            let share = |limit| Limits::share(limit, peers, has_clock);
            let (most, least) = (Limits::most(peers), Limits::least(peers));
            let needed = reserved(peers, has_clock) + least.sum();
            assert_eq!(share(needed - 1), None);
            assert_eq!(share(needed), Some(least));
            for limit in needed..2_000 {
                let shared = share(limit).unwrap();
                assert!(reserved(peers, has_clock) + shared.sum() <= limit, "{limit}: {shared:?}");
                assert!(shared.clients >= least.clients && shared.accepted >= least.accepted);
            }
            assert_eq!(share(1_024), Some(most));
        }
    }
}
