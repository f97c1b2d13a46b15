//! Stable storage: an append log with group commit, checkpoint files and atomic cells.
