//! The keys of algorithms with signatures.

use mainstay_agreement::sign::Keyring;

use super::config::{ConfigError, Plan};

/// The keys of the node at place `me`, if the plan needs some: there must be one for each node.
pub(super) fn checked(
    keys: Option<Keyring>,
    me: usize,
    plan: &Plan,
) -> Result<Option<Keyring>, ConfigError> {
    let config = plan.config();
    let is_signed = config.kind.is_signed();
    match keys {
        Some(keys) if is_signed && keys.me() != me => {
            Err(ConfigError::KeysOf { place: me, keys: keys.me() })
        }
        Some(keys) if is_signed && keys.count() == config.nodes => Ok(Some(keys)),
        _ if is_signed => Err(ConfigError::Keys),
        _ => Ok(None),
    }
}
