//! Namespaces: made, entered, removed.

use std::io::ErrorKind;

use manx_linux::{Error, LinkSocket, Netns, sysctl};

use crate::harness::TestNetns;

#[test]
fn a_new_namespace_has_its_loopback_up_and_nothing_else() {
    let netns = TestNetns::new("new");
    let links = LinkSocket::open_in(&netns).unwrap().list().unwrap();
    assert_eq!(links.len(), 1, "{links:?}");
    assert!(links[0].up && links[0].name == "lo");
    let here = Netns::current().unwrap().inode().unwrap();
    let there = netns.run(|| Netns::current().unwrap().inode().unwrap()).unwrap();
    assert_eq!(there, netns.inode().unwrap());
    assert_ne!(here, there);
    assert_eq!(
        here,
        Netns::current().unwrap().inode().unwrap(),
        "the calling thread stays where it is"
    );
}

#[test]
fn a_name_is_given_once_and_deleted_twice() {
    let netns = TestNetns::new("name");
    let taken = Netns::create(netns.path()).unwrap_err();
    assert!(matches!(taken, Error::Os { ref source, .. } if source.kind() == ErrorKind::AlreadyExists));
    assert_eq!(
        Netns::open(netns.path()).unwrap().inode().unwrap(),
        netns.inode().unwrap()
    );
    Netns::delete(netns.path()).unwrap();
    Netns::delete(netns.path()).unwrap();
    assert!(matches!(Netns::open(netns.path()), Err(Error::NoNetns(path)) if path == netns.path()));
}

#[test]
fn a_file_that_is_no_namespace_is_not_entered() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Netns::open(file.path()), Err(Error::NoNetns(_))));
}

#[test]
fn a_command_runs_inside() {
    let netns = TestNetns::new("command");
    let output = netns
        .command("readlink")
        .arg("/proc/self/ns/net")
        .output()
        .unwrap();
    let inode = netns.inode().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        format!("net:[{inode}]")
    );
}

#[test]
#[should_panic(expected = "inside")]
fn a_panic_inside_comes_out() {
    TestNetns::new("panic").run(|| panic!("inside")).unwrap();
}

#[test]
fn settings_are_each_namespaces_own() {
    let (one, other) = (TestNetns::new("one"), TestNetns::new("other"));
    one.run(sysctl::enable_forwarding).unwrap().unwrap();
    for (netns, value) in [(&one, "1"), (&other, "0")] {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            assert_eq!(netns.run(|| sysctl::get(name)).unwrap().unwrap(), value);
        }
    }
    let missing = one
        .run(|| sysctl::set("ipv4/conf/eth9/forwarding", "1"))
        .unwrap()
        .unwrap_err();
    assert!(
        missing.to_string().contains("ipv4/conf/eth9/forwarding"),
        "{missing}"
    );
}
