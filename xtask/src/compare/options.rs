//! The command line.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: cargo xtask compare [--pairs N] [--dir DIR] [--peer NAME].. [CASE-PREFIX..]
       cargo xtask compare --install

  CASE-PREFIX   compare the cases whose names begin so [default: all that a peer has]
  --pairs N     runs of ours and of the peer's, in turn, at least 3 [default: 3]
  --dir DIR     where data is kept meanwhile [default: the directory for temporary files]
  --peer NAME   build and run bench/peers/NAME, and no others but those named so [default: all but kameo, which is
                heavy to build]
  --install     install what the peers need (Debian, root), and measure nothing";

/// Below three runs a median says nothing.
const PAIRS_MIN: usize = 3;
const PAIRS_MAX: usize = 100;

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) install: bool,
    pub(crate) pairs: usize,
    pub(crate) dir: PathBuf,
    /// Names of directories; none: all.
    pub(crate) peers: Vec<String>,
    /// Of cases; none: all.
    pub(crate) prefixes: Vec<String>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (dir, peers, prefixes) = (std::env::temp_dir(), Vec::new(), Vec::new());
        let mut options = Self { install: false, pairs: PAIRS_MIN, dir, peers, prefixes };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if word.starts_with("--") => (option, Some(value)),
                _ => (word, None),
            };
            let mut value =
                || value.or_else(|| words.next()).ok_or_else(|| format!("{option} of what?"));
            match option {
                "--install" if option == word => options.install = true,
                "--pairs" => options.pairs = pairs(value()?)?,
                "--dir" => options.dir = value()?.into(),
                "--peer" => options.peers.push(value()?.to_owned()),
                _ if option.starts_with('-') => return Err(format!("no such option: {word}")),
                _ => options.prefixes.push(word.to_owned()),
            }
        }
        Ok(options)
    }
}

fn pairs(text: &str) -> Result<usize, String> {
    let pairs = text.parse().ok().filter(|pairs| (PAIRS_MIN..=PAIRS_MAX).contains(pairs));
    pairs.ok_or_else(|| format!("not a number from {PAIRS_MIN} to {PAIRS_MAX}: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks both ways to give a value, and the defaults.
    #[test]
    fn options_and_names_are_told_apart() {
        let words = ["--pairs", "5", "stable/", "--peer=tonic", "--dir=/d", "rpc"];
        let options = Options::parse(&words).unwrap();
        assert_eq!((options.pairs, options.install), (5, false));
        assert_eq!(options.prefixes, ["stable/", "rpc"]);
        assert_eq!(options.peers, ["tonic"]);
        assert_eq!(options.dir, PathBuf::from("/d"));
        assert_eq!(Options::parse(&[]).unwrap().pairs, 3);
        assert!(Options::parse(&["--install"]).unwrap().install);
    }

    /// Checks that nothing wrong passes.
    #[test]
    fn wrong_words_are_refused() {
        let wrong: [&[&str]; 6] = [
            &["--pairs"],
            &["--pairs=2"],
            &["--pairs=x"],
            &["--piars=3"],
            &["-p"],
            &["--install=1"],
        ];
        for words in wrong {
            assert!(Options::parse(words).is_err(), "{words:?}");
        }
    }
}
