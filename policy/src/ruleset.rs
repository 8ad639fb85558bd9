//! Rules and sets: the words that engine, plan and text have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use manx_api::policy::{Family, Icmp, Not, PortRange, Protocol};
use sha1::{Digest as _, Sha1};

/// What the comment of each rule of ours begins with.
pub(crate) const MARK: &str = "manx:";

/// What the name of each chain of ours begins with.
pub const CHAIN_PREFIX: &str = "manx-";

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Before connection tracking.
    Raw,
    /// After it, and before destination NAT.
    Mangle,
    /// Consulted for the first packet of each connection only; conntrack treats the others alike.
    Nat,
    /// Where most is decided.
    Filter,
}

impl Table {
    /// All that we may have chains in.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    /// What iptables calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// How a set takes an address that a member contains; the most specific member has the say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sense {
    /// The address is in the set.
    Match,
    /// It is not: an exception from a wider member.
    Except,
}

/// What a set's members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKind {
    /// Networks.
    Nets,
    /// Networks, each behind an interface. The kernel takes one network behind at most 64 interfaces.
    NetsBehind,
    /// Addresses, each with a protocol and a port.
    Ports,
}

impl SetKind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Nets, Self::NetsBehind, Self::Ports];

    /// What ipset calls it.
    #[must_use]
    pub const fn ipset_name(self) -> &'static str {
        match self {
            Self::Nets => "hash:net",
            Self::NetsBehind => "hash:net,iface",
            Self::Ports => "hash:ip,port",
        }
    }
}

/// A member of a set. Networks have no host bits, and none is of length 0, which the kernel does not take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// Of [`SetKind::Nets`].
    Net(IpNetwork),
    /// Of [`SetKind::NetsBehind`].
    NetBehind(IpNetwork, Arc<str>),
    /// Of [`SetKind::Ports`]; the protocol has ports.
    Port(IpAddr, Protocol, u16),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::NetBehind(net, interface) => write!(f, "{net},{interface}"),
            Self::Port(address, protocol, port) => {
                write!(f, "{address},{}:{port}", port_protocol(*protocol))
            }
        }
    }
}

/// What iptables and ipset call a protocol that has ports.
const fn port_protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::SCTP => "sctp",
        _ => "udplite",
    }
}

/// The family that a set of ours is of by its name; none for others' sets.
#[must_use]
pub fn family_of_set(name: &str) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|family| name.starts_with(&family.set_name("")))
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The family of all its members.
    pub family: Family,
    /// What they are.
    pub kind: SetKind,
    /// Its members, all of its kind.
    pub members: BTreeMap<Member, Sense>,
}

/// Which chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId {
    /// Each family has chains of its own.
    pub family: Family,
    /// In which table.
    pub table: Table,
    /// `manx-…`, 28 characters at most.
    pub name: String,
}

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

impl End {
    const fn in_sets(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }
}

/// What a packet must be like for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It came in (`Source`) or goes out (`Destination`) by an interface of this name; with a `+` at its end, by one
    /// whose name begins so.
    Interface(End, String),
    /// Its protocol.
    Protocol(Not<Protocol>),
    /// Its address is in this network.
    Address(End, Not<IpNetwork>),
    /// Its address is in the set of this name: with the interface or the port, where members have one.
    In(End, SetKind, Not<String>),
    /// Its destination is in the set of this name, behind the interface that it came in by.
    ToItself(String),
    /// Its port is one of these, which are at most 15, ranges counted twice. Its protocol is matched before.
    Ports(End, Not<Vec<PortRange>>),
    /// It is such a message of the family's ICMP. Its protocol is matched before.
    Icmp(Family, Not<Icmp>),
    /// What it is to the tracked connections.
    Connection(Connection),
    /// Of the bits of its mark, those of the mask are these.
    Mark {
        /// These.
        value: u32,
        /// Of these.
        mask: u32,
    },
    /// There were not more such packets lately.
    Limit {
        /// Packets each second, after a burst of five times as many.
        per_second: u16,
    },
}

/// What a packet is to the tracked connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It belongs to one that was let through, or is an error about one.
    Known,
    /// It cannot be said: it belongs to none and begins none.
    Invalid,
    /// It is not tracked: somebody wanted that, or it is neighbour discovery.
    Untracked,
}

/// A condition's sign in front of an option.
const fn sign<T>(condition: &Not<T>) -> (&'static str, &T) {
    match condition {
        Not::Is(value) => ("", value),
        Not::Not(value) => ("! ", value),
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(End::Source, name) => write!(f, "-i {name}"),
            Self::Interface(End::Destination, name) => write!(f, "-o {name}"),
            Self::Protocol(protocol) => {
                let (not, protocol) = sign(protocol);
                write!(f, "{not}-p {}", protocol.0)
            }
            Self::Address(end, net) => {
                let (not, net) = sign(net);
                let option = match end {
                    End::Source => "-s",
                    End::Destination => "-d",
                };
                write!(f, "{not}{option} {net}")
            }
            Self::In(end, kind, set) => {
                let ((not, set), end) = (sign(set), end.in_sets());
                write!(f, "-m set {not}--match-set {set} {end}")?;
                match kind {
                    SetKind::Nets => Ok(()),
                    SetKind::NetsBehind | SetKind::Ports => write!(f, ",{end}"),
                }
            }
            Self::ToItself(set) => write!(f, "-m set --match-set {set} dst,src"),
            Self::Ports(end, ports) => {
                let (not, ports) = sign(ports);
                let option = match end {
                    End::Source => "--sports",
                    End::Destination => "--dports",
                };
                let ports: Vec<String> = ports.iter().map(port_text).collect();
                write!(f, "-m multiport {not}{option} {}", ports.join(","))
            }
            Self::Icmp(family, icmp) => {
                let (not, icmp) = sign(icmp);
                match family {
                    Family::V4 => write!(f, "-m icmp {not}--icmp-type {}", icmp.kind)?,
                    Family::V6 => write!(f, "-m icmp6 {not}--icmpv6-type {}", icmp.kind)?,
                }
                icmp.code.map_or(Ok(()), |code| write!(f, "/{code}"))
            }
            Self::Connection(Connection::Known) => f.write_str("-m conntrack --ctstate ESTABLISHED,RELATED"),
            Self::Connection(Connection::Invalid) => f.write_str("-m conntrack --ctstate INVALID"),
            Self::Connection(Connection::Untracked) => f.write_str("-m conntrack --ctstate UNTRACKED"),
            Self::Mark { value, mask } => write!(f, "-m mark --mark {value:#x}/{mask:#x}"),
            Self::Limit { per_second } => {
                let burst = u32::from(*per_second) * 5;
                write!(f, "-m limit --limit {per_second}/sec --limit-burst {burst}")
            }
        }
    }
}

fn port_text(range: &PortRange) -> String {
    let PortRange { first, last } = range;
    if first == last {
        first.to_string()
    } else {
        format!("{first}:{last}")
    }
}

/// What becomes of a packet that a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It gets the address of the interface that it leaves by, and a source port that nobody can guess: two
    /// processors that pick ports at the same moment do not pick the same one.
    Masquerade,
    /// The chain of this name is asked; if it does not decide, the next rule.
    Jump(String),
    /// The chain of this name is asked; if it does not decide, whoever jumped here goes on.
    Goto(String),
    /// It is let through.
    Accept,
    /// It is dropped.
    Drop,
    /// Whoever jumped here goes on.
    Return,
    /// Of its mark, the bits of the mask become these; the next rule is asked.
    SetMark {
        /// These.
        value: u32,
        /// In place of these.
        mask: u32,
    },
    /// A copy goes to a group of listeners (NFLOG); the next rule is asked.
    Log {
        /// The group.
        group: u16,
        /// What stands before it: at most 63 characters, none that would need quotes.
        prefix: String,
    },
    /// Its connection is not tracked.
    NoTrack,
}

impl Target {
    /// The chain that it leads into.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Masquerade
            | Self::Accept
            | Self::Drop
            | Self::Return
            | Self::SetMark { .. }
            | Self::Log { .. }
            | Self::NoTrack => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("-j MASQUERADE --random-fully"),
            Self::Jump(chain) => write!(f, "-j {chain}"),
            Self::Goto(chain) => write!(f, "-g {chain}"),
            Self::Accept => f.write_str("-j ACCEPT"),
            Self::Drop => f.write_str("-j DROP"),
            Self::Return => f.write_str("-j RETURN"),
            Self::SetMark { value, mask } => write!(f, "-j MARK --set-xmark {value:#x}/{mask:#x}"),
            Self::Log { group, prefix } => {
                write!(f, "-j NFLOG --nflog-group {group} --nflog-prefix {prefix}")
            }
            Self::NoTrack => f.write_str("-j CT --notrack"),
        }
    }
}

/// A rule: all matches hold, so the target applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the packet must be like.
    pub matches: Vec<Match>,
    /// What becomes of it.
    pub target: Target,
}

impl Rule {
    /// What tells this rule from every other in its chain, and from what an older Manx wrote there: programs
    /// print rules in words of their own, but comments as they are.
    #[must_use]
    pub fn hash(&self, chain: &str) -> String {
        self.hash_with(chain, &self.conditions())
    }

    /// The rule as iptables takes it behind `-A`: chain, matches, our mark, target.
    #[must_use]
    pub fn words(&self, chain: &str) -> String {
        let conditions = self.conditions();
        let hash = self.hash_with(chain, &conditions);
        let conditions: String = conditions.iter().flat_map(|part| [part.as_str(), " "]).collect();
        let target = &self.target;
        format!("{chain} {conditions}-m comment --comment \"{MARK}{hash}\" {target}")
    }

    fn conditions(&self) -> Vec<String> {
        self.matches.iter().map(ToString::to_string).collect()
    }

    fn hash_with(&self, chain: &str, conditions: &[String]) -> String {
        let target = self.target.to_string();
        let parts = [chain, &target].into_iter();
        let parts: Vec<&str> = parts.chain(conditions.iter().map(String::as_str)).collect();
        short_hash(&parts.join("\n"))
    }

    /// The sets that it names.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.matches.iter().filter_map(|part| match part {
            Match::In(_, _, Not::Is(set) | Not::Not(set)) | Match::ToItself(set) => Some(set.as_str()),
            Match::Interface(..)
            | Match::Protocol(_)
            | Match::Address(..)
            | Match::Ports(..)
            | Match::Icmp(..)
            | Match::Connection(_)
            | Match::Mark { .. }
            | Match::Limit { .. } => None,
        })
    }
}

/// 16 hexadecimal characters that stand for a text.
pub(crate) fn short_hash(text: &str) -> String {
    let digest = Sha1::digest(text);
    let digits = digest.iter().take(8).flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// A rule in a chain of the kernel's that leads into one of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Ours.
    pub chain: ChainId,
    /// The kernel's: `POSTROUTING`.
    pub base: &'static str,
}

impl Hook {
    /// The rule in the kernel's chain.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule {
            matches: Vec::new(),
            target: Target::Jump(self.chain.name.clone()),
        }
    }
}

/// All rules and sets that are wanted on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// Sets by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains, each with its rules in order.
    pub chains: BTreeMap<ChainId, Vec<Rule>>,
    /// What leads into them.
    pub hooks: BTreeSet<Hook>,
}
