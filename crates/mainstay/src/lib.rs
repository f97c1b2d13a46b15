//! The facade: build a node out of services, configure it, run it.
