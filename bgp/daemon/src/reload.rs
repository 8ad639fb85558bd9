//! Live reconfiguration of `manx-bgpd`: a file is read again, and the speaker is told what differs.
//!
//! A neighbour whose settings are as they were notices nothing. One whose settings changed keeps its session
//! where the change allows it ([`Input::SetPeer`](manx_bgp::Input::SetPeer)); `docs/manx-bgpd.md` has the table.
//! A file that is wrong, or that changes what only a start can change, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use manx_api::status::Reload;
use manx_bgp::{PeerConfig, PeerKey, Prefix, RangeConfig};

use crate::config::{Collector, ConfigError, Settings};
use crate::{Handle, LinkKey, LinkPeer};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no configuration.
    #[error("{}:{error}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Where and why.
        error: ConfigError,
    },
    /// It changes what holds from the start of the process to its end.
    #[error(
        "{}:{line}: '{field}' cannot change while the speaker runs: restart manx-bgpd, or write what it was",
        path.display()
    )]
    Fixed {
        /// Which.
        path: PathBuf,
        /// From 1; the first where the field is not at the beginning of a line.
        line: usize,
        /// Which field.
        field: &'static str,
    },
}

/// A running speaker, and the file that it runs by.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    path: PathBuf,
    settings: Settings,
    peers: BTreeMap<PeerKey, PeerConfig>,
    link_peers: BTreeMap<LinkKey, LinkPeer>,
    ranges: BTreeMap<Prefix, RangeConfig>,
    routes: BTreeSet<Prefix>,
}

/// Reads a configuration.
///
/// # Errors
/// The file cannot be read, or its first mistake with its place.
pub fn read(path: &Path) -> Result<Settings, FileError> {
    parse(path, &text(path)?)
}

fn text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

fn parse(path: &Path, text: &str) -> Result<Settings, FileError> {
    Settings::parse(text).map_err(|error| FileError::Config {
        path: path.to_owned(),
        error,
    })
}

impl Running {
    /// Tells a new speaker what the file asks for.
    pub async fn start(handle: Handle, path: &Path, settings: Settings) -> Self {
        let mut running = Self {
            handle,
            path: path.to_owned(),
            settings: settings.clone(),
            peers: BTreeMap::new(),
            link_peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            routes: BTreeSet::new(),
        };
        running.apply(settings).await;
        running
    }

    /// Reads the file again and tells the speaker what differs. When this returns, a peer that was added finds
    /// us.
    ///
    /// # Errors
    /// As for [`read`], or the file changes what only a start can change; nothing has changed then.
    pub async fn reload(&mut self) -> Result<Reload, FileError> {
        let text = text(&self.path)?;
        let settings = parse(&self.path, &text)?;
        if let Some(field) = self.settings.fixed_difference(&settings) {
            return Err(FileError::Fixed {
                line: line_of(&text, field),
                path: self.path.clone(),
                field,
            });
        }
        Ok(self.apply(settings).await)
    }

    /// What the file says by now.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn apply(&mut self, settings: Settings) -> Reload {
        let peers: BTreeMap<_, _> = settings.peers().map(|peer| (peer.key, peer)).collect();
        let routes: BTreeSet<_> = settings.routes.iter().copied().collect();
        let mut done = Reload::default();
        for key in self.peers.keys().filter(|key| !peers.contains_key(key)) {
            self.handle.remove_peer(*key).await;
            done.peers_removed.push(key.to_string());
        }
        for (key, peer) in &peers {
            match self.peers.get(key) {
                Some(before) if before == peer => continue,
                Some(_) => done.peers_changed.push(key.to_string()),
                None => done.peers_added.push(key.to_string()),
            }
            self.handle.set_peer(peer.clone()).await;
        }
        self.apply_link_peers(&settings, &mut done).await;
        self.apply_ranges(&settings).await;
        for &gone in self.routes.difference(&routes) {
            self.handle.unoriginate(gone).await;
            done.routes_removed.push(gone.network());
        }
        for &new in routes.difference(&self.routes) {
            self.handle.originate(new).await;
            done.routes_added.push(new.network());
        }
        self.apply_collectors(&settings, &mut done).await;
        (self.settings, self.peers, self.routes) = (settings, peers, routes);
        done
    }

    async fn apply_collectors(&self, settings: &Settings, done: &mut Reload) {
        let (before, after) = (&self.settings.bmp, &settings.bmp);
        let names = |these: &[Collector], others: &[Collector]| {
            let differing = these.iter().filter(|it| !others.contains(it));
            differing.map(|it| it.address.clone()).collect()
        };
        done.collectors_removed = names(before, after);
        done.collectors_added = names(after, before);
        self.handle.monitor(after.clone()).await;
    }

    async fn apply_link_peers(&mut self, settings: &Settings, done: &mut Reload) {
        let peers: BTreeMap<_, _> = settings
            .link_peers()
            .map(|peer| (peer.key.clone(), peer))
            .collect();
        for key in self.link_peers.keys().filter(|key| !peers.contains_key(key)) {
            self.handle.remove_link_peer(key.clone()).await;
            done.peers_removed.push(key.to_string());
        }
        for (key, peer) in &peers {
            match self.link_peers.get(key) {
                Some(before) if before == peer => continue,
                Some(_) => done.peers_changed.push(key.to_string()),
                None => done.peers_added.push(key.to_string()),
            }
            self.handle.set_link_peer(peer.clone()).await;
        }
        self.link_peers = peers;
    }

    /// Ranges come after single peers, which may have been a range's before.
    async fn apply_ranges(&mut self, settings: &Settings) {
        let ranges: BTreeMap<_, _> = settings.ranges().map(|range| (range.range, range)).collect();
        for gone in self.ranges.keys().filter(|range| !ranges.contains_key(range)) {
            self.handle.remove_range(*gone).await;
        }
        for (range, config) in &ranges {
            if self.ranges.get(range) != Some(config) {
                self.handle.set_range(config.clone()).await;
            }
        }
        self.ranges = ranges;
    }
}

/// Where a file names a field of the speaker itself.
fn line_of(text: &str, field: &str) -> usize {
    let mut lines = text.lines();
    let line = lines.position(|line| line.strip_prefix(field).is_some_and(|rest| rest.starts_with(':')));
    line.map_or(1, |index| index + 1)
}
