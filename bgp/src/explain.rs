//! Why a prefix is reached as it is, and why each peer is told of it or not: the rules themselves, asked again.

use crate::export::{Denial, Target};
use crate::filter::{Community, Step, Verdict};
use crate::import;
use crate::rib::{Path, PrefixId, Rib};
use crate::status::PathSnapshot;
use crate::{Family, PeerKey, Prefix};

/// What there is to say of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Which prefix.
    pub prefix: Prefix,
    /// Every path, the best first.
    pub paths: Vec<ExplainedPath>,
    /// Every configured peer, in order of key.
    pub peers: Vec<ExplainedPeer>,
}

/// A path, with the step at which it lost or why it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedPath {
    /// The path as it is used.
    pub path: PathSnapshot,
    /// The import rule that decided; absent where a default did, and for our own prefixes.
    pub rule: Option<RuleName>,
}

/// What a peer is told of the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedPeer {
    /// Who.
    pub peer: PeerKey,
    /// The peer has the prefix from us, as of now.
    pub advertised: bool,
    /// The export rule that decided.
    pub rule: Option<RuleName>,
    /// Why it is not told.
    pub reason: Option<String>,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// The filter.
    pub filter: String,
    /// The list in it: `importV4` and the like.
    pub list: &'static str,
    /// The place in the list, from 0.
    pub index: usize,
}

impl std::fmt::Display for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}[{}]", self.filter, self.list, self.index)
    }
}

impl RuleName {
    fn of(step: &Step, family: Family, import: bool) -> Self {
        let list = match (family, import) {
            (Family::Ipv4Unicast, true) => "importV4",
            (Family::Ipv4Unicast, false) => "exportV4",
            (Family::Ipv6Unicast, true) => "importV6",
            (Family::Ipv6Unicast, false) => "exportV6",
        };
        Self {
            filter: step.filter.to_string(),
            list,
            index: step.index,
        }
    }

    pub(crate) fn of_import(verdict: Verdict<'_>, family: Family) -> Option<Self> {
        verdict.step.map(|step| Self::of(step, family, true))
    }

    fn of_export(verdict: Verdict<'_>, family: Family) -> Option<Self> {
        verdict.step.map(|step| Self::of(step, family, false))
    }
}

/// What a peer with a session is told of a prefix, and why not.
pub(crate) fn told(
    peer: PeerKey,
    target: &Target<'_>,
    id: PrefixId,
    prefix: Prefix,
    rib: &Rib,
) -> ExplainedPeer {
    let family = prefix.family();
    let silent = |rule, reason: String| ExplainedPeer {
        peer,
        advertised: false,
        rule,
        reason: Some(reason),
    };
    let mut answer = silent(None, "no path to it can be used".to_owned());
    for path in target.candidates(id, family, rib) {
        match target.admit(prefix, path) {
            Ok(verdict) => {
                let rule = RuleName::of_export(verdict, family);
                let route = target.route(family, path.from.as_deref(), &path.route, verdict.operations());
                if route.is_some() {
                    return ExplainedPeer {
                        peer,
                        advertised: true,
                        rule,
                        reason: None,
                    };
                }
                answer = silent(rule, format!("we have no next hop of {family} for the peer"));
            }
            Err(denial) => {
                let rule = if let Denial::Policy(verdict) = denial {
                    RuleName::of_export(verdict, family)
                } else {
                    None
                };
                answer = silent(rule, words(denial));
            }
        }
    }
    answer
}

/// What import makes of a path as it came.
pub(crate) fn imported<'a>(
    local: &crate::Config,
    policy: &'a crate::Policy,
    prefix: Prefix,
    path: &Path,
) -> Option<Verdict<'a>> {
    let from = path.from.as_deref()?;
    Some(import::judge(local, policy, from, prefix, &path.received))
}

fn words(denial: Denial<'_>) -> String {
    match denial {
        Denial::Family => "the session does not carry the family".to_owned(),
        Denial::Own => "the peer announced it to us".to_owned(),
        Denial::NotReflected => "it came by iBGP, and neither side is our client".to_owned(),
        Denial::Community(community) => format!("it carries {}", Community::Standard(community)),
        Denial::Drained => "the session is drained: its routes have been withdrawn".to_owned(),
        Denial::LongLivedStale => {
            "it is long-lived stale, and the peer did not announce long-lived graceful restart (RFC 9494)"
                .to_owned()
        }
        Denial::Leak => {
            "it would be a route leak: it came from a provider, a peer or a route server (RFC 9234)"
                .to_owned()
        }
        Denial::Policy(_) => "the export policy refuses it".to_owned(),
    }
}
