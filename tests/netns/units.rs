//! What `deploy/systemd` lets the programs do is enough for them.

use std::fs;
use std::process::Child;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_bgp::{PeerConfig, PeerKey, Prefix};
use manx_tests::binaries::as_unit;

use crate::harness::{TestNetns, eventually};
use crate::security::{ASN, Speaker, ip, md5};

const SOON: Duration = Duration::from_secs(30);

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0
            .kill()
            .and_then(|()| self.0.wait())
            .map_or_else(|error| eprintln!("{error}"), drop);
    }
}

#[test]
fn a_speaker_with_its_units_capabilities_signs_sessions_and_writes_routes() {
    let [ours, theirs] = ["ours", "theirs"].map(TestNetns::new);
    ours.connect(&theirs, "eth0", [&["10.9.0.1/24"], &["10.9.0.2/24"]]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("speaker.yaml");
    let settings = format!(
        "asn: {ASN}\nrouterId: 10.9.0.1\nlisten: [\"0.0.0.0:179\"]\nfib: true\nneighbors:\n- address: 10.9.0.2\n  \
         asn: {ASN}\n  password: quiet\n"
    );
    fs::write(&file, settings).unwrap();
    let speaker = as_unit(&ours, "manx-bgpd").arg("--config").arg(file).spawn();
    let _speaker = Running(speaker.unwrap());
    let peer = Speaker::start(&theirs, "10.9.0.2".parse().unwrap(), false);
    peer.set(PeerConfig {
        local_address: Some(ip("10.9.0.2")),
        next_hop_v4: Some("10.9.0.2".parse().unwrap()),
        transport: md5("quiet"),
        ..PeerConfig::new(PeerKey::of(ip("10.9.0.1"), 0), ASN)
    });
    let announced: IpNetwork = "10.7.0.0/24".parse().unwrap();
    peer.originate(Prefix::new(announced));
    let routed = || ours.ip("route show 10.7.0.0/24").contains("via 10.9.0.2");
    assert!(eventually(SOON, routed), "{}", ours.ip("route"));
}
