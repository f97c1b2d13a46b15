//! In place of streams, where they are not built: nothing is offered, and a drain waits for none.
#![allow(clippy::unused_async, clippy::unused_self, reason = "as with streams")]

use std::sync::Arc;

use mainstay_base::NodeId;

use super::context::Level;
use super::handle::Shared;
use super::{RpcHandle, ServeError};

pub(super) async fn serve(_: &RpcHandle) -> Result<(), ServeError> {
    Ok(())
}

impl Shared {
    pub(super) fn lose_readers(&self, _: NodeId) {}

    pub(super) fn end_offers_of(&self, _: &Arc<Level>) {}

    pub(super) fn end_plain_offers(&self) {}

    pub(super) async fn offers_ended(&self) -> bool {
        false
    }
}
