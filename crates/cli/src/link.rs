//! The demo of the link alone, one floor of the house: two processes, connections cut, one killed and restarted.

pub(crate) mod demo;
pub(crate) mod peer;
mod proxy;
