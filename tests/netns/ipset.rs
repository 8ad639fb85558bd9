//! Sets over netlink, beside what the real `ipset` makes of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use manx_linux::{Error, SetSocket};
use manx_policy::{Family, Member, Protocol, Sense, Set, SetChange, SetKind};
use nix::errno::Errno;
use proptest::collection::btree_map;
use proptest::prelude::*;

use crate::harness::TestNetns;
use crate::rules::{run, sets};

fn create(name: &str, family: Family, kind: SetKind) -> SetChange {
    let name = name.to_owned();
    SetChange::Create { name, family, kind }
}

fn put(set: &str, member: &Member, sense: Sense) -> SetChange {
    SetChange::Put {
        set: set.to_owned(),
        member: member.clone(),
        sense,
    }
}

fn remove(set: &str, member: &Member) -> SetChange {
    SetChange::Remove {
        set: set.to_owned(),
        member: member.clone(),
    }
}

fn destroy(name: &str) -> SetChange {
    SetChange::Destroy {
        name: name.to_owned(),
    }
}

fn net(text: &str) -> Member {
    Member::Net(text.parse().unwrap())
}

/// Makes all changes; how many groups that took.
fn make(socket: &mut SetSocket, mut changes: &[SetChange]) -> Result<usize, Error> {
    let mut groups = 0;
    while !changes.is_empty() {
        changes = &changes[socket.advance(changes)?..];
        groups += 1;
    }
    Ok(groups)
}

/// Sets of every kind and family with members of every form.
fn every_set() -> BTreeMap<String, Set> {
    let ports = |address: &str| {
        let address = address.parse().unwrap();
        let protocols = Protocol::WITH_PORTS.into_iter().zip([1, 80, 8080, 65535]);
        protocols
            .map(|(protocol, port)| (Member::Port(address, protocol, port), Sense::Match))
            .collect()
    };
    let behind = |nets: [&str; 2]| {
        let members = nets.into_iter().zip(["mx0123456789a", "mxb"]);
        let members =
            members.map(|(net, interface)| Member::NetBehind(net.parse().unwrap(), interface.into()));
        members.map(|member| (member, Sense::Match)).collect()
    };
    let nets = |nets: [&str; 3]| {
        let senses = [Sense::Match, Sense::Except, Sense::Match];
        nets.map(net).into_iter().zip(senses).collect()
    };
    let sets: [(&str, Family, SetKind, BTreeMap<Member, Sense>); 6] = [
        (
            "nets",
            Family::V4,
            SetKind::Nets,
            nets(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"]),
        ),
        (
            "nets",
            Family::V6,
            SetKind::Nets,
            nets(["fd00::/8", "fd01::/16", "fd01::1/128"]),
        ),
        (
            "ifs",
            Family::V4,
            SetKind::NetsBehind,
            behind(["10.0.0.1/32", "10.0.0.0/24"]),
        ),
        (
            "ifs",
            Family::V6,
            SetKind::NetsBehind,
            behind(["fd00::1/128", "fd00::/64"]),
        ),
        ("ports", Family::V4, SetKind::Ports, ports("10.0.0.1")),
        ("ports", Family::V6, SetKind::Ports, ports("fd00::1")),
    ];
    sets.into_iter()
        .map(|(name, family, kind, members)| {
            let set = Set {
                family,
                kind,
                members,
            };
            (family.set_name(name), set)
        })
        .collect()
}

/// What makes these sets.
fn makings(sets: &BTreeMap<String, Set>) -> Vec<SetChange> {
    let changes = sets.iter().flat_map(|(name, set)| {
        let members = set.members.iter();
        let puts = members.map(|(member, sense)| put(name, member, *sense));
        [create(name, set.family, set.kind)].into_iter().chain(puts)
    });
    changes.collect()
}

fn all(sets: &BTreeMap<String, Set>) -> BTreeMap<String, Option<Set>> {
    let content = |(name, set): (&String, &Set)| (name.clone(), Some(set.clone()));
    sets.iter().map(content).collect()
}

#[test]
fn sets_are_to_the_tool_what_it_would_have_made_itself() {
    let (ours, its) = (TestNetns::new("ours"), TestNetns::new("its"));
    let mut socket = SetSocket::open_in(&ours).unwrap();
    let changes = makings(&every_set());
    make(&mut socket, &changes).unwrap();
    for change in &changes {
        run(&its, "ipset", &change.to_string());
    }
    assert_eq!(sets(&ours), sets(&its));
    let header = run(&ours, "ipset", "list -t mx4-nets");
    assert!(header.contains("maxelem 1048576"), "{header}");
    // What the tool made is read as what we made, and both as what was wanted.
    let mut other = SetSocket::open_in(&its).unwrap();
    assert_eq!(other.list().unwrap(), all(&every_set()));
    assert_eq!(socket.list().unwrap(), all(&every_set()));
    // Everything once more is no failure, and no change.
    make(&mut socket, &changes).unwrap();
    assert_eq!(sets(&ours), sets(&its));
    for (name, set) in every_set() {
        let losses: Vec<SetChange> = set.members.keys().map(|member| remove(&name, member)).collect();
        for _ in 0..2 {
            assert_eq!(make(&mut socket, &losses).unwrap(), 1, "members go together");
        }
        assert!(
            !run(&ours, "ipset", "save").contains(&format!("add {name} ")),
            "{name}"
        );
        make(&mut socket, &[destroy(&name), destroy(&name)]).unwrap();
    }
    assert_eq!(sets(&ours), [""; 0]);
}

#[test]
fn a_member_is_seen_in_the_sense_that_was_last_said() {
    let node = TestNetns::new("node");
    let mut socket = SetSocket::open_in(&node).unwrap();
    make(&mut socket, &[create("mx4-a", Family::V4, SetKind::Nets)]).unwrap();
    for (sense, line) in [
        (Sense::Match, "add mx4-a 10.0.0.0/8"),
        (Sense::Except, "add mx4-a 10.0.0.0/8 nomatch"),
        (Sense::Match, "add mx4-a 10.0.0.0/8"),
    ] {
        make(&mut socket, &[put("mx4-a", &net("10.0.0.0/8"), sense)]).unwrap();
        assert!(sets(&node).contains(&line.to_owned()), "{:?}", sets(&node));
    }
}

#[test]
fn sets_that_are_not_as_we_make_them_are_named_without_content_and_others_not_at_all() {
    let node = TestNetns::new("node");
    for line in [
        "create KUBE-CLUSTER-IP hash:ip,port",
        "add KUBE-CLUSTER-IP 10.96.0.1,tcp:443",
        "create mx4-kind hash:ip",
        "create mx4-family hash:net family inet6",
        "create mx4-expires hash:net timeout 60",
        "create mx4-member hash:ip,port",
        "add mx4-member 10.0.0.1,icmp:echo-request",
        "create mx4-flag hash:net,iface",
        "add mx4-flag 10.0.0.0/8,physdev:mx1",
        "create mx4-right hash:net",
    ] {
        run(&node, "ipset", line);
    }
    let found = SetSocket::open_in(&node).unwrap().list().unwrap();
    let right = Set {
        family: Family::V4,
        kind: SetKind::Nets,
        members: BTreeMap::new(),
    };
    let named = ["expires", "family", "flag", "kind", "member"].map(|name| (format!("mx4-{name}"), None));
    let mut wanted = BTreeMap::from(named);
    wanted.insert("mx4-right".to_owned(), Some(right));
    assert_eq!(found, wanted);
}

#[test]
fn what_the_kernel_refuses_is_said_in_words_and_nothing_behind_it_is_done() {
    let node = TestNetns::new("node");
    let mut socket = SetSocket::open_in(&node).unwrap();
    run(&node, "ipset", "create mx4-full hash:net maxelem 1");
    run(&node, "ipset", "create mx4-used hash:net");
    run(&node, "ipset", "create mx4-other hash:ip");
    let rule = "-A INPUT -m set --match-set mx4-used src -j ACCEPT";
    run(&node, "iptables-nft", rule);
    let six = net("fd00::/8");
    for (change, said) in [
        (destroy("mx4-used"), "cannot destroy mx4-used: the set is used"),
        (
            create("mx4-other", Family::V4, SetKind::Nets),
            "cannot create mx4-other hash:net family inet maxelem 1048576: File exists",
        ),
        (
            put("mx4-none", &net("10.0.0.0/8"), Sense::Match),
            "cannot add mx4-none 10.0.0.0/8: No such file",
        ),
        (
            remove("mx4-none", &net("10.0.0.0/8")),
            "cannot del mx4-none 10.0.0.0/8: No such file",
        ),
        (
            put("mx4-used", &six, Sense::Match),
            "cannot add mx4-used fd00::/8: the set does not take this",
        ),
    ] {
        let behind = create("mx4-behind", Family::V4, SetKind::Nets);
        let error = make(&mut socket, &[change, behind]).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
        assert!(!run(&node, "ipset", "list -n").contains("behind"), "{error}");
    }
    let nets = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"].map(net);
    let puts = nets.each_ref().map(|net| put("mx4-full", net, Sense::Match));
    let error = make(&mut socket, &puts).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add mx4-full 11.0.0.0/8: the set is full"
    );
    assert_eq!(error.errno(), Some(Errno::UnknownErrno));
    // The socket goes on after each.
    make(&mut socket, &[destroy("mx4-full")]).unwrap();
}

#[test]
fn a_hundred_thousand_members_are_put_and_read_back() {
    const MEMBERS: u32 = 100_000;
    let node = TestNetns::new("node");
    let mut socket = SetSocket::open_in(&node).unwrap();
    let member = |number: u32| Member::Net(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)).into());
    let members: BTreeMap<Member, Sense> = (0..MEMBERS)
        .map(|number| (member(number), Sense::Match))
        .collect();
    let set = Set {
        family: Family::V4,
        kind: SetKind::Nets,
        members,
    };
    let wanted = BTreeMap::from([("mx4-many".to_owned(), set)]);
    let groups = make(&mut socket, &makings(&wanted)).unwrap();
    assert!(groups > 20, "others are let run in between: {groups}");
    assert!(
        socket.list().unwrap() == all(&wanted),
        "what is read is what was written"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_members_are_put_are_read_back_and_printed_by_the_tool(
        members in btree_map((any::<u32>(), 1_u8..=32), any::<bool>(), 0..40)
    ) {
        let node = TestNetns::new("node");
        let mut socket = SetSocket::open_in(&node).unwrap();
        let member = |((bits, length), except): ((u32, u8), bool)| {
            let address = Ipv4Addr::from_bits(bits);
            let whole = Ipv4Network::new(address, length).unwrap();
            let net = Ipv4Network::new(whole.network(), length).unwrap();
            (Member::Net(net.into()), if except { Sense::Except } else { Sense::Match })
        };
        let set = Set {
            family: Family::V4,
            kind: SetKind::Nets,
            members: members.into_iter().map(member).collect(),
        };
        let wanted = BTreeMap::from([("mx4-a".to_owned(), set)]);
        make(&mut socket, &makings(&wanted)).unwrap();
        prop_assert_eq!(socket.list().unwrap(), all(&wanted));
        let printed = sets(&node).len();
        prop_assert_eq!(printed, 1 + wanted["mx4-a"].members.len());
    }
}
