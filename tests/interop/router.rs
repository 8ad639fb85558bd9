//! The other program, whichever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use ipnetwork::IpNetwork;
use manx_linux::Netns;
use manx_tests::foreign::Place;
pub(crate) use manx_tests::foreign::Process;

use crate::matrix::Feature;
use crate::net::{Ends, FIRST};

/// A program that speaks BGP, as the matrix knows it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) binary: &'static str,
    /// What makes it print its version.
    pub(crate) version: &'static str,
    /// The Debian package that it is in.
    pub(crate) package: &'static str,
    pub(crate) start: Start,
    /// What it does not do, and why its cell of the matrix is no test.
    pub(crate) lacks: &'static [(Feature, &'static str)],
}

/// Starts a program in a namespace, with these sessions, all of one kind.
pub(crate) type Start = fn(&Netns, Session, &[Ends]) -> Box<dyn Router>;

impl Program {
    /// Whether it is there; if not, it is an error in CI and said loudly elsewhere.
    pub(crate) fn installed(&self) -> bool {
        if Path::new(self.binary).exists() {
            return true;
        }
        let Self { binary, package, .. } = self;
        assert!(
            std::env::var_os("CI").is_none(),
            "{binary} is missing: apt-get install {package}"
        );
        eprintln!("\n*** SKIPPED: {binary} is missing; apt-get install {package} ***\n");
        false
    }

    /// Its version, as it prints it itself.
    pub(crate) fn version(&self) -> Option<String> {
        let output = Command::new(self.binary).arg(self.version).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_version = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
        text.split_whitespace().find(is_version).map(str::to_owned)
    }
}

/// A session, as the other side is to be configured for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) our_asn: u32,
    pub(crate) their_asn: u32,
    /// Their BGP identifier.
    pub(crate) their_id: Ipv4Addr,
    /// We wait for them to dial.
    pub(crate) we_wait: bool,
    /// They wait for us to dial.
    pub(crate) they_wait: bool,
    /// In seconds.
    pub(crate) hold_time: u16,
    /// They offer graceful restart with this time in seconds, and help with ours.
    pub(crate) graceful_restart: Option<u16>,
    /// Both sides watch the path by BFD.
    pub(crate) bfd: Option<Hops>,
    /// Who reflects, with the other as its client.
    pub(crate) reflector: Option<Side>,
    /// Each side sends all its paths of a prefix and takes the other's (RFC 7911).
    pub(crate) add_path: bool,
    /// More prefixes than this of a family, they do not take from us, and end the session for good.
    pub(crate) at_most: Option<u32>,
    /// What they learn, their kernel routes by.
    pub(crate) fib: bool,
    /// What both sides ask of the connection.
    pub(crate) protection: Option<Protection>,
}

/// What a connection has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Signed with this (RFC 2385).
    Password(&'static str),
    /// One hop long (RFC 5082).
    Near,
}

/// How far BFD takes the peer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hops {
    One,
    Several,
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Theirs,
}

/// A plain session between two ASes.
pub(crate) const EXTERNAL: Session = Session {
    our_asn: 65001,
    their_asn: 65002,
    their_id: FIRST.theirs,
    we_wait: false,
    they_wait: false,
    hold_time: 9,
    graceful_restart: None,
    bfd: None,
    reflector: None,
    add_path: false,
    at_most: None,
    fib: false,
    protection: None,
};

/// A plain session within one AS.
pub(crate) const INTERNAL: Session = Session {
    their_asn: 65001,
    ..EXTERNAL
};

/// What a route of theirs carries beyond what it must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    pub(crate) community: Option<[u32; 2]>,
    pub(crate) large_community: Option<[u32; 3]>,
    /// Another AS in its path, behind theirs.
    pub(crate) behind: Option<u32>,
    /// Our own AS in its path, as if it had been with us before.
    pub(crate) our_as: bool,
}

/// What came with a route of ours, as they show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) as_path: Vec<u32>,
    /// As `65001:1`.
    pub(crate) communities: Vec<String>,
    /// As `65001:1:2`.
    pub(crate) large_communities: Vec<String>,
    /// MULTI_EXIT_DISC; 0 is as good as none.
    pub(crate) med: Option<u32>,
    /// LOCAL_PREF, within an AS.
    pub(crate) local_pref: Option<u32>,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) clusters: Vec<Ipv4Addr>,
}

/// A BGP program in its namespace.
pub(crate) trait Router {
    /// How many sessions are up.
    fn established(&self) -> usize;
    /// What it has learned from us on its first session, both families.
    fn learned(&self) -> BTreeSet<String>;
    /// How many paths of a prefix it has learned so.
    fn paths(&self, prefix: &str) -> usize;
    /// What came with a prefix that it has learned so.
    fn attributes(&self, prefix: &str) -> Option<Attributes>;
    /// Originates a prefix.
    fn announce(&mut self, prefix: &str, extras: Extras);
    /// No longer originates it.
    fn withdraw(&mut self, prefix: &str);
    /// Asks us for all routes again (RFC 2918).
    fn request_refresh(&self);
    /// How many prefixes we have announced to it in the session so far, each as often as it came.
    fn updates(&self) -> u64;
    /// Ends the session as its operator does, who says why (RFC 9003).
    fn shut_down(&self, message: &str);
    /// Whether it shows that we have sent it a NOTIFICATION with this code and subcode: `6/2`.
    fn was_told(&self, code: &str) -> bool;
    /// Stops it as kill -9 does.
    fn kill(&mut self);
    /// Starts it again after `kill`, with graceful restart where configured; it originates only `kept`.
    fn restart(&mut self, kept: &[&str]);
    /// Freezes it: its connections stay, nothing is read or written any more.
    fn freeze(&self);
}

/// The first word of each line that is a prefix.
pub(crate) fn prefixes(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| word.contains('/') && word.parse::<IpNetwork>().is_ok())
        .map(str::to_owned)
        .collect()
}

/// The numbers in a text, whatever stands between them.
pub(crate) fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// The two families, as most programs name them.
pub(crate) const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// The one that a prefix is of.
pub(crate) fn family(prefix: &str) -> &'static str {
    FAMILIES[usize::from(prefix.contains(':'))]
}

/// What every router has: its place, its settings and what it originates.
pub(crate) struct Base {
    place: Place,
    pub(crate) session: Session,
    pub(crate) sessions: Vec<Ends>,
    pub(crate) announced: BTreeMap<String, Extras>,
}

impl Session {
    /// What counts of LOCAL_PREF and MULTI_EXIT_DISC as a program shows them.
    pub(crate) fn metrics(&self, local_pref: Option<u32>, med: Option<u32>) -> (Option<u32>, Option<u32>) {
        let internal = self.our_asn == self.their_asn;
        (local_pref.filter(|_| internal), med.filter(|it| *it != 0))
    }
}

impl Deref for Base {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Base {
    pub(crate) fn new(namespace: &Netns, session: Session, sessions: &[Ends]) -> Self {
        Self {
            place: Place::new(namespace),
            session,
            sessions: sessions.to_vec(),
            announced: BTreeMap::new(),
        }
    }

    /// What is originated from now on.
    pub(crate) fn set_announced(&mut self, prefixes: &[&str]) {
        let plain = |prefix: &&str| ((*prefix).to_owned(), Extras::default());
        self.announced = prefixes.iter().map(plain).collect();
    }

    /// What of it is of a family.
    pub(crate) fn announced(&self, of: &str) -> impl Iterator<Item = (&str, Extras)> {
        let all = self
            .announced
            .iter()
            .map(|(prefix, extras)| (prefix.as_str(), *extras));
        all.filter(move |(prefix, _)| family(prefix) == of)
    }

    /// The ends of the first session.
    pub(crate) fn ends(&self) -> Ends {
        self.sessions[0]
    }
}
