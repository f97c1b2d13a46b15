//! Whose data directory it is.

use std::sync::Arc;

use mainstay_base::{ClusterId, codec};
use mainstay_runtime::Disk;
use mainstay_stable::{
    Cell, FileMediumError, Medium, OpenCellError, Owner, ReadCellError, WriteCellError,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The identity is of all nodes, so that a foreign one can be read and named.
const OWNER: Owner = Owner(*b"mainstay identit");

/// Who a data directory belongs to, and how its node came into its cluster. Kept in one atomic cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The name of the node in it.
    pub name: String,
    /// Whether it takes part in making the cluster.
    pub bootstrap: Bootstrap,
    /// Names this directory: drawn when it is made, and lost with it.
    pub disk: u128,
}

/// Whether a node takes part in making its cluster: at most once in the life of its directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Bootstrap {
    /// It joins a cluster that others made.
    No,
    /// It does, and its log may not say so yet.
    Intended,
    /// Its log says so. If the log is lost, the node has lost its vote.
    Done,
}

/// Why a directory has no usable identity. Retry is safe; but for `InUse` of no use.
#[derive(Error, Debug)]
#[non_exhaustive]
pub enum IdentityError {
    /// The directory cannot be used, or another process uses it.
    #[error(transparent)]
    Directory(#[from] FileMediumError),
    /// The cell cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenCellError),
    /// The cell cannot be read.
    #[error(transparent)]
    Read(#[from] ReadCellError),
    /// The cell cannot be written.
    #[error(transparent)]
    Write(#[from] WriteCellError),
    /// The cell is intact and holds no identity.
    #[error("the identity is not one: {0}")]
    Malformed(codec::DecodeError),
    /// The directory is of another node or cluster. Nothing in it was changed.
    #[error(
        "the directory belongs to node {name:?} of cluster {cluster}, and this is node {own:?} of cluster {own_cluster}"
    )]
    Foreign {
        /// Its node.
        name: String,
        /// Its cluster.
        cluster: ClusterId,
        /// The node that was to be started.
        own: String,
        /// The cluster of that node.
        own_cluster: ClusterId,
    },
}

/// A data directory, locked against other processes while this lives.
#[derive(Debug)]
pub struct Home {
    pub(super) medium: Arc<dyn Medium>,
    cell: Cell,
    identity: Identity,
}

impl Home {
    /// Opens the own directory on `disk`, of node `name` of `cluster`, and makes it if there is none; only then `bootstrap` matters:
    /// whether the node makes the cluster without waiting for the others. `fresh` becomes the name of a new directory.
    ///
    /// # Errors
    /// [`IdentityError`]; an existing identity is not changed.
    pub fn open(
        disk: &dyn Disk,
        cluster: ClusterId,
        name: &str,
        bootstrap: bool,
        fresh: u128,
    ) -> Result<Self, IdentityError> {
        let medium = disk.open(None)?;
        let mut cell = Cell::open(Arc::clone(&medium), "identity", OWNER)?;
        let identity = match cell.read()? {
            Some(bytes) => codec::decode(&bytes).map_err(IdentityError::Malformed)?,
            None => {
                let bootstrap = if bootstrap { Bootstrap::Intended } else { Bootstrap::No };
                let name = name.to_owned();
                let identity = Identity { cluster, name, bootstrap, disk: fresh };
                cell.write(&codec::encode(&identity))?;
                identity
            }
        };
        if identity.cluster != cluster || identity.name != name {
            let Identity { cluster: its, name: whose, .. } = identity;
            let (own, own_cluster) = (name.to_owned(), cluster);
            return Err(IdentityError::Foreign { name: whose, cluster: its, own, own_cluster });
        }
        Ok(Self { medium, cell, identity })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The log says that the node took part in making the cluster.
    pub(super) fn bootstrapped(&mut self) -> Result<(), IdentityError> {
        let identity = Identity { bootstrap: Bootstrap::Done, ..self.identity.clone() };
        self.cell.write(&codec::encode(&identity))?;
        self.identity = identity;
        Ok(())
    }
}
