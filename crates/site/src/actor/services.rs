//! The services that are mounted on a site: what each boot of the process is to mount.

use mainstay_base::{BootId, ClusterId, NodeId};
use mainstay_runtime::LocalReader;
use mainstay_service::MountError;
use mainstay_service::actor::{Answer, Mounting, Planned};

use super::machine::Input;
use super::parts::MountServices;

/// Asked for each boot.
pub(super) struct Mounts {
    pub(super) cluster: ClusterId,
    pub(super) roster: Vec<NodeId>,
    pub(super) local: Option<LocalReader>,
    pub(super) mount: Option<MountServices>,
}

impl Mounts {
    /// What the boot `me` is to mount.
    pub(super) fn plan(&mut self, me: BootId, seed: u64) -> Result<Planned, MountError> {
        let mount = |mounting: &mut Mounting<'_>| match &mut self.mount {
            Some(mount) => mount(mounting),
            None => Ok(()),
        };
        let (roster, local) = (self.roster.clone(), self.local.clone());
        Planned::gather(self.cluster, me, roster, seed, local, mount)
    }
}

pub(super) fn answered(life: u64, answer: Answer) -> Input {
    match answer {
        Answer::Failed(reason) => Input::LogFailed { life, reason },
        answer => Input::Answered { life, answer },
    }
}
