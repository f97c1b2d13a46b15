//! Recorded histories in, verdicts out: one checker per property, and a linearisability checker.
