//! What a line of the table says: a session, octets and an outcome.

use std::fmt;
use std::str::SplitWhitespace;
use std::time::Duration;

use manx_bgp::wire::Role;
use manx_bgp::{AddPathConfig, Family, Features, PeerConfig, PeerKey, RoleConfig};

/// The names of prefixes, the prefixes and their NLRI; the last of each family is not announced before the case.
pub(crate) const PREFIXES: [(&str, &str, &str); 8] = [
    ("P1", "198.51.100.0/24", "18c63364"),
    ("P2", "203.0.113.0/24", "18cb0071"),
    ("P3", "192.0.2.0/24", "18c00002"),
    ("P9", "203.0.114.0/24", "18cb0072"),
    ("Q1", "2001:db8:1::/48", "3020010db80001"),
    ("Q2", "2001:db8:2::/48", "3020010db80002"),
    ("Q3", "2001:db8:3::/48", "3020010db80003"),
    ("Q9", "2001:db8:9::/48", "3020010db80009"),
];

/// The community by which what was announced before the case is told.
pub(super) const BEFORE: u32 = 0xfdea_0063;

/// When the octets of a case come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    OpenSent,
    OpenConfirm,
    Established,
}

/// Between whom a case happens: words of the table's third column.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    words: Vec<String>,
    external: bool,
}

/// One demand on what becomes of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Up,
    Hold(String),
    Drop(String),
    Any(String),
    Paths(String, usize),
    /// This observer is not told of it though it is in use.
    Lack(u8, String),
    /// What the octets to an observer have in them.
    Tell(u8, Vec<u8>),
    Hide(u8, Vec<u8>),
    /// The code, the subcode where it is told, and the data where they are.
    Reset(u8, Option<u8>, Option<Vec<u8>>),
    Close,
    End,
}

/// A line of the table, on one kind of session.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) session: Session,
    /// The messages, one after the other.
    pub(crate) octets: Vec<u8>,
    /// Any of these is right.
    pub(super) outcomes: Vec<Vec<Check>>,
}

impl Check {
    pub(super) fn ends_the_session(&self) -> bool {
        matches!(self, Self::Reset(..) | Self::Close | Self::End)
    }

    /// Whether it says what becomes of a prefix.
    pub(super) fn is_about(&self, name: &str) -> bool {
        matches!(self, Self::Hold(said) | Self::Drop(said) | Self::Any(said) if said == name)
    }
}

/// The cases of the table.
pub(crate) fn cases() -> Vec<Case> {
    let table = include_str!("../data/wire-cases.txt");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| {
            let columns: Vec<_> = line.split('|').map(str::trim).collect();
            let [name, clause, session, octets, outcome] = columns[..] else {
                panic!("a line of five columns: {line}");
            };
            assert!(clause.starts_with("RFC "), "a clause: {line}");
            let case = move |session: Session| Case {
                name: name.to_owned(),
                octets: session.messages(octets),
                session,
                outcomes: outcome.split(" or ").map(checks).collect(),
            };
            Session::all(session).into_iter().map(case)
        })
        .collect()
}

fn checks(text: &str) -> Vec<Check> {
    let demands = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    demands.flat_map(demand).collect()
}

/// The checks of one demand, as `hold P1 P2`.
fn demand(text: &str) -> Vec<Check> {
    let words: Vec<_> = text.split_whitespace().collect();
    let each = |check: fn(String) -> Check| words[1..].iter().map(|name| check((*name).to_owned())).collect();
    match words[0] {
        "up" => vec![Check::Up],
        "hold" => each(Check::Hold),
        "drop" => each(Check::Drop),
        "any" => each(Check::Any),
        "paths" => vec![Check::Paths(words[1].to_owned(), words[2].parse().unwrap())],
        "tell" => vec![Check::Tell(words[1].parse().unwrap(), hex(&words[2..].concat()))],
        "hide" => vec![Check::Hide(words[1].parse().unwrap(), hex(&words[2..].concat()))],
        "lack" => vec![Check::Lack(words[1].parse().unwrap(), words[2].to_owned())],
        "reset" => {
            let (code, subcode) = words[1].split_once('/').unwrap();
            let data = (words.len() > 2).then(|| hex(&words[2..].concat()));
            vec![Check::Reset(code.parse().unwrap(), subcode.parse().ok(), data)]
        }
        "close" => vec![Check::Close],
        "end" => vec![Check::End],
        word => panic!("no such demand: {word}"),
    }
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "whole octets: {digits}");
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("hex: {digits}"));
    (0..digits.len()).step_by(2).map(octet).collect()
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.either("ebgp", "ibgp"), self.words.join(" "))
    }
}

impl Session {
    /// The sessions that a line is about.
    fn all(words: &str) -> Vec<Self> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        let kinds: &[bool] = match &*words[0] {
            "ebgp" => &[true],
            "ibgp" => &[false],
            "both" => &[true, false],
            word => panic!("no such session: {word}"),
        };
        let session = |&external| Self {
            words: words[1..].to_vec(),
            external,
        };
        kinds.iter().map(session).collect()
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|said| said == word)
    }

    fn phase(&self) -> Phase {
        match () {
            () if self.has("opensent") => Phase::OpenSent,
            () if self.has("openconfirm") => Phase::OpenConfirm,
            () => Phase::Established,
        }
    }

    fn ipv6(&self) -> bool {
        !self.has("v4")
    }

    fn role(&self) -> Option<Role> {
        let role = self.words.iter().find_map(|word| word.strip_prefix("role:"))?;
        Some(match role {
            "provider" => Role::Provider,
            "customer" => Role::Customer,
            "rs" => Role::RouteServer,
            "peer" => Role::Peer,
            _ => panic!("no such role: {role}"),
        })
    }

    /// Our settings for the peer.
    pub(crate) fn config(&self, key: PeerKey, ours: u32) -> PeerConfig {
        let families = Family::ALL.to_vec();
        let add_path = |family| AddPathConfig {
            family,
            receive: true,
            send: 0,
        };
        let features = Features {
            extended_messages: self.has("ext"),
            extended_next_hop: Some(self.has("nh6")),
            add_path: families
                .iter()
                .copied()
                .map(add_path)
                .filter(|_| self.has("addpath"))
                .collect(),
            role: self.role().map(|role| RoleConfig {
                role,
                strict: self.has("strict"),
            }),
        };
        PeerConfig {
            passive: true,
            graceful_restart: self.has("restarted").then_some(Duration::from_secs(60)),
            families,
            features,
            ..PeerConfig::new(key, if self.external { 65_002 } else { ours })
        }
    }

    /// What brings the session into the state that the case is about, and announces what is to be there: what is sent
    /// on one connection, and where the peer restarts, on the next one.
    pub(crate) fn preludes(&self) -> Vec<Vec<u8>> {
        let open = "msg 01 04 S 005a 0a000002 [ K ]";
        let classic = format!("update ; G c0 08 [ {BEFORE:08x} ] ; I P1 I P2 I P3");
        let multiprotocol =
            format!("update ; 80 0e [ 0002 01 [ T ] 00 I Q1 I Q2 I Q3 ] O A L c0 08 [ {BEFORE:08x} ] ;");
        let octets = |messages: &[&str]| {
            messages
                .iter()
                .flat_map(|message| self.message(message))
                .collect()
        };
        let established = ["msg 04", &classic, &multiprotocol];
        match self.phase() {
            Phase::OpenSent => vec![Vec::new()],
            Phase::OpenConfirm => vec![octets(&[open])],
            Phase::Established => {
                let announced = &established[..if self.ipv6() { 3 } else { 2 }];
                let mut preludes = vec![octets(&[&[open], announced].concat())];
                preludes.extend(self.has("restarted").then(|| octets(&[open, "msg 04"])));
                preludes
            }
        }
    }

    /// An UPDATE to see that the session goes on: it announces 10.10.10.0/24.
    pub(crate) fn sequel(&self) -> Vec<u8> {
        self.message("update ; G ; I 18 0a0a0a")
    }

    /// The prefix that is announced last before the case.
    pub(crate) fn last_before(&self) -> Option<&'static str> {
        let mut before = PREFIXES.iter().filter(|(name, ..)| self.has_before(name));
        before.next_back().map(|(_, prefix, _)| *prefix)
    }

    /// Whether a prefix is announced before the case.
    pub(super) fn has_before(&self, name: &str) -> bool {
        let announced = !name.ends_with('9') && (self.ipv6() || name.starts_with('P'));
        self.phase() == Phase::Established && announced
    }

    /// The octets of messages, as the fourth column has them.
    fn messages(&self, text: &str) -> Vec<u8> {
        text.split(" + ")
            .flat_map(|message| self.message(message.trim()))
            .collect()
    }

    fn message(&self, text: &str) -> Vec<u8> {
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        match kind {
            "raw" => self.assemble(rest),
            "msg" => {
                let body = self.assemble(rest);
                let length = u16::try_from(18 + body.len()).unwrap();
                [&[0xff; 16][..], &length.to_be_bytes(), &body].concat()
            }
            "update" => {
                let [withdrawn, attributes, nlri] = rest.split(';').collect::<Vec<_>>()[..] else {
                    panic!("an UPDATE of three fields: {text}");
                };
                self.message(&format!("msg 02 [[ {withdrawn} ]] [[ {attributes} ]] {nlri}"))
            }
            _ => panic!("no such message: {kind}"),
        }
    }

    fn assemble(&self, text: &str) -> Vec<u8> {
        let mut words = text.split_whitespace();
        let octets = self.group(&mut words, None);
        assert_eq!(words.next(), None, "{text}");
        octets
    }

    /// The octets up to the word that ends a group, or up to the end.
    fn group(&self, words: &mut SplitWhitespace<'_>, end: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let Some(word) = words.next() else {
                assert_eq!(end, None, "a group ends");
                return out;
            };
            match word {
                _ if Some(word) == end => return out,
                "[" => {
                    let inner = self.group(words, Some("]"));
                    out.push(u8::try_from(inner.len()).unwrap());
                    out.extend(inner);
                }
                "[[" => {
                    let inner = self.group(words, Some("]]"));
                    out.extend(u16::try_from(inner.len()).unwrap().to_be_bytes());
                    out.extend(inner);
                }
                _ if let Some(times) = word.strip_suffix("*(") => {
                    let inner = self.group(words, Some(")"));
                    out.extend(inner.repeat(times.parse().unwrap()));
                }
                _ => match self.named(word) {
                    Some(text) => out.extend(self.assemble(&text)),
                    None => out.extend(hex(word)),
                },
            }
        }
    }

    /// What a name stands for.
    fn named(&self, name: &str) -> Option<String> {
        let text = match name {
            "M" => "16*( ff )",
            "O" => "40 01 [ 00 ]",
            "A" => "40 02 [ 02 01 H ]",
            "N" => "40 03 [ 0a000002 ]",
            "L" if self.external => "",
            "L" => "40 05 [ 00000064 ]",
            "G" => "O A N L",
            "H" if self.has("old") => self.either("fdea", "fde8"),
            "H" => self.either("0000fdea", "0000fde8"),
            "S" => self.either("fdea", "fc00"),
            "T" => "20010db8 0000000000000000 00000002",
            "R" => "80 0e [ 0002 01 [ T ] 00 Q1 ]",
            "W" => "80 0f [ 0002 01 Q1 ]",
            "I" if self.has("addpath") => "00000009",
            "I" => "",
            "K" => return Some(format!("02 [ {} ]", self.capabilities())),
            _ => return octets_of(name),
        };
        Some(text.to_owned())
    }

    fn either(&self, external: &'static str, internal: &'static str) -> &'static str {
        if self.external { external } else { internal }
    }

    /// What peer 2 offers.
    fn capabilities(&self) -> String {
        let role = match self.role() {
            Some(Role::Provider) if !self.has("opensent") => "0901 03",
            Some(Role::Customer) if !self.has("opensent") => "0901 00",
            Some(Role::RouteServer) if !self.has("opensent") => "0901 02",
            Some(Role::Peer) if !self.has("opensent") => "0901 04",
            _ => "",
        };
        let offered = [
            (true, "0104 0001 0001 0200 4600"),
            (self.ipv6(), "0104 0002 0001"),
            (!self.has("old"), "4104 0000 S"),
            (self.has("addpath"), "4508 0001 0103 0002 0103"),
            (self.has("ext"), "0600"),
            (self.has("nh6"), "0506 0001 0001 0002"),
            (self.has("restarted"), "400a 8078 0001 0180 0002 0180"),
            (true, role),
        ];
        let texts = offered.iter().filter(|(has, _)| *has).map(|(_, text)| *text);
        texts.collect::<Vec<_>>().join(" ")
    }
}

/// The NLRI of a prefix by its name.
fn octets_of(name: &str) -> Option<String> {
    let prefix = PREFIXES.iter().find(|prefix| prefix.0 == name)?;
    Some(prefix.2.to_owned())
}
