//! iptables' two back ends: which one a node uses, and their programs.
//!
//! Both may be there at once, each with tables of its own that the kernel consults one after the other. Rules
//! belong where the rest of the node's are, or whoever looks for them does not see them.

use manx_policy::{Family, Table};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::program;

/// Chains by which a kubelet tells others which back end it uses (since Kubernetes 1.24 and 1.17).
const HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];

/// How long a program waits for others to finish their changes, in seconds. A pod that no rule concerns waits for such
/// a program once or twice.
const LOCK_WAIT: &str = "2";

/// A back end of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The tables of nftables.
    Nft,
    /// The kernel's old tables.
    Legacy,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// Prints all tables that exist, and makes none.
    const fn save(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft-save",
            (Self::Nft, Family::V6) => "ip6tables-nft-save",
            (Self::Legacy, Family::V4) => "iptables-legacy-save",
            (Self::Legacy, Family::V6) => "ip6tables-legacy-save",
        }
    }

    /// Reads text and does what it says, a table at a time.
    pub(crate) const fn restore(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft-restore",
            (Self::Nft, Family::V6) => "ip6tables-nft-restore",
            (Self::Legacy, Family::V4) => "iptables-legacy-restore",
            (Self::Legacy, Family::V6) => "ip6tables-legacy-restore",
        }
    }
}

/// What a back end holds, as its programs print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) backend: Backend,
    /// The text of each family.
    pub(crate) text: [(Family, String); 2],
}

impl Tables {
    /// Reads what a back end holds; none where its programs are not installed.
    pub(crate) async fn read(netns: &Netns, backend: Backend) -> Result<Option<Self>> {
        let mut text = Family::ALL.map(|family| (family, String::new()));
        for (family, text) in &mut text {
            match program::run(netns, backend.save(*family), [""; 0], "").await {
                Ok(done) => *text = done.printed,
                Err(Error::NoProgram(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self { backend, text }))
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.iter().flat_map(|(_, text)| text.lines())
    }

    fn has_hint(&self) -> bool {
        self.lines()
            .any(|line| HINTS.iter().any(|hint| line.starts_with(hint)))
    }

    /// How many rules others have here.
    fn others_rules(&self) -> usize {
        self.lines()
            .filter(|line| line.starts_with("-A ") && !line.contains("manx-"))
            .count()
    }
}

/// The back end that the node uses, among those whose programs it has: the one that the kubelet points to; without a
/// kubelet, the one that was chosen before, or else the one with more of others' rules; none if that does not tell.
pub(crate) fn choose(found: &[Tables], before: Option<Backend>) -> Option<Backend> {
    let [first, others @ ..] = found else {
        return None;
    };
    let [second] = others else {
        return Some(first.backend);
    };
    let hinted = found.iter().find(|tables| tables.has_hint());
    let (one, other) = (first.others_rules(), second.others_rules());
    match hinted {
        Some(tables) => Some(tables.backend),
        None if before.is_some() => before,
        None if one > other => Some(first.backend),
        None if one < other => Some(second.backend),
        None => None,
    }
}

/// The back end of the node's own `iptables`, which whoever types commands uses.
pub(crate) async fn of_command(netns: &Netns) -> Result<Backend> {
    let version = program::run(netns, "iptables", ["--version"], "").await?.printed;
    Ok(if version.contains("legacy") {
        Backend::Legacy
    } else {
        Backend::Nft
    })
}

/// A table of a family with its rules' counters, as `iptables-save -c` prints it.
pub(crate) async fn counters(
    netns: &Netns,
    backend: Backend,
    family: Family,
    table: Table,
) -> Result<String> {
    let words = ["-c", "-t", table.name()];
    let done = program::run(netns, backend.save(family), words, "").await?;
    Ok(done.printed)
}

/// Does what the text says to one family's tables; returns the number of the process that did it.
pub(crate) async fn restore(netns: &Netns, backend: Backend, family: Family, text: &str) -> Result<u32> {
    let arguments = ["--noflush", "-w", LOCK_WAIT];
    program::run(netns, backend.restore(family), arguments, text)
        .await
        .map(|done| done.process)
}

/// Whether a program gave up because another one kept the lock that all of the legacy back end share.
pub(crate) fn is_locked_out(error: &Error) -> bool {
    matches!(error, Error::Program { said, .. } if said.contains("holding the xtables lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(backend: Backend, text: &str) -> Tables {
        let text = [(Family::V4, text.to_owned()), (Family::V6, String::new())];
        Tables { backend, text }
    }

    #[test]
    fn the_kubelet_decides_then_the_past_then_the_others_rules() {
        const HINT: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        const RULES: &str = "*nat\n-A POSTROUTING -j A\n-A POSTROUTING -j B\nCOMMIT\n";
        const RULE: &str = "*nat\n-A POSTROUTING -j A\nCOMMIT\n";
        const OURS: &str = "*nat\n-A POSTROUTING -j manx-nat-out\n-A manx-nat-out -j MASQUERADE\nCOMMIT\n";
        let (nft, legacy) = (Some(Backend::Nft), Some(Backend::Legacy));
        for (in_nft, in_legacy, before, chosen) in [
            (HINT, RULES, None, nft),
            (RULES, HINT, nft, legacy),
            (HINT, HINT, legacy, nft),
            (RULES, RULE, None, nft),
            (RULE, RULES, None, legacy),
            (RULE, RULES, nft, nft),
            (OURS, RULE, None, legacy),
            (RULE, RULE, None, None),
            (OURS, "", None, None),
            ("", "", legacy, legacy),
        ] {
            let found = [tables(Backend::Nft, in_nft), tables(Backend::Legacy, in_legacy)];
            assert_eq!(choose(&found, before), chosen, "{in_nft} {in_legacy} {before:?}");
        }
        assert_eq!(
            choose(&[tables(Backend::Legacy, "")], None),
            legacy,
            "the only one there"
        );
        assert_eq!(choose(&[], nft), None);
    }
}
