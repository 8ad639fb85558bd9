//! CHECK's first half: what the runtime says that ADD answered (`prevResult`), beside what the attachment holds.
//!
//! The specification has us find what we made, as far as `prevResult` still lists it, and take for right what
//! plugins behind us have changed: so the result says what to expect of the kernel, too.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_cni::{Code, Error, Interface, IpConfig, MacAddress, Success};
use manx_linux::PodLink;
use manx_linux::link::Mac;
use manx_linux::pod::{Amendments, GATEWAY_V4, GATEWAY_V6};

use crate::convert;

/// The gateways that only our results have.
const GATEWAYS: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];

/// What `prevResult` says of an attachment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Review {
    /// What it says otherwise than the attachment is held, in words.
    pub(super) differences: Vec<String>,
    /// The MAC of the pod's end.
    pub(super) mac: Option<Mac>,
    /// What others have changed.
    pub(super) amendments: Amendments,
}

impl Review {
    /// Compares a result with the addresses and the names of a link.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the result has a MAC that is none.
    pub(super) fn of(answered: &Success, link: &PodLink) -> Result<Self, Error> {
        let mut review = Self {
            differences: Vec::new(),
            mac: None,
            amendments: Amendments::default(),
        };
        let inside = |interface: &Interface| {
            interface
                .sandbox
                .as_deref()
                .is_some_and(|sandbox| !sandbox.is_empty())
        };
        let listed = |name: &str, inside_: bool| {
            answered
                .interfaces
                .iter()
                .position(|interface| interface.name == name && inside(interface) == inside_)
        };
        review.require(listed(&link.host_ifname, false).is_some(), || {
            format!("prevResult has no interface {} on the node", link.host_ifname)
        });
        let Some(index) = listed(&link.ifname, true) else {
            let missing = format!("prevResult has no interface {} in the container", link.ifname);
            review.differences.push(missing);
            return Ok(review);
        };
        let pod = &answered.interfaces[index];
        review.amendments.mtu = pod.mtu.filter(|mtu| *mtu > 0);
        review.mac = mac(pod)?;
        review.addresses(answered, index, link);
        review.amendments.gateways = GATEWAYS
            .into_iter()
            .filter(|gateway| !answered.routes.iter().any(|route| route.gw == Some(*gateway)))
            .collect();
        Ok(review)
    }

    fn addresses(&mut self, answered: &Success, index: usize, link: &PodLink) {
        let of_pod = |ip: &&IpConfig| ip.interface.is_none_or(|interface| interface == index);
        let answered: Vec<&IpConfig> = answered.ips.iter().filter(of_pod).collect();
        for address in &link.addresses {
            let own = IpNetwork::from(*address);
            self.require(answered.iter().any(|ip| ip.address == own), || {
                format!("prevResult lacks {own}, which the attachment holds")
            });
        }
        for ip in answered {
            if link.addresses.contains(&ip.address.ip()) {
                continue;
            }
            if ip.gateway.is_some_and(|gateway| GATEWAYS.contains(&gateway)) {
                let lost = format!(
                    "prevResult has {}, which the attachment does not hold",
                    ip.address
                );
                self.differences.push(lost);
            } else {
                self.amendments.addresses.push(ip.address);
            }
        }
    }

    fn require(&mut self, condition: bool, otherwise: impl FnOnce() -> String) {
        if !condition {
            self.differences.push(otherwise());
        }
    }
}

/// The MAC that the result gives an interface.
fn mac(interface: &Interface) -> Result<Option<Mac>, Error> {
    let Some(text) = interface.mac.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed: Result<MacAddress, _> = text.parse();
    parsed.map(|mac| Some(convert::mac(mac))).map_err(|error| {
        let message = format!("prevResult: interface {}: {error}", interface.name);
        Error::new(Code::InvalidConfig, message)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn link() -> PodLink {
        PodLink {
            netns: "/run/netns/pod".into(),
            ifname: "eth0".to_owned(),
            host_ifname: "mx0123456789a".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            mtu: Some(1500),
            mac: None,
        }
    }

    fn answered() -> Value {
        json!({
            "interfaces": [
                {"name": "mx0123456789a", "mac": "ee:ee:ee:ee:ee:ee"},
                {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/pod"},
            ],
            "ips": [
                {"address": "10.0.0.1/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd00::1/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
        })
    }

    fn review(answered: Value) -> Review {
        Review::of(&serde_json::from_value(answered).unwrap(), &link()).unwrap()
    }

    #[test]
    fn what_was_answered_and_is_held_has_no_difference() {
        let review = review(answered());
        assert_eq!(review.differences, [""; 0]);
        assert_eq!(review.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        let amendments = Amendments {
            mtu: Some(1500),
            ..Amendments::default()
        };
        assert_eq!(review.amendments, amendments);
    }

    /// Specification section 2, CHECK: "must allow for a later chained plugin to have modified networking resources".
    #[test]
    fn what_a_later_plugin_changed_is_taken_as_right() {
        let mut later = answered();
        later["interfaces"][1]["mac"] = json!("02:00:00:00:00:02");
        later["interfaces"][1]["mtu"] = json!(1300);
        later["ips"]
            .as_array_mut()
            .unwrap()
            .push(json!({"address": "192.0.2.9/24", "interface": 1}));
        later["routes"] = json!([{"dst": "::/0", "gw": "fe80::1"}]);
        let review = review(later);
        assert_eq!(review.differences, [""; 0]);
        assert_eq!(review.mac, Some(Mac([2, 0, 0, 0, 0, 2])));
        let amendments = Amendments {
            addresses: vec!["192.0.2.9/24".parse().unwrap()],
            gateways: vec![GATEWAY_V4.into()],
            mtu: Some(1300),
        };
        assert_eq!(review.amendments, amendments);
    }

    #[test]
    fn every_difference_from_what_is_held_is_named() {
        let mut other = answered();
        other["interfaces"][0]["name"] = json!("mx00000000000");
        other["ips"][0]["address"] = json!("10.0.0.9/32");
        assert_eq!(
            review(other).differences,
            [
                "prevResult has no interface mx0123456789a on the node",
                "prevResult lacks 10.0.0.1/32, which the attachment holds",
                "prevResult has 10.0.0.9/32, which the attachment does not hold",
            ]
        );
        let mut gone = answered();
        gone["interfaces"][1]["sandbox"] = json!("");
        let differences = review(gone).differences;
        assert_eq!(differences, ["prevResult has no interface eth0 in the container"]);
    }

    #[test]
    fn a_mac_that_is_none_is_the_configurations_fault() {
        let mut bad = answered();
        bad["interfaces"][1]["mac"] = json!("x");
        let error = Review::of(&serde_json::from_value(bad).unwrap(), &link()).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.message.contains("interface eth0: 'x'"), "{error}");
    }
}
