//! The columns of what agents say of themselves.

use manx_api::status::{BgpRoute, KernelRoute, NodeStatus, PeerStatus};

use crate::output::{Cell, Heads, Row};

impl Row for NodeStatus {
    fn heads() -> Heads {
        Heads {
            narrow: &["NODE", "READY", "ASN", "ROUTER ID", "PEERS", "ROUTES", "PODS", "UPTIME"],
            wide: &["VERSION", "WAITING FOR"],
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let peers = format!("{}/{}", self.peers_established, self.peers_configured);
        let routes = format!("{}/{}", self.routes_installed, self.routes_wanted);
        let waiting = (!self.waiting_for.is_empty()).then(|| self.waiting_for.join(", "));
        vec![
            Cell::from(&self.node),
            Cell::verdict(if self.ready { "yes" } else { "no" }, self.ready),
            self.asn.into(),
            self.router_id.into(),
            Cell::verdict(peers, self.peers_established == self.peers_configured),
            Cell::verdict(routes, self.routes_installed == self.routes_wanted),
            self.pods.into(),
            duration(self.uptime_seconds).into(),
            Cell::from(&self.version),
            Cell::or_dash(waiting),
        ]
    }

    fn name(&self) -> String {
        format!("node/{}", self.node)
    }
}

impl Row for PeerStatus {
    fn heads() -> Heads {
        Heads {
            narrow: &["NODE", "PEER ADDRESS", "ASN", "STATE", "UPTIME", "RECEIVED", "ACCEPTED", "ADVERTISED"],
            wide: &["PEER TYPE", "HOLD TIME", "LAST ERROR"],
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let up = self.state == "Established";
        vec![
            Cell::from(&self.node),
            self.address.into(),
            self.asn.into(),
            Cell::verdict(&self.state, up),
            Cell::or_dash(up.then(|| duration(self.uptime_seconds))),
            self.received.into(),
            self.accepted.into(),
            self.advertised.into(),
            Cell::from(&self.origin),
            self.hold_time.into(),
            Cell::or_dash(self.last_error.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("peer/{}/{}", self.node, self.address)
    }
}

impl Row for BgpRoute {
    fn heads() -> Heads {
        Heads {
            narrow: &["NODE", "BEST", "PREFIX", "NEXT HOP", "PEER", "AS PATH"],
            wide: &["LOCAL PREF", "MED", "ORIGIN", "COMMUNITIES", "WHY NOT"],
        }
    }

    fn cells(&self) -> Vec<Cell> {
        let marks = [(self.best, "*"), (self.stale, "stale")];
        let marks: Vec<&str> = marks.into_iter().filter_map(|(set, mark)| set.then_some(mark)).collect();
        vec![
            Cell::from(&self.node),
            marks.join(" ").into(),
            self.prefix.into(),
            Cell::or_dash(self.next_hop),
            Cell::from(self.peer.map_or_else(|| "own".to_owned(), |peer| peer.to_string())),
            Cell::from(&self.as_path),
            Cell::or_dash(self.local_pref),
            Cell::or_dash(self.med),
            Cell::from(&self.origin),
            Cell::or_dash((!self.communities.is_empty()).then(|| self.communities.join(" "))),
            Cell::or_dash(self.reason.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("path/{}/{}", self.node, self.prefix)
    }
}

impl Row for KernelRoute {
    fn heads() -> Heads {
        Heads { narrow: &["NODE", "PREFIX", "TARGET", "SOURCE", "STATE"], wide: &["ERROR"] }
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::from(&self.node),
            self.prefix.into(),
            Cell::from(&self.target),
            Cell::from(&self.source),
            Cell::verdict(&self.state, self.state == "installed"),
            Cell::or_dash(self.error.as_ref()),
        ]
    }

    fn name(&self) -> String {
        format!("route/{}/{}", self.node, self.prefix)
    }
}

/// Seconds as people say them, the two largest units: `42s`, `3m5s`, `2h10m`, `5d3h`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        86_400.. => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let words: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 86_400, 446_400].map(duration).to_vec();
        assert_eq!(words, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d0h", "5d4h"]);
    }
}
