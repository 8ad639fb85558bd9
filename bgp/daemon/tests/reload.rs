//! What a change of each setting of a neighbour does to its session, as `docs/manx-bgpd.md` has it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use manx_bgp::wire::{Capability, Message, Open};
use manx_bgp::{ConnId, Family, Input, PeerConfig, Speaker, State};
use manx_bgpd::config::Settings;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Field → another value than its default, or than the base's.
const CHANGES: [(&str, &str); 35] = [
    ("asn", "64513"),
    ("localAddress", "192.0.2.1"),
    ("nextHopV4", "192.0.2.9"),
    ("nextHopV6", "2001:db8::9"),
    ("passive", "false"),
    ("routeReflectorClient", "true"),
    ("holdTime", "30"),
    ("minHoldTime", "10"),
    ("gracefulRestart", "false"),
    ("longLivedGracefulRestart", "3600"),
    ("families", "[ipv4]"),
    ("nextHopSelf", "true"),
    ("import", "accept"),
    ("export", "accept"),
    ("bfd", "true"),
    ("password", "secret"),
    ("passwordFile", "/nonexistent/password"),
    (
        "tcpAo",
        "[{sendId: 1, receiveId: 1, secretFile: /nonexistent/key}]",
    ),
    ("ttlSecurity", "true"),
    ("multihop", "3"),
    ("interface", "eth0"),
    ("extendedMessages", "false"),
    ("extendedNextHop", "true"),
    ("addPath", "{receive: true}"),
    ("localAs", "64999"),
    ("allowOwnAs", "1"),
    ("enforceFirstAs", "true"),
    ("localPreference", "200"),
    ("med", "20"),
    ("prepend", "2"),
    ("asOverride", "true"),
    ("removePrivateAs", "true"),
    ("maxPrefix", "1000"),
    ("role", "customer"),
    ("strictRole", "true"),
];

fn settings(changes: &BTreeMap<&str, &str>) -> Settings {
    let fields: Vec<String> = changes
        .iter()
        .map(|(field, value)| format!("{field}: {value}"))
        .collect();
    let text = format!(
        "asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{{address: {PEER}, {}}}]",
        fields.join(", ")
    );
    Settings::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A neighbor that may have the field: reflection is within an AS, most else is between two.
fn base(field: &str) -> BTreeMap<&'static str, &'static str> {
    if field == "routeReflectorClient" {
        return BTreeMap::from([("asn", "64512"), ("passive", "true")]);
    }
    BTreeMap::from([("asn", "65000"), ("passive", "true"), ("role", "peer")])
}

fn peer(changes: &BTreeMap<&str, &str>) -> PeerConfig {
    settings(changes).peers().next().expect("it has a neighbor")
}

/// A speaker whose one session is up.
fn established(now: Instant, base: &BTreeMap<&str, &str>) -> Speaker {
    let mut speaker = Speaker::new(settings(base).options(false).config);
    let conn = ConnId(1 << 63);
    let received = |message| Input::Received {
        conn,
        message: Ok(message),
    };
    let open = Open {
        asn: peer(base).asn,
        hold_time: 90,
        router_id: PEER,
        capabilities: vec![Capability::Multiprotocol(Family::Ipv4Unicast)],
    };
    for input in [
        Input::SetPeer(Box::new(peer(base))),
        Input::Accepted {
            conn,
            local: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 179),
            remote: SocketAddr::new(PEER.into(), 40_000),
            scope: 0,
        },
        received(Message::Open(open)),
        received(Message::Keepalive),
    ] {
        speaker.handle(now, input);
        while speaker.poll().is_some() {}
    }
    assert_eq!(speaker.peers()[0].state, State::Established);
    speaker
}

/// Field → whether the document says that a change of it resets the session.
fn documented() -> BTreeMap<String, bool> {
    let text = include_str!("../../../docs/manx-bgpd.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (field, effect) = row.split_once("` | ").expect("a cell with a field");
        let resets = effect.starts_with("new session");
        assert!(resets || effect.starts_with("no reset"), "{row}");
        (field.to_owned(), resets)
    })
    .collect()
}

#[test]
fn a_change_resets_the_session_exactly_where_the_table_says_so() {
    let now = Instant::now();
    let measured = CHANGES.map(|(field, value)| {
        let mut changes = base(field);
        let (mut speaker, before) = (established(now, &changes), peer(&changes));
        changes.insert(field, value);
        let changed = peer(&changes);
        assert_ne!(changed, before, "{field} changes nothing");
        speaker.handle(now, Input::SetPeer(Box::new(changed)));
        (field.to_owned(), speaker.peers()[0].state != State::Established)
    });
    assert_eq!(BTreeMap::from(measured), documented());
}

/// The parser knows which fields there are.
#[test]
fn the_table_has_every_field_of_a_neighbor() {
    let text = "asn: 64512\nrouterId: 192.0.2.1\nneighbors: [{address: 192.0.2.2, asn: 1, nonsense: 1}]";
    let error = Settings::parse(text).expect_err("no such field").to_string();
    let (_, fields) = error.split_once("possible here: ").expect(&error);
    let documented = documented();
    let missing: Vec<&str> = fields
        .split(", ")
        .filter(|field| *field != "address" && !documented.contains_key(*field))
        .collect();
    assert_eq!(missing, [""; 0], "docs/manx-bgpd.md and CHANGES lack them");
}
