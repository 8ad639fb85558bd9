//! Two network namespaces with a cable between them: the speaker's, and that of all of its peers.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use manx_linux::Netns;
use manx_tests::shell::{ip, ip_batch, namespace};

use crate::lines::Line;

/// The speaker's address.
pub(crate) const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The hardware address that all peers have.
const PEERS_LINK: &str = "02:00:00:00:00:02";

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) speaker: Netns,
    peers: Netns,
    made: [PathBuf; 2],
}

impl World {
    /// With an address for each peer.
    pub(crate) fn new(line: &Line) -> Self {
        let [(speaker_path, speaker), (peers_path, peers)] = [namespace("mxb"), namespace("mxb")];
        let world = Self {
            speaker,
            peers,
            made: [speaker_path, peers_path],
        };
        let name = world.made[1].file_name().and_then(|name| name.to_str());
        let name = name.expect("a name of ours");
        ip(
            &world.speaker,
            &format!("link add eth0 type veth peer name eth0 address {PEERS_LINK} netns {name}"),
        );
        let (mut here, mut there) = (String::new(), String::new());
        let say = |text: &mut String, line: String| writeln!(text, "{line}").expect("a string takes all");
        say(&mut here, format!("address add {SPEAKER}/16 dev eth0"));
        for side in [&mut here, &mut there] {
            say(side, "link set lo up".to_owned());
            say(side, "link set eth0 up".to_owned());
        }
        for peer in &line.peers {
            let address = peer.address;
            say(&mut there, format!("address add {address}/16 dev eth0"));
            // So that no neighbour table overflows, and nobody is asked for.
            let known = format!("neighbor replace {address} lladdr {PEERS_LINK} dev eth0 nud permanent");
            say(&mut here, known);
        }
        ip_batch(&world.speaker, &here);
        ip_batch(&world.peers, &there);
        world
    }

    /// Does the peers' part, in their namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.peers.run(work).expect("a namespace of ours can be entered")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for path in &self.made {
            if let Err(error) = Netns::delete(path) {
                eprintln!("{error}");
            }
        }
    }
}
