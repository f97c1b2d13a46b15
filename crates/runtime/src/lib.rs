//! The host of every machine: actors, turns, timers, ports, TCP transport and the log-writer thread.
