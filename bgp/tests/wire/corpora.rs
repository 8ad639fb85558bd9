//! Octets of other people's speakers, with their known meaning (`tests/data`), and the fuzz corpus.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bytes::Bytes;
use manx_bgp::Family;
use manx_bgp::wire::{
    self, Action, Capability, Context, Error, Message, NextHop, Notification, Origin, Problem, Update,
};
use serde_json::Value;

use crate::{attribute, attributes, context, fuzz, nlri, unhex, update};

fn lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn octet(value: &Value) -> u8 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// Cases in which this speaker does not do as recorded, and what it does.
fn of_our_own(name: &str, code: u8) -> Option<&'static str> {
    match (name, code) {
        // A malformed AS4_PATH MUST be discarded (RFC 6793 §6), and so MUST a sound one on this session of
        // four-octet speakers (§4.1).
        ("as4path-seg-type-0", _) => Some("discard"),
        // Not read here, so passed on as it came (RFC 4271 §5); its flags are checked.
        (name, 22 | 23) if !name.ends_with("-flag-nontrans") => Some("discard"),
        _ => None,
    }
}

/// The UPDATE of a case: 10.0.0.0/8 with the attribute, or with the next hop, in question.
fn of_case(case: &Value) -> Bytes {
    let in_question = match (&case["attr_type"], &case["nexthop"]) {
        (Value::Null, next_hop) => attribute(0x40, 3, &text(next_hop).parse::<Ipv4Addr>().unwrap().octets()),
        (code, _) => attribute(octet(&case["flags"]), octet(code), &unhex(text(&case["value"]))),
    };
    update(&[], &attributes(&in_question), &[8, 10])
}

/// RFC 7606 §3 (c): flags.
/// RFC 7606 §7.1: lengths and values.
/// RFC 7606 §7.2: each kind of bad segment.
/// RFC 7606 §7.11: lengths of next hops.
/// RFC 7607 §2 (update): AS 0.
/// nasty case 20
#[test]
fn malformed_attributes_cost_what_revised_error_handling_says() {
    let mut checked = 0;
    for case in lines("rfc7606-cases.jsonl") {
        for (external, peer) in [(false, "ibgp"), (true, "ebgp")] {
            let Some(recorded) = case["outcome"][peer].as_str() else {
                continue;
            };
            let name = text(&case["name"]);
            let code = case["attr_type"]
                .as_u64()
                .map_or(3, |code| code.try_into().unwrap());
            let outcome = match wire::decode_update(&of_case(&case), &context(external)) {
                Ok((update, _)) if update.reach.is_empty() => {
                    assert_eq!(update.withdrawn, [nlri("10.0.0.0/8")], "{name}");
                    "withdraw"
                }
                Ok(_) => "discard",
                Err(error) => {
                    let told = Notification::from(error);
                    let wanted = &case["notification"];
                    assert_eq!(
                        [told.code, told.subcode],
                        [octet(&wanted[0]), octet(&wanted[1])],
                        "{name}"
                    );
                    "session-reset"
                }
            };
            assert_eq!(
                outcome,
                of_our_own(name, code).unwrap_or(recorded),
                "{name} from {peer}"
            );
            checked += 1;
        }
    }
    assert!(checked > 150, "{checked} cases only");
}

/// The prefixes under a family in a recorded decode, with the next hop where they have one.
fn recorded(message: &Value, what: &str) -> Vec<(Option<IpAddr>, wire::Nlri)> {
    let of = |next_hop: Option<&str>, routes: &Value| {
        let next_hop = next_hop.map(|address| address.parse().unwrap());
        let routes = routes.as_array().unwrap().iter();
        let one = |route: &Value| {
            let path_id = route["path-information"]
                .as_str()
                .map(|id| id.parse::<Ipv4Addr>().unwrap().into());
            (
                next_hop,
                wire::Nlri {
                    path_id,
                    ..nlri(text(&route["nlri"]))
                },
            )
        };
        routes.map(one).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for (_, routes) in message[what].as_object().unwrap() {
        match routes.as_object() {
            Some(by_next_hop) => {
                all.extend(
                    by_next_hop
                        .iter()
                        .flat_map(|(next_hop, routes)| of(Some(next_hop), routes)),
                );
            }
            None => all.extend(of(None, routes)),
        }
    }
    all.sort();
    all
}

fn announced(update: &Update) -> Vec<(Option<IpAddr>, wire::Nlri)> {
    let address = |next_hop| match next_hop {
        NextHop::V4(address) => IpAddr::V4(address),
        NextHop::V6 { global, .. } => IpAddr::V6(global),
    };
    let of = |reach: &wire::Reach| {
        let next_hop = Some(address(reach.next_hop));
        reach
            .nlri
            .iter()
            .map(move |nlri| (next_hop, *nlri))
            .collect::<Vec<_>>()
    };
    let mut all = update.reach.iter().flat_map(of).collect::<Vec<_>>();
    all.sort();
    all
}

fn check_attributes(update: &Update, recorded: &Value) {
    let own = &update.attributes;
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    for (name, value) in recorded.as_object().unwrap() {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        match name.as_str() {
            "origin" => {
                let origin = [
                    ("igp", Origin::Igp),
                    ("egp", Origin::Egp),
                    ("incomplete", Origin::Incomplete),
                ];
                assert!(origin.contains(&(text(value), own.origin)));
            }
            "local-preference" => assert_eq!(own.local_pref, Some(number(value))),
            "med" => assert_eq!(own.med, Some(number(value))),
            "as-path" => {
                let numbers = value["0"]["value"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(number)
                    .collect::<Vec<_>>();
                assert_eq!(own.as_path.segments[0].numbers(), numbers);
            }
            "community" => {
                let value = |pair: &Value| number(&pair[0]) << 16 | number(&pair[1]);
                assert_eq!(own.communities, items.iter().map(value).collect::<Vec<_>>());
            }
            "large-community" => {
                let value = |parts: &Value| [0, 1, 2].map(|i| number(&parts[i]));
                assert_eq!(own.large_communities, items.iter().map(value).collect::<Vec<_>>());
            }
            "extended-community" => {
                let value = |item: &Value| item["value"].as_u64().unwrap().to_be_bytes();
                assert_eq!(
                    own.extended_communities,
                    items.iter().map(value).collect::<Vec<_>>()
                );
            }
            other => panic!("an attribute of no known meaning: {other}"),
        }
    }
}

#[test]
fn recorded_updates_mean_what_their_authors_say() {
    let mut checked = 0;
    for line in lines("unicast-updates.jsonl") {
        let routes = (recorded(&line, "announce"), recorded(&line, "withdraw"));
        let mut both = routes.0.iter().chain(&routes.1);
        let with_ids = both.any(|(_, nlri)| nlri.path_id.is_some());
        let add_path = if with_ids { Family::ALL.to_vec() } else { vec![] };
        let context = Context {
            add_path_receive: add_path.clone(),
            add_path_send: add_path,
            extended_next_hop: Family::ALL.to_vec(),
            ..context(false)
        };
        let octets = Bytes::from(unhex(text(&line["hex"])));
        if line["announce"]["ipv6 unicast"]["170.170.170.170"].is_array() {
            // RFC 8950 is about IPv6 next hops only, and no route leads to IPv6 through IPv4.
            let framing = Problem::MultiprotocolFraming { code: 14 };
            assert_eq!(wire::decode_update(&octets, &context), Err(framing.into()));
            continue;
        }
        let invented = line["attribute"].as_object().unwrap().keys();
        if invented.into_iter().any(|name| name.contains("0x99")) {
            // It claims to be well-known (RFC 4271 §6.3).
            let told = wire::decode_update(&octets, &context).map_err(Notification::from);
            assert!(matches!(
                told,
                Err(Notification {
                    code: 3,
                    subcode: 2,
                    ..
                })
            ));
            continue;
        }
        let (update, problems) = wire::decode_update(&octets, &context).unwrap();
        if let Some((_, action)) = problems.first() {
            // A next hop where no host is.
            let nowhere = routes.0.iter().all(|(next_hop, _)| {
                next_hop.is_some_and(|ip| ip.is_loopback() || ip == Ipv4Addr::BROADCAST)
            });
            assert!(*action == Action::Withdraw && nowhere, "{problems:?}: {line}");
            assert_eq!(update.withdrawn.len(), routes.0.len());
            continue;
        }
        let mut withdrawn = update
            .withdrawn
            .iter()
            .map(|nlri| (None, *nlri))
            .collect::<Vec<_>>();
        withdrawn.sort();
        assert_eq!((announced(&update), withdrawn), routes, "{line}");
        if !update.reach.is_empty() {
            check_attributes(&update, &line["attribute"]);
        }
        checked += 1;
    }
    assert!(checked > 80, "{checked} updates only");
}

/// RFC 5492 §4: in any number of parameters.
#[test]
fn opens_of_real_routers_are_read() {
    let opens = lines("opens.jsonl");
    let open = |source: &str| {
        let line = opens.iter().find(|line| text(&line["source"]) == source).unwrap();
        let octets = Bytes::from(unhex(text(&line["hex"])));
        wire::decode(&octets, &Context::default()).map(|message| match message {
            Message::Open(open) => (open.asn, open.hold_time, open.capabilities),
            other @ (Message::Update(_)
            | Message::Notification(_)
            | Message::Keepalive
            | Message::RouteRefresh(_)) => panic!("{other:?} is no OPEN"),
        })
    };
    let (v4, v6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
    let (asn, hold_time, capabilities) = open("metallb open-1").unwrap();
    assert_eq!((asn, hold_time), (1, 180));
    assert_eq!(capabilities[0], Capability::Multiprotocol(v4));
    assert!(
        matches!(capabilities[1], Capability::Unknown { code: 1, .. }),
        "IPv4 labelled unicast"
    );
    assert_eq!(capabilities[2], Capability::RouteRefresh);
    assert_eq!(
        open("metallb open-2"),
        Ok((64_543, 40, vec![Capability::FourOctetAs(64_543)]))
    );
    assert_eq!(open("metallb open-3").map(|open| open.2.len()), Ok(5));
    assert_eq!(
        open("metallb open-4").map(|open| (open.0, open.2.len())),
        Ok((64_543, 4))
    );
    assert_eq!(open("holo OPEN1"), Ok((1, 180, vec![])));
    assert_eq!(
        open("holo OPEN2"),
        Ok((1, 180, vec![Capability::Multiprotocol(v4)]))
    );
    // It says AS 1 in one place and AS 65550 in the other.
    assert_eq!(open("holo OPEN3"), Err(Error::BadPeerAs { asn: 65_550 }));
    assert!(!capabilities.contains(&Capability::Multiprotocol(v6)));
}

/// nasty case 40
#[test]
fn the_fuzz_corpus_finds_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    let replay = |name: &str, body: fn(&[u8])| {
        let mut seeds = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            body(&fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds > 20, "{seeds} seeds for {name} only");
    };
    replay("attributes", fuzz::attributes);
    replay("capabilities", fuzz::capabilities);
    replay("message", fuzz::message);
    replay("nlri", fuzz::nlri);
    replay("open", fuzz::open);
    replay("update", fuzz::update);
}
