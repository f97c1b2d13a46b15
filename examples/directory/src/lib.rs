//! A replicated directory that speaks the Redis protocol.
