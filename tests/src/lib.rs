//! Cross-service scenarios, the swarm and the exhaustive explorer.
