//! What stands behind our own figures.

/// Beginning of the case, a part of it, and the guarantee; the first that fits holds.
const OURS: &[(&str, &str, &str)] = &[
    ("total/", "", "total order, received by a majority, in memory, no TLS"),
    ("burst/", "", "total order, received by a majority, in memory, no TLS"),
    ("latency/", "/delivered", "total order, delivered to the caster itself, in memory, no TLS"),
    ("latency/", "/majority", "total order, received by a majority, in memory, no TLS"),
    ("latency/", "/safe", "total order, received by all members, in memory, no TLS"),
    ("view/kill/", "", "all survivors are in the agreed view without the killed member"),
    ("directory/set/", "/disk", "linearisable, forced to disk by a majority, no TLS"),
    ("directory/set/", "/memory", "linearisable, received by a majority, in memory, no TLS"),
    (
        "failover/",
        "",
        "linearisable, forced to disk by a majority, nothing acknowledged is lost, no TLS",
    ),
    (
        "bigstate/",
        "",
        "linearisable, forced to disk by a majority, nothing acknowledged is lost, no TLS",
    ),
    (
        "rpc/echo/",
        "/stored",
        "exactly once, also over a restart of the server, forced to its disk, no TLS",
    ),
    ("rpc/echo/", "", "exactly once over lost connections, in memory, no TLS"),
    ("stable/commit/", "", "forced (fdatasync) on one disk, checksummed"),
];

/// What an acknowledgement of ours in this case means.
pub(crate) fn of_ours(case: &str) -> Option<&'static str> {
    let fits = |it: &&(&str, &str, &str)| case.starts_with(it.0) && case.contains(it.1);
    OURS.iter().find(fits).map(|it| it.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that levels and durabilities are not mixed up.
    #[test]
    fn levels_and_durabilities_are_told_apart() {
        let says = |case: &str, word: &str| of_ours(case).is_some_and(|it| it.contains(word));
        assert!(says("total/64B/1sender", "majority"));
        assert!(says("latency/64B/delivered", "caster itself"));
        assert!(says("latency/64B/safe", "all members"));
        assert!(says("directory/set/64clients/disk/pipeline16", "forced"));
        assert!(says("directory/set/64clients/memory", "in memory"));
        assert!(says("failover/kill/sequencer", "forced"));
        assert!(says("bigstate/large/1M", "forced"));
        assert!(says("stable/commit/16threads", "one disk"));
        assert!(says("view/kill/member", "survivors"));
        assert!(says("rpc/echo/64B", "in memory") && says("rpc/echo/64B/stored", "forced"));
        assert_eq!(of_ours("rpc/local/64B"), None);
    }
}
