//! Packets that the real kernel's rules log.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use manx_linux::nflog::{Listener, Logged};

use crate::harness::{TestNetns, seen_as};

const GROUP: u16 = 179;

/// Has everything that one machine gets logged and dropped.
fn silent() -> [TestNetns; 2] {
    let pair = TestNetns::pair(["listener", "peer"]);
    for program in ["iptables", "ip6tables"] {
        let rules = [
            ["-A INPUT", "-p ipv6-icmp", "-j ACCEPT"].join(" "),
            format!("-A INPUT -j NFLOG --nflog-group {GROUP} --nflog-prefix denied:{program}"),
            "-A INPUT -j DROP".to_owned(),
        ];
        let skipped = usize::from(program == "iptables");
        for rule in &rules[skipped..] {
            let output = pair[0].command(program).args(rule.split(' ')).output().unwrap();
            assert!(
                output.status.success(),
                "{rule}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    pair
}

async fn heard(listener: &mut Listener) -> Logged {
    let next = tokio::time::timeout(Duration::from_secs(5), listener.next());
    next.await.expect("it was logged").unwrap()
}

#[tokio::test]
async fn logged_packets_are_told_with_their_rule_and_ends() {
    let [listening, peer] = silent();
    let mut listener = Listener::open_in(&listening, GROUP).unwrap();
    for (address, program) in [("192.0.2.1", "iptables"), ("2001:db8::1", "ip6tables")] {
        let address: IpAddr = address.parse().unwrap();
        let tcp = SocketAddr::new(address, 443);
        let refused = peer
            .run(|| TcpStream::connect_timeout(&tcp, Duration::from_millis(50)))
            .unwrap();
        assert!(refused.is_err());
        let Logged {
            prefix,
            from,
            to,
            protocol,
            source,
            destination,
        } = heard(&mut listener).await;
        assert_eq!(
            (prefix, protocol, destination),
            (format!("denied:{program}"), 6, tcp)
        );
        assert!(from.is_some() && to.is_none() && source.port() > 0);
    }
    let target = "192.0.2.1".parse().unwrap();
    assert_eq!(seen_as(&peer, &listening, target), None);
    let udp = loop {
        let logged = heard(&mut listener).await;
        if logged.protocol == 17 {
            break logged;
        }
    };
    assert_eq!(udp.source.ip(), "192.0.2.2".parse::<IpAddr>().unwrap());
    assert_eq!(udp.destination.ip(), target);
    let ping = peer
        .command("ping")
        .args(["-c1", "-W1", "192.0.2.1"])
        .output()
        .unwrap();
    assert!(!ping.status.success());
    let icmp = loop {
        let logged = heard(&mut listener).await;
        if logged.protocol == 1 {
            break logged;
        }
    };
    assert_eq!((icmp.source.port(), icmp.destination.port()), (0, 0));
}

#[tokio::test]
async fn a_group_that_somebody_listens_to_is_refused() {
    let listening = TestNetns::new("listener");
    let _first = Listener::open_in(&listening, GROUP).unwrap();
    let error = Listener::open_in(&listening, GROUP).unwrap_err().to_string();
    assert!(error.contains("group 179") && error.contains("EPERM"), "{error}");
    Listener::open_in(&listening, GROUP + 1).unwrap();
}
