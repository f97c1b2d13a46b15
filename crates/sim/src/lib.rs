//! The deterministic world: network, disks, processes and faults under one seed.
