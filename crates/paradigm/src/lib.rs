//! Programming paradigms: the replicated state machine.
