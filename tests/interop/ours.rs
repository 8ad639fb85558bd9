//! Our speaker in its namespace.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use manx_bgpd::bgp::bfd;
use manx_bgpd::bgp::transport::{Authentication, Distance, Secret};
use manx_bgpd::bgp::{
    AddPathConfig, BfdConfig, Config, Family, Features, Input, PathSnapshot, PeerConfig, PeerKey,
    PeerSnapshot, Prefix, State, Transport,
};
use manx_bgpd::{Events, Handle, Options};
use manx_linux::Netns;
use tokio::runtime::{Builder, Runtime};

use crate::net::{Cable, Ends, SOON};
use crate::router::{Hops, Protection, Session, Side};

/// Listening on every address.
pub(crate) const EVERYWHERE: Option<Ipv4Addr> = Some(Ipv4Addr::UNSPECIFIED);

/// A running speaker.
pub(crate) struct Ours {
    runtime: Runtime,
    handle: Handle,
    events: Events,
    /// The ends of the session that questions are about.
    ends: Ends,
}

impl Ours {
    /// Starts in session over `cable`, with these prefixes originated. `restarted`: as after a crash that
    /// forwarding survived.
    pub(crate) fn start(cable: &Cable, session: Session, restarted: bool, prefixes: &[&str]) -> Self {
        let ours = Self::launch(&cable.ours, EVERYWHERE, cable.ends, session.our_asn, restarted);
        for prefix in prefixes {
            ours.announce(prefix);
        }
        ours.set_peer(session, cable.ends);
        ours
    }

    /// Starts as one of several speakers in a namespace: each listens on its own address, which is its
    /// identifier.
    pub(crate) fn alone(namespace: &Netns, ends: Ends, asn: u32) -> Self {
        Self::launch(namespace, Some(ends.ours), ends, asn, false)
    }

    /// Starts without peers and prefixes; questions are about `ends`.
    pub(crate) fn launch(
        namespace: &Netns,
        listen: Option<Ipv4Addr>,
        ends: Ends,
        asn: u32,
        restarted: bool,
    ) -> Self {
        let config = Config {
            asn,
            router_id: ends.ours,
            cluster_id: None,
            restarted,
            deferral: Duration::from_secs(10),
            farewell: String::new(),
            interfaces: [].into(),
            seed: 1,
            max_paths: 1,
        };
        let options = Options {
            config,
            listen: listen.into_iter().map(|address| (address, 179).into()).collect(),
        };
        // The runtime's thread is made by, and so in the namespace of, the thread that makes the runtime.
        let started = namespace.run(|| {
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let (handle, events) = bind(&runtime, &options)?;
            io::Result::Ok(Self {
                runtime,
                handle,
                events,
                ends,
            })
        });
        started
            .expect("the namespace can be entered")
            .expect("port 179 is free there")
    }

    pub(crate) fn announce(&self, prefix: &str) {
        self.runtime.block_on(self.handle.originate(parse(prefix)));
    }

    pub(crate) fn withdraw(&self, prefix: &str) {
        self.runtime.block_on(self.handle.unoriginate(parse(prefix)));
    }

    /// Whether the session is up.
    pub(crate) fn established(&self) -> bool {
        self.peer().state == State::Established
    }

    /// The peer of the session, as we show it.
    pub(crate) fn peer(&self) -> PeerSnapshot {
        let mut peers = self.peers().into_iter();
        peers
            .find(|peer| peer.key == key(self.ends))
            .expect("it is configured")
    }

    /// All peers, as we show them.
    pub(crate) fn peers(&self) -> Vec<PeerSnapshot> {
        self.runtime.block_on(self.handle.peers())
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
        let paths = self.paths().into_iter().filter(filter);
        paths.map(|path| path.prefix.to_string()).collect()
    }

    /// All paths from the peer of the session.
    pub(crate) fn paths(&self) -> Vec<PathSnapshot> {
        let from_peer = |path: &PathSnapshot| path.peer == Some(key(self.ends));
        let paths = self.runtime.block_on(self.handle.paths());
        paths.into_iter().filter(from_peer).collect()
    }

    /// The states of our BFD session and of theirs, as far as there are any.
    pub(crate) fn bfd(&self) -> Vec<(bfd::State, Option<bfd::State>)> {
        let sessions = self.runtime.block_on(self.handle.bfd_sessions());
        sessions.iter().map(|it| (it.state, it.remote_state)).collect()
    }

    /// Takes the settings for a peer, or new ones.
    pub(crate) fn set_peer(&self, session: Session, ends: Ends) {
        self.configure(peer(session, ends));
    }

    /// The same, whatever they are.
    pub(crate) fn configure(&self, peer: PeerConfig) {
        self.runtime.block_on(self.handle.set_peer(peer));
    }

    pub(crate) fn remove_peer(&self) {
        self.runtime.block_on(self.handle.remove_peer(key(self.ends)));
    }

    /// Drains all its sessions.
    pub(crate) fn drain(&self, time: Duration) {
        self.runtime.block_on(self.handle.input(Input::Drain {
            peer: None,
            time,
            words: String::new(),
        }));
    }

    /// Has them back.
    pub(crate) fn undrain(&self) {
        self.runtime.block_on(self.handle.input(Input::Undrain(None)));
    }

    /// Ends as kill -9 ends a process: the sockets close, listeners first, and nothing is said.
    pub(crate) fn crash(self) {
        let Self {
            runtime,
            handle,
            mut events,
            ..
        } = self;
        drop(handle);
        let gone = async { while events.next().await.is_some() {} };
        let gone = runtime.block_on(async { tokio::time::timeout(SOON, gone).await });
        gone.expect("the speaker stops with its last handle");
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Ends as SIGTERM does.
    pub(crate) fn shutdown(self) {
        self.runtime.block_on(self.handle.shutdown());
        self.crash();
    }
}

/// Starts the speaker. A command that another test is about to run shares all our sockets for a moment, those
/// that we have closed too.
fn bind(runtime: &Runtime, options: &Options) -> io::Result<(Handle, Events)> {
    let begun = Instant::now();
    loop {
        match runtime.block_on(async { manx_bgpd::start(options.clone()) }) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < SOON => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn key(ends: Ends) -> PeerKey {
    PeerKey::of(ends.theirs.into(), 0)
}

/// The settings for the peer of a session.
pub(crate) fn peer(session: Session, ends: Ends) -> PeerConfig {
    PeerConfig {
        local_address: Some(ends.ours.into()),
        next_hop_v4: Some(ends.ours),
        next_hop_v6: Some(ends.ours_v6),
        passive: session.we_wait,
        hold_time: Duration::from_secs(session.hold_time.into()),
        families: Family::ALL.to_vec(),
        route_reflector_client: session.reflector == Some(Side::Ours),
        graceful_restart: session
            .graceful_restart
            .map(|seconds| Duration::from_secs(seconds.into())),
        bfd: session.bfd.map(|hops| BfdConfig {
            multihop: hops == Hops::Several,
            min_tx: Duration::from_millis(300),
            min_rx: Duration::from_millis(300),
            multiplier: NonZeroU8::MIN.saturating_add(2),
        }),
        features: Features {
            add_path: Family::ALL
                .into_iter()
                .filter(|_| session.add_path)
                .map(|family| AddPathConfig {
                    family,
                    receive: true,
                    send: 8,
                })
                .collect(),
            ..Features::default()
        },
        transport: transport(session.protection),
        ..PeerConfig::new(key(ends), session.their_asn)
    }
}

fn transport(protection: Option<Protection>) -> Transport {
    match protection {
        Some(Protection::Password(text)) => Transport {
            authentication: Secret::new(text.as_bytes()).ok().map(Authentication::Md5),
            ..Transport::default()
        },
        Some(Protection::Near) => Transport {
            distance: Distance::Secured(NonZeroU8::MIN),
            ..Transport::default()
        },
        None => Transport::default(),
    }
}

pub(crate) fn parse(prefix: &str) -> Prefix {
    Prefix::new(prefix.parse::<IpNetwork>().expect("tests write prefixes right"))
}
