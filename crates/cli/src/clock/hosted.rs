//! The clock service of a node of a cluster: the section `[clock]` of its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay::{DatagramKey, DatagramKeys};
use mainstay_base::{ClusterId, NodeId};
use mainstay_clock::sync::global::{Follow, LOOK_ERROR, Setup};
use mainstay_clock::sync::{
    Config, ConfigError, Delay, Drift, Keyring, Kind, Plan, Reading, Stamp,
};
use serde::{Deserialize, Serialize};

use super::key;

/// The name of the service on a node.
pub(crate) const INSTANCE: &str = "clock";
/// Each node has a reference: its wall clock.
const SYSTEM: &str = "system";

/// The keys of the section: the same at all nodes, but for where secret keys are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockConfig {
    /// By which the clocks of the nodes are kept together.
    pub(crate) algorithm: String,
    /// How many of them may be faulty.
    pub(crate) faulty: usize,
    /// How clocks are read, with algorithms that have the choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reading: Option<String>,
    /// From one correction to the next.
    #[serde(default = "period_ms")]
    pub(crate) period_ms: u64,
    /// How long a message takes at least.
    #[serde(default = "delay_min_us")]
    pub(crate) delay_min_us: u64,
    /// How long it takes at most, with what else the machine does.
    #[serde(default = "delay_max_us")]
    pub(crate) delay_max_us: u64,
    /// With stamps: how long a message may wait after it was stamped, which is no part of its delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queue_us: Option<u64>,
    /// How far the rate of a clock may be from that of real time.
    #[serde(default = "drift_ppm")]
    pub(crate) drift_ppm: u16,
    /// Cristian: the largest error of a read that is taken. Marzullo, hardware, external: how far a wall clock may be from the true time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error_us: Option<u64>,
    /// Cristian: how often a read is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    /// Cristian: from one attempt to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wait_ms: Option<u64>,
    /// Cristian: after so long without a word of a master another one is elected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) patience_ms: Option<u64>,
    /// Hardware: how far the node with the reference may pull the others in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pull_max_us: Option<u64>,
    /// Marzullo, external: `system`, or the node whose wall clock is the reference. Hardware: that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
    /// Signed algorithms: where the secret key of this node is; relative to the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Datagrams go by UDP, under the keys in these files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagram_keys: Option<KeyFiles>,
    /// Signed algorithms: the public keys of the other nodes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) publics: BTreeMap<String, String>,
}

/// Where the keys of datagrams are; relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum KeyFiles {
    /// One secret, which all nodes have.
    Shared(PathBuf),
    /// By the name of each other node the key of these two alone.
    Pairs(BTreeMap<String, PathBuf>),
}

fn period_ms() -> u64 {
    1_000
}

fn delay_min_us() -> u64 {
    1
}

fn delay_max_us() -> u64 {
    20_000
}

fn drift_ppm() -> u16 {
    200
}

/// The nodes of a cluster.
pub(crate) struct Nodes<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) me: &'a str,
    /// All of them, this one included.
    pub(crate) names: BTreeSet<&'a str>,
}

impl Nodes<'_> {
    /// All alike have the order of the names, in which keys and masters have their places.
    fn group(&self) -> Arc<[NodeId]> {
        self.names.iter().map(|name| NodeId::new(self.cluster, name)).collect()
    }

    fn place(&self, name: &str) -> Result<usize, String> {
        let place = self.names.iter().position(|node| *node == name);
        place.ok_or_else(|| format!("clock: there is no node {name:?}"))
    }
}

fn text(error: ConfigError) -> String {
    format!("clock: {error}")
}

fn set<T>(number: &mut T, to: Option<T>) {
    if let Some(to) = to {
        *number = to;
    }
}

impl ClockConfig {
    /// What is to be mounted on a node, all but its keys.
    pub(crate) fn setup(&self, nodes: &Nodes<'_>) -> Result<Setup, String> {
        let (kind, reference) = self.kind(nodes)?;
        let mut config = Config::lan(kind, nodes.names.len(), self.faulty);
        config.drift = self.drift();
        let micros = Duration::from_micros;
        config.delay = Delay { min: micros(self.delay_min_us), max: micros(self.delay_max_us) };
        config.queue = micros(self.queue_us.unwrap_or(0));
        config.period = Duration::from_millis(self.period_ms);
        let mut setup = Plan::new(config).and_then(Setup::new).map_err(text)?;
        setup.group = Some(nodes.group());
        setup.reference = reference;
        setup.stamps = self.datagram_keys.is_some();
        // Who has the reference, for those that follow it.
        setup.answers = self.reference.as_deref() == Some(nodes.me);
        Ok(setup)
    }

    /// The same with the keys, which are read.
    pub(crate) fn setup_with_keys(&self, nodes: &Nodes<'_>) -> Result<Setup, String> {
        let mut setup = self.setup(nodes)?;
        if self.is_signed() {
            setup.keys = Some(self.keyring(nodes)?);
        }
        let me = NodeId::new(nodes.cluster, nodes.me);
        setup.check(me, &nodes.group()).map_err(text)?;
        Ok(setup)
    }

    /// The keys of the node's datagrams, which are read, if they go by UDP.
    pub(crate) fn datagrams(&self, nodes: &Nodes<'_>) -> Result<Option<DatagramKeys>, String> {
        let read = |file: &Path| match key::read(file) {
            Ok(secret) => Ok(DatagramKey(secret)),
            Err(error) => Err(format!("clock: datagram_keys: {error}")),
        };
        let files = match &self.datagram_keys {
            None => return Ok(None),
            Some(KeyFiles::Shared(file)) => {
                let me = NodeId::new(nodes.cluster, nodes.me);
                let all = nodes.group();
                return Ok(Some(DatagramKeys::shared(&read(file)?, me, all.iter().copied())));
            }
            Some(KeyFiles::Pairs(files)) => files,
        };
        if let Some(name) = files.keys().find(|name| !nodes.names.contains(name.as_str())) {
            return Err(format!("clock: datagram_keys: there is no node {name:?}"));
        }
        let others = nodes.names.iter().filter(|name| **name != nodes.me);
        let keys = others.map(|name| {
            let file = files.get(*name);
            let file = file.ok_or_else(|| format!("clock: datagram_keys: none for {name:?}"))?;
            Ok((NodeId::new(nodes.cluster, name), read(file)?))
        });
        keys.collect::<Result<Vec<_>, String>>().map(|keys| Some(DatagramKeys::new(keys)))
    }

    /// Takes files from where the configuration is.
    pub(crate) fn relative_to(&mut self, directory: &Path) {
        self.secret_file = self.secret_file.take().map(|file| directory.join(file));
        match &mut self.datagram_keys {
            Some(KeyFiles::Shared(file)) => *file = directory.join(&*file),
            Some(KeyFiles::Pairs(files)) => {
                files.values_mut().for_each(|file| *file = directory.join(&*file));
            }
            None => {}
        }
    }

    fn is_signed(&self) -> bool {
        Kind::named(&self.algorithm, None).is_ok_and(|kind| kind.is_signed())
    }

    fn drift(&self) -> Drift {
        Drift::per_billion(u32::from(self.drift_ppm) * 1_000)
    }

    /// The algorithm with its numbers, and what this node follows.
    fn kind(&self, nodes: &Nodes<'_>) -> Result<(Kind, Option<Follow>), String> {
        let reading = self.reading.as_deref().map(Reading::named).transpose().map_err(text)?;
        let mut kind = Kind::named(&self.algorithm, reading).map_err(text)?;
        self.check_keys(&kind)?;
        let (micros, millis) = (Duration::from_micros, Duration::from_millis);
        let mut reference = None;
        match &mut kind {
            Kind::Averaging { reading, .. } if self.reading.is_none() => {
                *reading = Reading::ROUND_TRIP;
            }
            Kind::Probabilistic { error_max, attempts, wait, patience, .. } => {
                set(error_max, self.error_us.map(micros));
                set(attempts, self.attempts);
                set(wait, self.wait_ms.map(millis));
                set(patience, self.patience_ms.map(millis));
            }
            Kind::Interval { error, .. } => {
                set(error, self.error_us.map(micros));
                let is_own = self.reads_its_own(nodes)?;
                self.withstands_none("no other has an interval to say at first")?;
                let own = Follow::SystemClock { error: *error };
                reference = is_own.then_some(own);
            }
            Kind::Hardware { master, pull_max, error } => {
                set(error, self.error_us.map(micros));
                let own = Follow::SystemClock { error: *error };
                *error = error.saturating_add(LOOK_ERROR);
                set(pull_max, self.pull_max_us.map(micros));
                if let Some(name) = &self.reference {
                    *master = Some(nodes.place(name)?);
                    reference = (name == nodes.me).then_some(own);
                }
            }
            Kind::External { error } => {
                set(error, self.error_us.map(micros));
                let is_own = self.reads_its_own(nodes)?;
                self.withstands_none("all follow it")?;
                let own = Follow::SystemClock { error: *error };
                // All have one plan: the precision holds for those that read of another node as well.
                *error = error.saturating_add(match self.named() {
                    Some(_) => self.read_from_another(),
                    None => LOOK_ERROR,
                });
                reference = Some(if is_own {
                    own
                } else {
                    let name = self.named().unwrap_or_default();
                    Follow::Peer(NodeId::new(nodes.cluster, name))
                });
            }
            _ => {}
        }
        Ok((kind, reference))
    }

    /// The one node that has a reference.
    fn named(&self) -> Option<&str> {
        self.reference.as_deref().filter(|name| *name != SYSTEM)
    }

    /// Where one node alone has a reference, it cannot be faulty.
    fn withstands_none(&self, why: &str) -> Result<(), String> {
        match self.named().filter(|_| self.faulty > 0) {
            Some(name) => Err(format!(
                "clock: {} with {name} as the only reference withstands no faulty clock: {why}",
                self.algorithm
            )),
            None => Ok(()),
        }
    }

    /// Whether the wall clock of this node is a reference.
    fn reads_its_own(&self, nodes: &Nodes<'_>) -> Result<bool, String> {
        let name = self.reference.as_deref().unwrap_or(SYSTEM);
        if name != SYSTEM {
            nodes.place(name)?;
        }
        Ok(name == SYSTEM || name == nodes.me)
    }

    /// How much further than the reference of another node what is read of it may be from the true time: that has drifted until it is not believed any
    /// more, and a round trip takes twice the longest delay.
    fn read_from_another(&self) -> Duration {
        let missed = Duration::from_millis(self.period_ms).saturating_mul(4);
        let drifts = missed.saturating_mul(u32::from(self.drift_ppm)) / 1_000_000;
        let read = Duration::from_micros(self.delay_max_us);
        read.saturating_add(read / 10).saturating_add(drifts).saturating_add(MARGIN)
    }

    /// A key that the algorithm has no use for is a mistake.
    fn check_keys(&self, kind: &Kind) -> Result<(), String> {
        let (name, is_cristian) = (kind.name(), matches!(kind, Kind::Probabilistic { .. }));
        let is_hardware = matches!(kind, Kind::Hardware { .. });
        let is_stamped = kind.reading().is_some_and(|it| it.stamp == Stamp::Kernel);
        let refers = is_hardware || matches!(kind, Kind::Interval { .. } | Kind::External { .. });
        let given = [
            ("error_us", self.error_us.is_some(), is_cristian || refers),
            ("attempts", self.attempts.is_some(), is_cristian),
            ("wait_ms", self.wait_ms.is_some(), is_cristian),
            ("patience_ms", self.patience_ms.is_some(), is_cristian),
            ("queue_us", self.queue_us.is_some(), is_stamped),
            ("pull_max_us", self.pull_max_us.is_some(), is_hardware),
            ("reference", self.reference.is_some(), refers),
            ("secret_file", self.secret_file.is_some(), kind.is_signed()),
            ("publics", !self.publics.is_empty(), kind.is_signed()),
        ];
        match given.iter().find(|(_, is_given, has_use)| *is_given && !has_use) {
            Some((key, ..)) => Err(format!("clock: {name} has no use for {key}")),
            None => Ok(()),
        }
    }

    fn keyring(&self, nodes: &Nodes<'_>) -> Result<Keyring, String> {
        let file = self.secret_file.as_ref();
        let file = file.ok_or("clock: the algorithm is signed, and there is no secret_file")?;
        let secret = key::read(file).map_err(|error| format!("clock: {error}"))?;
        let public = |name: &&str| match self.publics.get(*name) {
            Some(public) => key::parse(public)
                .ok_or_else(|| format!("clock: publics: that of {name:?} is no key")),
            None if *name == nodes.me => Ok(Keyring::public(secret)),
            None => Err(format!("clock: publics: there is none of {name:?}")),
        };
        if let Some(name) = self.publics.keys().find(|name| !nodes.names.contains(name.as_str())) {
            return Err(format!("clock: publics: there is no node {name:?}"));
        }
        let publics = nodes.names.iter().map(public).collect::<Result<Vec<_>, _>>()?;
        let place = nodes.place(nodes.me)?;
        Keyring::ed25519(place, secret, &publics).map_err(|error| format!("clock: {error}"))
    }
}

/// What roundings and the look at a wall clock take.
const MARGIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes<'a>(me: &'a str, names: &[&'a str]) -> Nodes<'a> {
        let names = names.iter().copied().collect();
        Nodes { cluster: ClusterId::from_entropy(1), me, names }
    }

    fn config(algorithm: &str, more: &str) -> ClockConfig {
        toml::from_str(&format!("algorithm = {algorithm:?}\n{more}")).unwrap()
    }

    const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

    #[test]
    fn what_theory_forbids_is_refused_with_the_reason() {
        let refused =
            |config: &ClockConfig, names| config.setup(&nodes("n1", names)).map(drop).unwrap_err();
        let why = refused(&config("midpoint", "faulty = 1"), &NAMES[..3]);
        assert!(why.contains("3 clocks do not withstand 1 faulty ones"), "{why}");
        let why = refused(&config("sundial", "faulty = 0"), &NAMES);
        assert!(why.contains("no algorithm is called \"sundial\"; there are cnv"), "{why}");
        let why = refused(&config("midpoint", "faulty = 0\nperiod_ms = 1"), &NAMES);
        assert!(why.contains("shorter than a round"), "{why}");
        for (algorithm, key, why) in [
            ("halpern", "reading = \"arrival\"", "does not read clocks by arrival"),
            ("midpoint", "reading = \"sight\"", "no reading is called \"sight\""),
            ("midpoint", "queue_us = 3", "midpoint has no use for queue_us"),
            ("midpoint", "attempts = 3", "midpoint has no use for attempts"),
            ("com", "reference = \"n1\"", "com has no use for reference"),
            ("external", "reference = \"n9\"", "there is no node \"n9\""),
            ("cristian", "attempts = 0", "no attempt is allowed"),
        ] {
            let refused = refused(&config(algorithm, &format!("faulty = 1\n{key}")), &NAMES);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn every_algorithm_is_configured_by_its_name() {
        for name in Kind::NAMES {
            let setup = config(name, "faulty = 1").setup(&nodes("n1", &NAMES));
            setup.unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        let more = "faulty = 1\nattempts = 5\nwait_ms = 40\npatience_ms = 700\nerror_us = 9000";
        config("cristian", more).setup(&nodes("n1", &NAMES)).unwrap();
        let more = "faulty = 1\nreading = \"stamped\"";
        config("midpoint", more).setup(&nodes("n1", &NAMES)).unwrap();
    }

    #[test]
    fn who_has_the_reference_reads_it_and_others_follow() {
        let follows = |algorithm, more, me| {
            let setup = config(algorithm, more).setup(&nodes(me, &NAMES)).unwrap();
            (setup.reference, setup.answers)
        };
        let n2 = NodeId::new(ClusterId::from_entropy(1), "n2");
        let system = Some(Follow::SystemClock { error: Duration::from_millis(10) });
        let by_n2 = "faulty = 0\nreference = \"n2\"";
        assert_eq!(follows("external", "faulty = 1", "n1"), (system, false));
        assert_eq!(follows("external", by_n2, "n2"), (system, true));
        assert_eq!(follows("external", by_n2, "n3"), (Some(Follow::Peer(n2)), false));
        assert_eq!(follows("marzullo", by_n2, "n3"), (None, false));
        let pulls = "faulty = 1\nreference = \"n2\"\npull_max_us = 30000";
        assert_eq!(follows("hardware", pulls, "n2").0, system);
        assert_eq!(follows("hardware", pulls, "n1").0, None);
        // All claim one precision, which is that of those who read of another node.
        let plan = |me| config("external", by_n2).kind(&nodes(me, &NAMES)).unwrap().0;
        assert_eq!(plan("n2"), plan("n3"));
        for (algorithm, more) in [
            ("external", "faulty = 0\nerror_us = 0"),
            ("external", by_n2),
            ("marzullo", by_n2),
            ("hardware", &format!("{pulls}\ndatagram_keys = \"udp\"")),
        ] {
            for me in NAMES {
                config(algorithm, more).setup_with_keys(&nodes(me, &NAMES)).unwrap();
            }
        }
        for algorithm in ["external", "marzullo"] {
            let faulty = config(algorithm, "faulty = 1\nreference = \"n2\"");
            let why = faulty.setup(&nodes("n1", &NAMES)).map(drop).unwrap_err();
            assert!(why.contains("withstands no faulty clock"), "{why}");
        }
        let hasty = config("external", &format!("{by_n2}\nperiod_ms = 500\ndelay_max_us = 130000"));
        let why = hasty.setup_with_keys(&nodes("n1", &NAMES)).map(drop).unwrap_err();
        assert!(why.contains("period"), "{why}");
    }

    #[test]
    fn what_reads_stamps_wants_datagrams_and_their_keys() {
        let home = tempfile::tempdir().unwrap();
        for name in ["all", "n1-n2", "n1-n3"] {
            key::make(&home.path().join(name)).unwrap();
        }
        let made = |algorithm: &str, more: &str| {
            let mut config = config(algorithm, more);
            config.relative_to(home.path());
            let nodes = nodes("n1", &NAMES[..3]);
            config
                .setup_with_keys(&nodes)
                .and_then(|_| config.datagrams(&nodes))
                .map(|it| it.is_some())
        };
        let stamped = "faulty = 0\nreading = \"stamped-round-trip\"";
        let why = made("midpoint", stamped).unwrap_err();
        assert!(why.contains("midpoint by stamped-round-trip needs datagrams by UDP"), "{why}");
        assert!(made("hardware", "faulty = 0").unwrap_err().contains("needs datagrams by UDP"));
        assert_eq!(made("midpoint", "faulty = 0"), Ok(false));
        let with = |keys| made("midpoint", &format!("{stamped}\ndatagram_keys = {keys}"));
        assert_eq!(with("\"all\"\nqueue_us = 30000"), Ok(true));
        assert_eq!(with("{ n2 = \"n1-n2\", n3 = \"n1-n3\" }"), Ok(true));
        for (keys, why) in [
            ("\"none\"", "none: No such file"),
            ("{ n2 = \"n1-n2\" }", "datagram_keys: none for \"n3\""),
            ("{ n2 = \"n1-n2\", n3 = \"n1-n3\", n4 = \"all\" }", "there is no node \"n4\""),
        ] {
            let refused = with(keys).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    /// The order of the names of a cluster is mostly not that of its nodes, which are hashes.
    #[test]
    fn masters_and_keys_have_the_places_of_the_nodes_in_the_group() {
        let home = tempfile::tempdir().unwrap();
        let publics: Vec<String> =
            NAMES.iter().map(|name| key::make(&home.path().join(name)).unwrap()).collect();
        let lines = NAMES.iter().zip(&publics).map(|(name, key)| format!("{name} = {key:?}\n"));
        let table: String = lines.collect();
        for cluster in (1..20).map(ClusterId::from_entropy) {
            for me in NAMES {
                let nodes = Nodes { cluster, ..nodes(me, &NAMES) };
                let place = |group: &[NodeId], name: &str| {
                    group.iter().position(|node| *node == NodeId::new(cluster, name)).unwrap()
                };
                let more = format!("faulty = 1\nsecret_file = {me:?}\n[publics]\n{table}");
                let mut signed = config("csm", &more);
                signed.relative_to(home.path());
                let setup = signed.setup_with_keys(&nodes).unwrap();
                let group = setup.group.expect("one order is said");
                assert_eq!(setup.keys.unwrap().me(), place(&group, me));
                let pulls = "faulty = 1\nreference = \"n2\"\npull_max_us = 30000";
                let pulled = config("hardware", pulls);
                let group = pulled.setup(&nodes).unwrap().group.expect("one order is said");
                let (kind, _) = pulled.kind(&nodes).unwrap();
                assert!(
                    matches!(kind, Kind::Hardware { master: Some(master), .. } if master == place(&group, "n2"))
                );
            }
        }
    }

    #[test]
    fn signed_algorithms_want_the_keys_of_all_nodes() {
        let home = tempfile::tempdir().unwrap();
        let publics: Vec<String> =
            NAMES[..3].iter().map(|name| key::make(&home.path().join(name)).unwrap()).collect();
        let table = |names: &[usize]| -> String {
            let line = |it: &usize| format!("{} = {:?}\n", NAMES[*it], publics[*it]);
            names.iter().map(line).collect()
        };
        let made = |secret: &str, names: &[usize]| {
            let more = format!("faulty = 1\nsecret_file = {secret:?}\n[publics]\n{}", table(names));
            let mut config = config("csm", &more);
            config.relative_to(home.path());
            config.setup_with_keys(&nodes("n1", &NAMES[..3])).map(|setup| setup.keys.unwrap().me())
        };
        assert_eq!(made("n1", &[1, 2]), Ok(0));
        assert_eq!(made("n1", &[0, 1, 2]), Ok(0));
        let foreign = config("csm", "faulty = 1\nsecret_file = \"n1\"\n[publics]\nn7 = \"x\"");
        let mut foreign = foreign;
        foreign.relative_to(home.path());
        let why = foreign.setup_with_keys(&nodes("n1", &NAMES[..3])).map(drop).unwrap_err();
        assert_eq!(why, "clock: publics: there is no node \"n7\"");
        let twice = format!(
            "faulty = 1\nsecret_file = \"n1\"\n[publics]\nn2 = {:?}\nn3 = {:?}",
            publics[1], publics[1]
        );
        let mut twice = config("csm", &twice);
        twice.relative_to(home.path());
        let why = twice.setup_with_keys(&nodes("n1", &NAMES[..3])).map(drop).unwrap_err();
        assert!(why.contains("places 1 and 2"), "{why}");
        assert_eq!(made("n1", &[1]).unwrap_err(), "clock: publics: there is none of \"n3\"");
        assert!(made("n2", &[0, 1, 2]).unwrap_err().contains("another secret"));
        assert!(made("n9", &[1, 2]).unwrap_err().contains("n9"));
        let none = config("csm", "faulty = 1").setup_with_keys(&nodes("n1", &NAMES[..3]));
        assert!(none.map(drop).unwrap_err().contains("no secret_file"));
    }
}
