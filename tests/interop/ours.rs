//! Our speaker in its namespace.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_bgpd::bgp::bfd;
use manx_bgpd::bgp::{
    BfdConfig, Config, Family, Features, NextHopMode, PathSnapshot, PeerConfig, PeerKey, Policy, Prefix,
    State, Transport,
};
use manx_bgpd::{Events, Handle, Options};
use tokio::runtime::{Builder, Runtime};

use crate::net::{Cable, OUR_V4, OUR_V6, THEIR_V4};
use crate::router::{Hops, Session};

const PEER: PeerKey = PeerKey {
    address: std::net::IpAddr::V4(THEIR_V4),
    scope: 0,
};

/// A running speaker with one peer.
pub(crate) struct Ours {
    runtime: Runtime,
    handle: Handle,
    events: Events,
}

impl Ours {
    /// Starts with these prefixes originated. `restarted`: as after a crash that forwarding survived.
    pub(crate) fn start(cable: &Cable, session: Session, restarted: bool, prefixes: &[&str]) -> Self {
        let config = Config {
            asn: session.our_asn,
            router_id: OUR_V4,
            cluster_id: None,
            restarted,
            deferral: Duration::from_secs(10),
            farewell: String::new(),
            seed: 1,
            max_paths: 1,
        };
        let options = Options {
            config,
            listen: vec![(Ipv4Addr::UNSPECIFIED, 179).into()],
        };
        // The runtime's thread is made by, and so in the namespace of, the thread that makes the runtime.
        let started = cable.ours.run(|| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let (handle, events) = runtime.block_on(async { manx_bgpd::start(options) })?;
            std::io::Result::Ok(Self {
                runtime,
                handle,
                events,
            })
        });
        let ours = started
            .expect("the namespace can be entered")
            .expect("port 179 is free there");
        for prefix in prefixes {
            ours.announce(prefix);
        }
        ours.set_peer(session);
        ours
    }

    pub(crate) fn announce(&self, prefix: &str) {
        self.runtime.block_on(self.handle.originate(parse(prefix)));
    }

    pub(crate) fn withdraw(&self, prefix: &str) {
        self.runtime.block_on(self.handle.unoriginate(parse(prefix)));
    }

    pub(crate) fn established(&self) -> bool {
        let peers = self.runtime.block_on(self.handle.peers());
        peers
            .iter()
            .any(|peer| peer.key == PEER && peer.state == State::Established)
    }

    /// What goes to the peer. FRR also sends our own prefixes back, which never are.
    pub(crate) fn learned(&self) -> BTreeSet<String> {
        self.held(|path| path.best)
    }

    /// What of it is kept from a peer that is away.
    pub(crate) fn stale(&self) -> BTreeSet<String> {
        self.held(|path| path.best && path.stale)
    }

    fn held(&self, filter: impl Fn(&PathSnapshot) -> bool) -> BTreeSet<String> {
        let paths = self.runtime.block_on(self.handle.paths());
        let theirs = paths
            .iter()
            .filter(|path| path.peer == Some(PEER) && filter(path));
        theirs.map(|path| path.prefix.to_string()).collect()
    }

    /// The states of our BFD session and of theirs, as far as there are any.
    pub(crate) fn bfd(&self) -> Vec<(bfd::State, Option<bfd::State>)> {
        let sessions = self.runtime.block_on(self.handle.bfd_sessions());
        sessions.iter().map(|it| (it.state, it.remote_state)).collect()
    }

    /// Takes new settings for the peer.
    pub(crate) fn set_peer(&self, session: Session) {
        self.runtime.block_on(self.handle.set_peer(peer(session)));
    }

    pub(crate) fn remove_peer(&self) {
        self.runtime.block_on(self.handle.remove_peer(PEER));
    }

    /// Ends as kill -9 ends a process: the sockets close, nothing is said.
    pub(crate) fn crash(self) {
        let Self {
            runtime,
            handle,
            events,
        } = self;
        drop((handle, events));
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Ends as SIGTERM does.
    pub(crate) fn shutdown(self) {
        self.runtime.block_on(self.handle.shutdown());
        self.crash();
    }
}

fn peer(session: Session) -> PeerConfig {
    PeerConfig {
        key: PEER,
        port: 179,
        asn: session.their_asn,
        local_address: Some(OUR_V4.into()),
        next_hop_v4: Some(OUR_V4),
        next_hop_v6: Some(OUR_V6),
        passive: session.we_wait,
        hold_time: Duration::from_secs(session.hold_time.into()),
        min_hold_time: Duration::ZERO,
        families: Family::ALL.to_vec(),
        route_reflector_client: false,
        graceful_restart: session
            .graceful_restart
            .map(|seconds| Duration::from_secs(seconds.into())),
        next_hop: NextHopMode::Auto,
        import: Policy::Accept,
        export: Policy::Accept,
        bfd: session.bfd.map(|hops| BfdConfig {
            multihop: hops == Hops::Several,
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: NonZeroU8::MIN.saturating_add(2),
        }),
        features: Features::default(),
        transport: Transport::default(),
    }
}

fn parse(prefix: &str) -> Prefix {
    Prefix::new(prefix.parse::<IpNetwork>().expect("tests write prefixes right"))
}
