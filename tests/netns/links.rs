//! Interfaces, addresses, neighbours.

use manx_linux::link::{Veth, VethEnd};
use manx_linux::{LinkSocket, Mac, sysctl};
use nix::errno::Errno;

use crate::harness::{TestNetns, exchange};

#[test]
fn a_pair_spans_two_namespaces_from_the_start() {
    let (left, right) = (TestNetns::new("left"), TestNetns::new("right"));
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let veth = Veth {
        end: VethEnd {
            mac: Some(mac),
            mtu: Some(1400),
            ..VethEnd::named("a")
        },
        peer: VethEnd {
            mtu: Some(1300),
            netns: Some(&right),
            ..VethEnd::named("b")
        },
    };
    let (mut lefts, mut rights) = (
        LinkSocket::open_in(&left).unwrap(),
        LinkSocket::open_in(&right).unwrap(),
    );
    lefts.create_veth(&veth).unwrap();
    let a = lefts.get("a").unwrap().unwrap();
    let b = rights.get("b").unwrap().unwrap();
    assert_eq!(
        (a.mtu, a.mac, a.kind.as_deref(), a.up),
        (1400, Some(mac), Some("veth"), false)
    );
    assert_eq!((b.mtu, a.peer, b.peer), (1300, Some(b.index), Some(a.index)));
    assert_eq!(lefts.create_veth(&veth).unwrap_err().errno(), Some(Errno::EEXIST));

    lefts.set_mtu(a.index, 1200).unwrap();
    lefts.set_mac(a.index, Mac([2, 0, 0, 0, 0, 2])).unwrap();
    lefts.set_up(a.index).unwrap();
    let changed = lefts.get("a").unwrap().unwrap();
    assert_eq!(
        (changed.mtu, changed.mac, changed.up),
        (1200, Some(Mac([2, 0, 0, 0, 0, 2])), true)
    );
    lefts.set_down(a.index).unwrap();
    assert!(!lefts.get("a").unwrap().unwrap().up);

    assert!(lefts.delete("a").unwrap());
    assert!(!lefts.delete("a").unwrap());
    assert_eq!(rights.get("b").unwrap(), None, "both ends go together");
}

#[test]
fn addresses_come_and_go_and_neighbours_are_known_for_good() {
    let (left, right) = (TestNetns::new("left"), TestNetns::new("right"));
    left.connect(
        &right,
        "e0",
        [&["192.0.2.1/24", "fd00::1/64"], &["192.0.2.2/24", "fd00::2/64"]],
    );
    for address in ["192.0.2.2", "fd00::2"] {
        let address = address.parse().unwrap();
        assert!(exchange(&left, &right, address).is_some(), "{address}");
    }
    let mut links = LinkSocket::open_in(&left).unwrap();
    let index = links.get("e0").unwrap().unwrap().index;
    let before = links.addresses(index).unwrap();
    for address in ["192.0.2.1/24", "fd00::1/64"] {
        let address = address.parse().unwrap();
        assert!(before.contains(&address), "{before:?}");
        links.add_address(index, address).unwrap();
        links.delete_address(index, address).unwrap();
        let again = links.delete_address(index, address).unwrap_err();
        assert_eq!(again.errno(), Some(Errno::EADDRNOTAVAIL));
        assert!(!links.addresses(index).unwrap().contains(&address));
    }
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    for address in ["192.0.2.9", "fd00::9"] {
        links.add_neighbour(index, address.parse().unwrap(), mac).unwrap();
        assert!(
            links
                .neighbours(index)
                .unwrap()
                .contains(&(address.parse().unwrap(), mac))
        );
    }
}

#[test]
fn a_bridge_makes_one_segment_of_many_links() {
    let (fabric, one, two) = (
        TestNetns::new("fabric"),
        TestNetns::new("one"),
        TestNetns::new("two"),
    );
    let mut links = LinkSocket::open_in(&fabric).unwrap();
    links.create_bridge("br0").unwrap();
    let bridge = links.get("br0").unwrap().unwrap();
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    links.set_up(bridge.index).unwrap();
    for (node, port, address) in [(&one, "p1", "192.0.2.1/24"), (&two, "p2", "192.0.2.2/24")] {
        fabric.connect(node, port, [&[], &[address]]);
        let index = links.get(port).unwrap().unwrap().index;
        links.set_controller(index, Some(bridge.index)).unwrap();
        assert_eq!(links.get(port).unwrap().unwrap().controller, Some(bridge.index));
    }
    let seen = exchange(&one, &two, "192.0.2.2".parse().unwrap());
    assert_eq!(seen, Some("192.0.2.1".parse().unwrap()));
}

#[test]
fn an_interface_is_renamed_with_all_that_it_has() {
    let (left, right) = (TestNetns::new("left"), TestNetns::new("right"));
    left.connect(&right, "old", [&["192.0.2.1/24"], &["192.0.2.2/24"]]);
    left.ip("route add 198.51.100.1 dev old");
    left.run(|| sysctl::set("ipv4/conf/old/proxy_arp", "1"))
        .unwrap()
        .unwrap();
    let mut links = LinkSocket::open_in(&left).unwrap();
    let index = links.get("old").unwrap().unwrap().index;
    let up_all_the_time = links.rename(index, "new").unwrap();
    let kept = left.ip("route show 198.51.100.1").contains("dev new");
    assert_eq!(kept, up_all_the_time, "its routes go where it is set down");
    assert_eq!(links.get("old").unwrap(), None);

    // As on an older kernel.
    links.rename_while_down(index, "third").unwrap();
    let third = links.get("third").unwrap().unwrap();
    assert_eq!((third.index, third.up), (index, true));
    let setting = left.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/third/proxy_arp"));
    assert_eq!(setting.unwrap().unwrap().trim(), "1");
    links.wait_until_ready("third").unwrap();
    assert!(exchange(&right, &left, "192.0.2.1".parse().unwrap()).is_some());

    let taken = links.rename(index, "lo").unwrap_err();
    assert_eq!(taken.errno(), Some(Errno::EEXIST));
    let refused = links.rename_while_down(index, "lo").unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EEXIST));
    assert!(links.get("third").unwrap().unwrap().up, "it is as it was");
}

#[test]
fn the_kernels_own_words_reach_the_error() {
    let netns = TestNetns::new("words");
    let mut links = LinkSocket::open_in(&netns).unwrap();
    let error = links
        .add_address(99, "192.0.2.1/24".parse().unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot add 192.0.2.1/24 to interface 99: No such device (ENODEV)"),
        "{error}"
    );
    let error = links
        .set_mtu(1, 1)
        .and_then(|()| links.set_controller(1, Some(1)))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ELOOP") || error.contains("EOPNOTSUPP") || error.contains("EINVAL"),
        "{error}"
    );
}
