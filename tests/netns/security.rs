//! Who gets through to a speaker: signatures, TTLs, and the kernel's limits on both.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use manx_bgp::bfd::SessionSnapshot;
use manx_bgp::transport::{AoAlgorithm, AoKey, Authentication, Distance, Secret};
use manx_bgp::{Config, PeerConfig, PeerKey, PeerSnapshot, Prefix, RangeConfig, State, Transport};
use manx_bgpd::{Events, Handle, Options};
use manx_linux::Netns;
use socket2::{Domain, Socket, Type};
use tokio::runtime::{Builder, Runtime};

use crate::harness::{TestNetns, eventually};

pub(crate) const ASN: u32 = 64_512;
const SOON: Duration = Duration::from_secs(30);

/// How long a SYN goes unanswered until it counts as dropped: less than its first repetition takes.
const SILENCE: Duration = Duration::from_millis(700);

const OURS: [&str; 2] = ["10.9.0.1", "2001:db8::1"];
/// Addresses in the other namespace, of both families: one to trust, one not to, and one to be added later.
const TRUSTED: [&str; 2] = ["10.9.0.2", "2001:db8::2"];
const OTHER: [&str; 2] = ["10.9.0.3", "2001:db8::3"];
const LATE_RANGE: [&str; 2] = ["10.9.0.4/31", "2001:db8::4/127"];
const LATE: [&str; 2] = ["10.9.0.4", "2001:db8::4"];

/// Two namespaces with a cable between them.
fn pair() -> [TestNetns; 2] {
    let pair = [TestNetns::new("ours"), TestNetns::new("theirs")];
    let theirs: Vec<String> = [TRUSTED, OTHER, LATE]
        .iter()
        .flat_map(|[v4, v6]| [format!("{v4}/16"), format!("{v6}/64")])
        .collect();
    let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
    pair[0].connect(&pair[1], "eth0", [&["10.9.0.1/16", "2001:db8::1/64"], &theirs]);
    pair
}

/// A runtime whose threads are in a namespace.
fn runtime(netns: &Netns) -> Runtime {
    let build = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
    netns.run(build).unwrap().unwrap()
}

/// A running speaker.
pub(crate) struct Speaker {
    runtime: Runtime,
    handle: Handle,
    _events: Events,
}

impl Speaker {
    pub(crate) fn start(netns: &Netns, router_id: Ipv4Addr, restarted: bool) -> Self {
        let options = Options {
            config: Config {
                asn: ASN,
                router_id,
                cluster_id: None,
                restarted,
                deferral: Duration::from_secs(10),
                farewell: String::new(),
                interfaces: [].into(),
                seed: 1,
                max_paths: 1,
            },
            listen: ["0.0.0.0:179", "[::]:179"].map(|at| at.parse().unwrap()).into(),
        };
        let runtime = runtime(netns);
        // In the namespace, too: what a runtime is asked to do here, this thread does.
        let start = || runtime.block_on(async { manx_bgpd::start(options) });
        let (handle, events) = netns.run(start).unwrap().unwrap();
        Self {
            runtime,
            handle,
            _events: events,
        }
    }

    pub(crate) fn set(&self, peer: PeerConfig) {
        self.runtime.block_on(self.handle.set_peer(peer));
    }

    fn set_range(&self, range: &str, transport: Transport) {
        let range = RangeConfig {
            range: range.parse().unwrap(),
            limit: 9,
            template: played("10.9.0.4", transport),
        };
        self.runtime.block_on(self.handle.set_range(range));
    }

    fn remove(&self, address: &str) {
        let key = PeerKey {
            address: ip(address),
            scope: 0,
        };
        self.runtime.block_on(self.handle.remove_peer(key));
    }

    fn peer(&self, address: IpAddr) -> PeerSnapshot {
        let peers = self.runtime.block_on(self.handle.peers());
        peers
            .into_iter()
            .find(|peer| peer.key.address == address)
            .unwrap()
    }

    pub(crate) fn up(&self, address: IpAddr) -> bool {
        let peers = self.runtime.block_on(self.handle.peers());
        peers
            .iter()
            .any(|peer| peer.key.address == address && peer.state == State::Established)
    }

    pub(crate) fn originate(&self, prefix: Prefix) {
        self.runtime.block_on(self.handle.originate(prefix));
    }

    pub(crate) fn learned(&self) -> usize {
        self.runtime.block_on(self.handle.paths()).len()
    }

    /// The paths that BFD watches.
    pub(crate) fn bfd(&self) -> Vec<SessionSnapshot> {
        self.runtime.block_on(self.handle.bfd_sessions())
    }

    /// Ends as kill -9 ends a process.
    fn crash(self) {
        drop((self.handle, self._events));
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peer(address: &str, local: &str, transport: Transport) -> PeerConfig {
    let key = PeerKey {
        address: ip(address),
        scope: 0,
    };
    PeerConfig {
        local_address: Some(ip(local)),
        next_hop_v4: Some(Ipv4Addr::new(198, 18, 0, 1)),
        graceful_restart: Some(Duration::from_secs(60)),
        transport,
        ..PeerConfig::new(key, ASN)
    }
}

/// One that the test plays itself.
fn played(address: &str, transport: Transport) -> PeerConfig {
    let local = if address.contains(':') { OURS[1] } else { OURS[0] };
    PeerConfig {
        passive: true,
        ..peer(address, local, transport)
    }
}

pub(crate) fn md5(password: &str) -> Transport {
    Transport {
        authentication: Some(Authentication::Md5(secret(password))),
        ..Transport::default()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes()).unwrap()
}

fn ao(keys: &[(u8, &str)]) -> Transport {
    let key = |(id, text): &(u8, &str)| AoKey {
        send_id: *id,
        receive_id: *id,
        algorithm: AoAlgorithm::HmacSha1,
        secret: secret(text),
    };
    Transport {
        authentication: Some(Authentication::Ao(keys.iter().map(key).collect())),
        ..Transport::default()
    }
}

fn secured() -> Transport {
    Transport {
        distance: Distance::Secured(NonZeroU8::MIN),
        ..Transport::default()
    }
}

/// Whether the speaker's kernel answers an unsigned SYN from an address.
fn answered(client: &Netns, from: &str) -> bool {
    let (from, to) = (ip(from), if from.contains(':') { OURS[1] } else { OURS[0] });
    let connect = || {
        let socket = Socket::new(Domain::for_address((from, 0).into()), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect_timeout(&SocketAddr::new(ip(to), 179).into(), SILENCE)
    };
    match client.run(connect).unwrap() {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("{from}: {error}"),
    }
}

/// Everything told to the speaker has taken effect.
fn settled(speaker: &Speaker) {
    speaker.runtime.block_on(speaker.handle.peers());
    speaker.runtime.block_on(speaker.handle.peers());
}

/// RFC 2385 §2.0: a segment without a valid signature is dropped, and no answer made.
/// nasty case 67
#[test]
fn an_unsigned_syn_of_a_peer_with_a_password_gets_no_answer() {
    let [ours, theirs] = pair();
    let speaker = Speaker::start(&ours, Ipv4Addr::new(10, 9, 0, 1), false);
    TRUSTED
        .iter()
        .for_each(|address| speaker.set(played(address, md5("one"))));
    OTHER
        .iter()
        .for_each(|address| speaker.set(played(address, Transport::default())));
    settled(&speaker);
    for ((trusted, other), late) in TRUSTED.into_iter().zip(OTHER).zip(LATE) {
        assert!(!answered(&theirs, trusted), "signed");
        assert!(answered(&theirs, other), "not signed");
        assert!(answered(&theirs, late), "unknown yet");
        speaker.set(played(late, md5("two")));
        settled(&speaker);
        assert!(!answered(&theirs, late), "just added");
        speaker.set(played(late, Transport::default()));
        settled(&speaker);
        assert!(answered(&theirs, late), "without a password again");
        assert!(!answered(&theirs, trusted), "signed as before");
    }
    for (late, range) in LATE.into_iter().zip(LATE_RANGE) {
        speaker.remove(late);
        settled(&speaker);
        assert!(answered(&theirs, late), "unknown again");
        speaker.set_range(range, md5("range"));
        settled(&speaker);
        assert!(!answered(&theirs, late), "from a range with a password");
    }
}

/// RFC 5082 §3: what has come too far is dropped.
/// nasty case 62, nasty case 67
#[test]
fn a_syn_from_too_far_away_gets_no_answer() {
    let [ours, theirs] = pair();
    let speaker = Speaker::start(&ours, Ipv4Addr::new(10, 9, 0, 1), false);
    let leave_with = |ttl: u8| {
        let settings = [
            format!("net.ipv4.ip_default_ttl={ttl}"),
            format!("net.ipv6.conf.eth0.hop_limit={ttl}"),
        ];
        let set = theirs
            .command("sysctl")
            .arg("-qw")
            .args(settings)
            .status()
            .unwrap();
        assert!(set.success());
    };
    TRUSTED
        .iter()
        .for_each(|address| speaker.set(played(address, secured())));
    OTHER
        .iter()
        .for_each(|address| speaker.set(played(address, Transport::default())));
    settled(&speaker);
    for (ttl, passes) in [(254, false), (255, true), (64, false)] {
        leave_with(ttl);
        for (trusted, other) in TRUSTED.into_iter().zip(OTHER) {
            assert_eq!(answered(&theirs, trusted), passes, "TTL {ttl}");
            assert!(answered(&theirs, other), "anyone may be far, TTL {ttl}");
        }
    }
    for late in LATE {
        assert!(answered(&theirs, late), "unknown yet");
        speaker.set(played(late, secured()));
        settled(&speaker);
        assert!(!answered(&theirs, late), "just added");
    }
    for (late, range) in LATE.into_iter().zip(LATE_RANGE) {
        speaker.remove(late);
        settled(&speaker);
        assert!(answered(&theirs, late), "unknown again");
        speaker.set_range(range, secured());
        settled(&speaker);
        assert!(!answered(&theirs, late), "from a range that is near");
    }
}

#[test]
fn a_peer_from_a_range_signs_as_the_range_does() {
    let netns = pair();
    let ours = Speaker::start(&netns[0], Ipv4Addr::new(10, 9, 0, 1), false);
    let theirs = Speaker::start(&netns[1], Ipv4Addr::new(10, 9, 0, 4), false);
    ours.set_range(LATE_RANGE[0], md5("range"));
    theirs.set(peer(OURS[0], LATE[0], md5("range")));
    assert!(eventually(SOON, || theirs.up(ip(OURS[0])) && ours.up(ip(LATE[0]))));
}

/// Two speakers that dial each other.
struct Session {
    ours: Speaker,
    theirs: Speaker,
    netns: [TestNetns; 2],
}

impl Session {
    fn start(transport: &Transport) -> Self {
        let netns = pair();
        let session = Self {
            ours: Speaker::start(&netns[0], Ipv4Addr::new(10, 9, 0, 1), false),
            theirs: Speaker::start(&netns[1], Ipv4Addr::new(10, 9, 0, 2), false),
            netns,
        };
        session.set_ours(transport);
        session.set_theirs(transport);
        session
    }

    fn set_ours(&self, transport: &Transport) {
        self.ours.set(peer(TRUSTED[0], OURS[0], transport.clone()));
    }

    fn set_theirs(&self, transport: &Transport) {
        self.theirs.set(peer(OURS[0], TRUSTED[0], transport.clone()));
    }

    fn comes_up(&self) -> bool {
        eventually(SOON, || {
            self.ours.up(ip(TRUSTED[0])) && self.theirs.up(ip(OURS[0]))
        })
    }

    fn since(&self) -> Option<Instant> {
        self.ours.peer(ip(TRUSTED[0])).established_since
    }
}

#[test]
fn sessions_come_up_signed_and_near() {
    let both = Transport {
        distance: Distance::Secured(NonZeroU8::MIN),
        ..md5("shared")
    };
    for transport in [md5("shared"), secured(), both] {
        assert!(Session::start(&transport).comes_up(), "{transport:?}");
    }
}

#[test]
fn different_passwords_make_no_session_and_the_right_one_does() {
    let session = Session::start(&md5("right"));
    assert!(session.comes_up());
    session.set_theirs(&Transport::default());
    session.set_theirs(&md5("wrong"));
    assert!(eventually(SOON, || !session.theirs.up(ip(OURS[0]))));
    session.ours.remove(TRUSTED[0]);
    session.set_ours(&md5("right"));
    assert!(!eventually(Duration::from_secs(4), || session
        .ours
        .up(ip(TRUSTED[0]))));
    session.set_theirs(&md5("right"));
    assert!(session.comes_up());
}

/// Both sides go from key to key while routes flow; what is left of the session at the end.
fn rotate(session: &Session, transports: &[Transport]) {
    let since = session.since();
    let mut announced = 0;
    for transport in transports {
        session.set_ours(transport);
        announced += 200;
        for n in announced - 200..announced {
            let prefix = Prefix::v4(Ipv4Addr::from(0x1400_0000 + (n << 8)), 24).unwrap();
            session.theirs.originate(prefix);
        }
        session.set_theirs(transport);
        assert!(
            eventually(SOON, || session.ours.learned() == announced as usize),
            "routes flow with {transport:?}: {} of {announced}",
            session.ours.learned()
        );
    }
    assert_eq!(session.since(), since, "one session all along");
}

#[test]
fn a_password_changes_under_traffic_without_a_new_session() {
    let session = Session::start(&md5("first"));
    assert!(session.comes_up());
    rotate(&session, &[md5("first"), md5("second"), md5("third")]);
}

/// RFC 5925 §3.1: keys are agreed on in advance; another becomes the current one without a new connection.
#[test]
fn keys_of_tcp_ao_change_likewise_or_the_status_says_that_the_kernel_has_none() {
    let session = Session::start(&ao(&[(1, "first")]));
    let reason = || session.ours.peer(ip(TRUSTED[0])).last_error.unwrap_or_default();
    if eventually(Duration::from_secs(2), || {
        reason().contains("this kernel has no TCP-AO")
    }) {
        assert!(!session.ours.up(ip(TRUSTED[0])), "never without signatures");
        return;
    }
    assert!(session.comes_up(), "{}", reason());
    let two = [(1, "first"), (2, "second")];
    let turned = [two[1], two[0]];
    rotate(&session, &[ao(&two[..1]), ao(&two), ao(&turned), ao(&two[1..])]);
}

/// nasty case 61
#[test]
fn a_signed_session_is_back_soon_after_a_restart_that_nobody_heard_of() {
    let mut session = Session::start(&md5("shared"));
    assert!(session.comes_up());
    // Longer than a connection needs to be no longer a party to a collision.
    std::thread::sleep(Duration::from_secs(6));
    // Neither FIN nor RST gets through: the other side believes in the old connection.
    session.netns[0].ip("link set eth0 down");
    session.ours.crash();
    session.netns[0].ip("link set eth0 up");
    assert!(session.theirs.up(ip(OURS[0])), "nobody heard of it");
    session.ours = Speaker::start(&session.netns[0], Ipv4Addr::new(10, 9, 0, 1), true);
    let start = Instant::now();
    session.set_ours(&md5("shared"));
    assert!(eventually(Duration::from_secs(5), || session
        .ours
        .up(ip(TRUSTED[0]))
        && session.theirs.up(ip(OURS[0]))));
    println!("back after {:?}", start.elapsed());
}

/// nasty case 66
#[test]
fn the_kernels_limit_on_keys_shows_and_shared_passwords_stay_below_it() {
    let [ours, _theirs] = pair();
    let speaker = Speaker::start(&ours, Ipv4Addr::new(10, 9, 0, 1), false);
    let address = |n: u16| IpAddr::V4(Ipv4Addr::from(0x0a09_1000 + u32::from(n)));
    let refused = || {
        let peers = speaker.runtime.block_on(speaker.handle.peers());
        let reasons = peers.iter().filter_map(|peer| peer.last_error.as_deref());
        reasons.filter(|why| why.contains("net.core.optmem_max")).count()
    };
    for n in 0..1100 {
        speaker.set(played(&address(n).to_string(), md5(&format!("password {n}"))));
    }
    settled(&speaker);
    let limit: usize = std::fs::read_to_string("/proc/sys/net/core/optmem_max")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let fit = 963 * limit / 131_072;
    assert!(
        refused().abs_diff(1100 - fit.min(1100)) <= 1,
        "{} refused",
        refused()
    );
    for n in 0..1100 {
        speaker.set(played(&address(n).to_string(), md5("shared")));
    }
    settled(&speaker);
    assert_eq!(refused(), 0);
}
