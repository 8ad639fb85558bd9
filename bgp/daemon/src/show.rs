//! A speaker's peers and paths in the API's words.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use manx_api::operation::DrainStatus;
use manx_api::status::{
    BfdStatus, BgpExplanation, BgpRoute, ExplainedPath, ExplainedPeer, FaultStatus, LimitStatus, PeerStatus,
    RangeStatus, TableDump,
};
use manx_bgp::bfd::SessionSnapshot;
use manx_bgp::filter::NORMAL_PRIORITY;
use manx_bgp::wire::mrt::{self, Viewpoint};
use manx_bgp::wire::{AsPath, Attributes, NextHop, Origin, Segment};
use manx_bgp::{
    DrainPhase, Fault, LimitSnapshot, LimitState, PathSnapshot, PeerKey, PeerSnapshot, Prefix, RangeSnapshot,
    State,
};

use crate::{Handle, LinkKey, LinkSnapshot};

/// Every peer as `bgp.peers` shows it; `origin` says where the session with a peer comes from.
pub async fn peers<'a>(
    handle: &Handle,
    node: &str,
    origin: impl Fn(IpAddr, Option<&LinkKey>) -> &'a str,
) -> Vec<PeerStatus> {
    let (peers, links) = handle.all_peers().await;
    let (sessions, ranges) = (handle.bfd_sessions().await, handle.ranges().await);
    let now = Instant::now();
    let shown = peers.iter().map(|snapshot| {
        let bfd = sessions.iter().find(|session| session.key.peer == snapshot.key);
        let link = links.iter().find(|link| link.peer.as_ref() == Ok(&snapshot.key));
        let link = link.map(|link| &link.key);
        let range = ranges
            .iter()
            .find(|range| range.peers.binary_search(&snapshot.key).is_ok());
        PeerStatus {
            interface: link.map(|link| link.interface.to_string()),
            bfd: bfd.map(watched),
            range: range.map(of_range),
            ..peer(node, snapshot, origin(snapshot.key.address, link), now)
        }
    });
    let missing = links.iter().filter_map(|link| {
        let reason = link.peer.as_ref().err()?;
        let address = link.key.address.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
        let snapshot = missing(link, address, reason);
        Some(PeerStatus {
            interface: Some(link.key.interface.to_string()),
            ..peer(node, &snapshot, origin(address, Some(&link.key)), now)
        })
    });
    shown.chain(missing).collect()
}

/// A neighbour on a link that the speaker does not know, for this reason.
fn missing(link: &LinkSnapshot, address: IpAddr, reason: &str) -> PeerSnapshot {
    PeerSnapshot {
        key: PeerKey { address, scope: 0 },
        asn: link.asn,
        router_id: None,
        state: State::Idle,
        established_since: None,
        received: 0,
        accepted: 0,
        advertised: 0,
        hold_time: link.hold_time,
        drain: None,
        limits: Vec::new(),
        last_error: Some(reason.to_owned()),
        faults: BTreeMap::new(),
    }
}

/// Every path as `bgp.routes` shows it.
pub async fn paths(handle: &Handle, node: &str) -> Vec<BgpRoute> {
    let paths = handle.paths().await;
    paths.iter().map(|snapshot| path(node, snapshot)).collect()
}

/// A prefix as `bgp.explain` shows it; none where there is no path to it.
pub async fn explain(handle: &Handle, node: &str, prefix: Prefix) -> Option<BgpExplanation> {
    let explanation = handle.explain(prefix).await?;
    let paths = explanation.paths.iter().map(|it| ExplainedPath {
        path: path(node, &it.path),
        rule: it.rule.as_ref().map(ToString::to_string),
    });
    let peers = explanation.peers.iter().map(|it| ExplainedPeer {
        peer: it.peer.address,
        advertised: it.advertised,
        rule: it.rule.as_ref().map(ToString::to_string),
        reason: it.reason.clone(),
    });
    Some(BgpExplanation {
        node: node.to_owned(),
        prefix: explanation.prefix.network(),
        paths: paths.collect(),
        peers: peers.collect(),
    })
}

/// Every path, as `bgp.dump` gives it; the speaker says by which identifier and AS it goes.
pub async fn dump(handle: &Handle, router_id: Ipv4Addr, asn: u32) -> TableDump {
    let (peers, paths) = (handle.peers().await, handle.paths().await);
    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = Viewpoint {
        router_id,
        asn,
        now: Instant::now(),
        unix_time: u32::try_from(unix_time.as_secs()).unwrap_or(u32::MAX),
    };
    TableDump {
        mrt: BASE64_STANDARD.encode(mrt::table_dump(from, &peers, &paths)),
    }
}

/// A session as `bgp.peers` shows it, by itself.
fn peer(node: &str, snapshot: &PeerSnapshot, origin: &str, now: Instant) -> PeerStatus {
    let since = snapshot
        .established_since
        .map(|since| now.saturating_duration_since(since).as_secs());
    PeerStatus {
        node: node.to_owned(),
        address: snapshot.key.address,
        interface: None,
        asn: snapshot.asn,
        state: snapshot.state.to_string(),
        uptime_seconds: since.unwrap_or(0),
        received: snapshot.received,
        accepted: snapshot.accepted,
        advertised: snapshot.advertised,
        origin: origin.to_owned(),
        hold_time: u16::try_from(snapshot.hold_time.as_secs()).unwrap_or(u16::MAX),
        drain: snapshot.drain.map(|phase| drain(phase, now)),
        limits: snapshot.limits.iter().map(limit).collect(),
        last_error: snapshot.last_error.clone(),
        faults: snapshot.faults.iter().map(fault).collect(),
        bfd: None,
        range: None,
    }
}

/// A range as `bgp.peers` shows it.
fn of_range(snapshot: &RangeSnapshot) -> RangeStatus {
    RangeStatus {
        prefix: snapshot.range.network(),
        peers: snapshot.peers.len(),
        limit: snapshot.limit,
        refused: snapshot.refused,
    }
}

/// A drain as `bgp.peers` shows it.
fn drain(phase: DrainPhase, now: Instant) -> DrainStatus {
    let (name, until) = match phase {
        DrainPhase::Marked { until } => ("marked", until),
        DrainPhase::Withdrawn { until } => ("withdrawn", until),
        DrainPhase::Down => ("down", now),
    };
    DrainStatus {
        phase: name.to_owned(),
        seconds_left: until.saturating_duration_since(now).as_secs(),
    }
}

/// A limit as `bgp.peers` shows it.
fn limit(snapshot: &LimitSnapshot) -> LimitStatus {
    LimitStatus {
        family: snapshot.family.to_string(),
        received: snapshot.received,
        max: snapshot.max,
        state: match snapshot.state {
            LimitState::Below => "below",
            LimitState::Near => "near",
            LimitState::Over => "over",
        }
        .to_owned(),
    }
}

/// A kind of error as `bgp.peers` shows it.
fn fault((fault, &count): (&Fault, &u64)) -> FaultStatus {
    FaultStatus {
        attribute: fault.to_string(),
        action: fault.action.to_string(),
        count,
    }
}

/// A BFD session as `bgp.peers` shows it.
fn watched(session: &SessionSnapshot) -> BfdStatus {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    BfdStatus {
        state: session.state.to_string(),
        remote_state: session.remote_state.map(|state| state.to_string()),
        diagnostic: session.diagnostic.to_string(),
        multihop: session.key.multihop,
        transmit_interval: session.transmit_interval.map(milliseconds),
        detection_time: session.detection_time.map(milliseconds),
    }
}

/// A path as `bgp.routes` shows it.
fn path(node: &str, snapshot: &PathSnapshot) -> BgpRoute {
    let attributes: &Attributes = &snapshot.attributes;
    BgpRoute {
        node: node.to_owned(),
        prefix: snapshot.prefix.network(),
        next_hop: snapshot.next_hop.map(NextHop::address),
        peer: snapshot.peer.map(|peer| peer.address),
        best: snapshot.best,
        as_path: as_path(&attributes.as_path),
        local_pref: attributes.local_pref,
        med: attributes.med,
        priority: Some(snapshot.priority).filter(|it| *it != NORMAL_PRIORITY),
        origin: match attributes.origin {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "Incomplete",
        }
        .to_owned(),
        communities: communities(attributes),
        reason: snapshot.reason.clone(),
        stale: snapshot.stale,
    }
}

/// Sequences as `1 2`, sets as `{1 2}`.
fn as_path(path: &AsPath) -> String {
    let join = |asns: &[u32]| asns.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let segments = path.segments.iter().map(|segment| match segment {
        Segment::Sequence(asns) => join(asns),
        Segment::Set(asns) => format!("{{{}}}", join(asns)),
    });
    segments.collect::<Vec<_>>().join(" ")
}

/// `1:2` (RFC 1997), `0x0002…` (RFC 4360, undecoded), `1:2:3` (RFC 8092).
fn communities(attributes: &Attributes) -> Vec<String> {
    let standard = attributes
        .communities
        .iter()
        .map(|c| format!("{}:{}", c >> 16, c & 0xffff));
    let extended = attributes
        .extended_communities
        .iter()
        .map(|c| format!("{:#018x}", u64::from_be_bytes(*c)));
    let large = attributes
        .large_communities
        .iter()
        .map(|[global, a, b]| format!("{global}:{a}:{b}"));
    standard.chain(extended).chain(large).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_communities_read_as_operators_write_them() {
        let path = AsPath {
            segments: vec![Segment::Sequence(vec![65001, 65002]), Segment::Set(vec![1, 2])].into(),
        };
        assert_eq!(as_path(&path), "65001 65002 {1 2}");
        let attributes = Attributes {
            communities: [(65001 << 16) | 100].into(),
            extended_communities: [[0, 2, 0, 0, 0, 0, 0, 100]].into(),
            large_communities: [[65001, 1, 2]].into(),
            ..Attributes::default()
        };
        assert_eq!(
            communities(&attributes),
            ["65001:100", "0x0002000000000064", "65001:1:2"]
        );
    }
}
