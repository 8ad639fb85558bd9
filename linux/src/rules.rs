//! The kernel's rules and sets, kept as wanted: the whole of a policy task but its loop.
//!
//! ```ignore
//! let mut rules = Rules::start_in(&Netns::current()?, None);
//! loop {
//!     tokio::select! {
//!         updates = news.recv() => rules.apply(updates?).await,
//!         () = rules.disturbed() => rules.check().await,
//!         () = tokio::time::sleep(INTERVAL) => rules.check().await,
//!     }?;
//! }
//! ```
//!
//! What is to be written is said by `manx_policy`; here it meets the kernel's sets and the programs that write rules.
//! A news that needs no rule changed starts no program. Nothing is taken away when the owner ends: rules outlive it, and
//! the next life takes over what it finds.

use std::collections::{BTreeMap, BTreeSet};

use manx_policy::{
    Change, Delta, Engine, Family, Full, Held, Needs, SetChange, Transaction, Trial, Update, packets, plan,
};

use crate::disturbance::Watcher;
use crate::error::{Error, Result};
use crate::ipset::SetSocket;
use crate::iptables::{self, Backend, Tables};
use crate::netns::Netns;

/// Keeps the rules and sets of a namespace as wanted. One owner per namespace.
#[derive(Debug)]
pub struct Rules {
    netns: Netns,
    sets: Option<SetSocket>,
    /// The back end that the user chose; none for the one that the node uses.
    setting: Option<Backend>,
    /// The back end that our rules are in, while there are any.
    backend: Option<Backend>,
    engine: Engine,
    /// What the kernel holds is what was last wanted, as far as we know.
    known: bool,
    /// Sets have all the members that they should, even if rules were refused.
    members: bool,
    /// Tells of others' hands on our rules, while there are any in nftables.
    watcher: Option<Watcher>,
}

impl Rules {
    /// Wants nothing, and does not touch what an earlier life left before [`Self::apply`] or [`Self::check`]. The
    /// back end is the one of the setting, or else the one that the node uses.
    #[must_use]
    pub fn start_in(netns: &Netns, setting: Option<Backend>) -> Self {
        Self {
            netns: netns.clone(),
            sets: None,
            setting,
            backend: None,
            engine: Engine::new(),
            known: false,
            members: false,
            watcher: None,
        }
    }

    /// Takes in news, and makes the kernel follow them; returns how many changes that took. After an error the
    /// next call makes up for it.
    ///
    /// # Errors
    /// [`Error::Program`] with the line that was refused, [`Error::Refused`] with the change of a set,
    /// [`Error::NoProgram`], [`Error::Late`].
    pub async fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Result<usize> {
        let delta = self.engine.apply(updates);
        self.members = false;
        match self.backend {
            Some(backend) if self.known => {
                self.known = false;
                let changes = delta.len();
                self.carry_out(delta, backend).await?;
                self.settled(Some(backend));
                Ok(changes)
            }
            _ => self.check().await,
        }
    }

    /// Reads back what the kernel holds, in both back ends, and mends what is not as wanted; returns how many
    /// changes that took. Where nothing is wanted and nothing was left, no table is read.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn check(&mut self) -> Result<usize> {
        if self.known && self.engine.wants_nothing() {
            return Ok(0);
        }
        let wanted = self.engine.snapshot();
        self.known = false;
        // That comes before reading: what happens meanwhile is not lost.
        self.watch();
        let sets = Held {
            sets: self.sets()?.list()?,
            ..Held::default()
        };
        // Sets come before the rules and go after them: without sets, there are no rules.
        if wanted == Full::default() && sets.is_empty() {
            self.settled(None);
            return Ok(0);
        }
        let tables = self.read_tables().await?;
        let backend = self.choose(&tables).await?;
        let changes = match backend {
            Some(backend) => self.mend(&wanted, (sets, tables), backend).await?,
            None if wanted == Full::default() => 0,
            None => return Err(Error::NoProgram(Backend::Nft.restore(Family::V4))),
        };
        self.settled(backend);
        Ok(changes)
    }

    /// How many packets have met each rule of the chains that count what staged policies would do. Where there is
    /// none, no program is run.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn trials(&self) -> Result<Vec<(Trial, Vec<u64>)>> {
        let (trials, Some(backend)) = (self.engine.trials(), self.backend) else {
            return Ok(Vec::new());
        };
        let mut counted = BTreeMap::new();
        let of = |trial: &Trial| (trial.chain.family, trial.chain.table);
        for (family, table) in trials.iter().map(of).collect::<BTreeSet<_>>() {
            let text = iptables::counters(&self.netns, backend, family, table).await?;
            counted.insert((family, table), packets(table, &text));
        }
        let with_packets = |trial: Trial| {
            let chains = counted.get(&of(&trial));
            let packets = chains.and_then(|chains| chains.get(&trial.chain.name));
            let packets = packets.cloned().unwrap_or_default();
            (trial, packets)
        };
        Ok(trials.into_iter().map(with_packets).collect())
    }

    /// Waits until somebody else may have changed our rules: check then. Of the legacy back end and of
    /// sets nothing is heard. Nothing is lost if the future is dropped.
    pub async fn disturbed(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            match watcher.disturbed().await {
                Ok(()) => return,
                Err(error) => self.stop_watching(&error),
            }
        }
        std::future::pending().await
    }

    /// Whether a pod of this node has all that it needs, also after an error: nothing, or sets alone.
    #[must_use]
    pub fn serve(&self, pod: &str) -> bool {
        match self.engine.needs(pod) {
            Needs::Nothing => true,
            Needs::Sets => self.members,
            Needs::Rules => self.known,
        }
    }

    /// Everything that is wanted, and why.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The back end that our rules are in, while there are any.
    #[must_use]
    pub const fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// All is as wanted. Where that is nothing, the next rules ask anew which back end the node uses.
    fn settled(&mut self, backend: Option<Backend>) {
        self.known = true;
        self.members = true;
        self.backend = backend.filter(|_| !self.engine.wants_nothing());
        self.watch();
    }

    /// Watches nftables while there may be rules of ours.
    fn watch(&mut self) {
        if self.engine.wants_nothing() || self.setting == Some(Backend::Legacy) {
            self.watcher = None;
        } else if self.watcher.is_none() {
            let opened = Watcher::open_in(&self.netns);
            // A kernel without nftables has nothing to tell.
            let opened = opened.inspect_err(|error| tracing::debug!(%error, "nftables is not watched"));
            self.watcher = opened.ok();
        }
    }

    /// Passes over what a program of ours did to nftables.
    fn pass_over(&mut self, process: u32) {
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.pass_over(process)
        {
            self.stop_watching(&error);
        }
    }

    fn stop_watching(&mut self, error: &Error) {
        tracing::warn!(%error, "nftables is not watched any more until the next check");
        self.watcher = None;
    }

    /// The way to sets, opened where it is first needed.
    fn sets(&mut self) -> Result<&mut SetSocket> {
        match &mut self.sets {
            Some(socket) => Ok(socket),
            closed => Ok(closed.insert(SetSocket::open_in(&self.netns)?)),
        }
    }

    async fn read_tables(&self) -> Result<Vec<Tables>> {
        let mut tables = Vec::new();
        for backend in Backend::ALL {
            tables.extend(Tables::read(&self.netns, backend).await?);
        }
        Ok(tables)
    }

    /// The back end for our rules; none where no program of iptables is installed.
    async fn choose(&self, found: &[Tables]) -> Result<Option<Backend>> {
        if self.setting.is_some() || found.is_empty() {
            return Ok(self.setting);
        }
        match iptables::choose(found, self.backend) {
            None => iptables::of_command(&self.netns).await.map(Some),
            chosen => Ok(chosen),
        }
    }

    /// Makes what was found what is wanted: our rules in `backend`, and none of ours elsewhere.
    async fn mend(
        &mut self,
        wanted: &Full,
        (mut held, tables): (Held, Vec<Tables>),
        backend: Backend,
    ) -> Result<usize> {
        let mut strays = Vec::new();
        for tables in tables {
            let mut elsewhere = Held::default();
            let into = if tables.backend == backend {
                &mut held
            } else {
                &mut elsewhere
            };
            for (family, text) in &tables.text {
                into.read_rules(*family, text).map_err(malformed)?;
            }
            if !elsewhere.is_empty() {
                strays.push((tables.backend, plan(&Full::default(), &elsewhere)));
            }
        }
        let delta = plan(wanted, &held);
        let mut changes = delta.len();
        let (gains, losses) = split(delta);
        self.carry_out(gains, backend).await?;
        for (backend, stray) in strays {
            tracing::info!(?backend, "our rules in the other back end go");
            changes += stray.len();
            self.carry_out(stray, backend).await?;
        }
        // Sets belong to no back end: they go when no rule of either needs them.
        self.carry_out(losses, backend).await?;
        Ok(changes)
    }

    /// Makes the changes. A family whose rules are refused does not keep the other's from being written, unless for a
    /// lock of both; but nothing that rules may still need is taken away then.
    async fn carry_out(&mut self, changes: impl IntoIterator<Item = Change>, backend: Backend) -> Result<()> {
        let transaction = Transaction::of(changes);
        self.change_sets(&transaction.before).await?;
        self.members = true;
        let mut refused = None;
        for (family, rules) in &transaction.rules {
            match iptables::restore(&self.netns, backend, *family, rules).await {
                Ok(process) => self.pass_over(process),
                Err(error) => {
                    tracing::warn!(%family, ?backend, %error, "rules are refused");
                    let locked_out = iptables::is_locked_out(&error);
                    refused.get_or_insert(error);
                    if locked_out {
                        break;
                    }
                }
            }
        }
        refused.map_or(Ok(()), Err)?;
        self.change_sets(&transaction.after).await
    }

    async fn change_sets(&mut self, mut changes: &[SetChange]) -> Result<()> {
        while !changes.is_empty() {
            let made = self.sets()?.advance(changes)?;
            changes = &changes[made..];
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// What sets lose, apart.
fn split(delta: Delta) -> (Delta, Delta) {
    delta
        .into_iter()
        .partition(|change| !matches!(change, Change::RemoveMember { .. } | Change::DestroySet { .. }))
}

fn malformed(line: manx_policy::Unreadable) -> Error {
    Error::Malformed(line.to_string())
}
