//! Who peers with whom, from the datastore and the agents: as text, as a graph for programs, as a drawing.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::Write as _;
use std::net::IpAddr;

use manx_api::rpc::Method;
use manx_api::status::PeerStatus;
use manx_api::{Kind, Resource};
use manx_store::Store as _;
use serde::Serialize;

use crate::cli::PictureFormat;
use crate::error::Result;
use crate::output;
use crate::target::{Target, ask_all};

/// What a session that works is called.
const ESTABLISHED: &str = "Established";

/// Who peers with whom.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Graph {
    vertices: Vec<Vertex>,
    sessions: Vec<Session>,
}

/// A speaker.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Vertex {
    /// A node's name, or a router's address.
    name: String,
    /// Whether it is a node of the cluster.
    member: bool,
    asn: Option<u32>,
    addresses: Vec<IpAddr>,
}

/// A session, once, whoever of its two ends told of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Session {
    ends: [String; 2],
    origin: String,
    state: String,
}

/// `topology`.
pub(crate) async fn show(target: &Target, format: PictureFormat) -> Result<()> {
    let nodes = target.store().await?.list(Kind::Node, None).await?.items;
    let (peers, outcome) = ask_all::<PeerStatus>(&target.agents(&[])?, Method::BgpPeers);
    let graph = graph(&nodes, &peers);
    output::emit(&match format {
        PictureFormat::Text => text(&graph),
        PictureFormat::Json => output::json(&graph)?,
        PictureFormat::Dot => dot(&graph),
        PictureFormat::Svg => svg(&graph),
    })?;
    outcome
}

fn graph(nodes: &[Resource], peers: &[PeerStatus]) -> Graph {
    let mut vertices: Vec<Vertex> = nodes.iter().filter_map(member).collect();
    let mut names: BTreeMap<IpAddr, String> = BTreeMap::new();
    for vertex in &vertices {
        names.extend(
            vertex
                .addresses
                .iter()
                .map(|address| (*address, vertex.name.clone())),
        );
    }
    let mut sessions: BTreeMap<([String; 2], IpAddr), Session> = BTreeMap::new();
    for peer in peers {
        let other = names.entry(peer.address).or_insert_with(|| {
            let name = peer.address.to_string();
            vertices.push(Vertex {
                name: name.clone(),
                member: false,
                asn: Some(peer.asn),
                addresses: vec![peer.address],
            });
            name
        });
        let mut ends = [peer.node.clone(), other.clone()];
        ends.sort();
        // Between two members there is one session a family, told of by both; between others, one an address.
        let member = vertices
            .iter()
            .any(|vertex| vertex.member && vertex.name == *other);
        let address = if member {
            IpAddr::from([0, 0, 0, 0])
        } else {
            peer.address
        };
        let session = Session {
            ends: ends.clone(),
            origin: peer.origin.clone(),
            state: peer.state.clone(),
        };
        let known = sessions.entry((ends, address)).or_insert(session);
        if peer.state != ESTABLISHED {
            known.state.clone_from(&peer.state);
        }
    }
    Graph {
        vertices,
        sessions: sessions.into_values().collect(),
    }
}

fn member(resource: &Resource) -> Option<Vertex> {
    let Resource::Node(node) = resource else {
        return None;
    };
    let bgp = node.spec.bgp.clone().unwrap_or_default();
    let v4 = bgp.ipv4_address.map(|network| IpAddr::from(network.ip()));
    let v6 = bgp.ipv6_address.map(|network| IpAddr::from(network.ip()));
    let addresses = v4.into_iter().chain(v6).collect();
    Some(Vertex {
        name: node.metadata.name.clone(),
        member: true,
        asn: bgp.as_number,
        addresses,
    })
}

impl Graph {
    fn sessions_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Session)> {
        self.sessions
            .iter()
            .filter_map(move |session| match &session.ends {
                [one, other] if one == name => Some((other.as_str(), session)),
                [one, other] if other == name => Some((one.as_str(), session)),
                [..] => None,
            })
    }
}

/// Each speaker with a branch for each of its sessions.
fn text(graph: &Graph) -> String {
    let mut text = String::new();
    for vertex in &graph.vertices {
        let mut facts: Vec<String> = vertex.asn.map(|asn| format!("AS {asn}")).into_iter().collect();
        facts.extend(
            vertex
                .addresses
                .iter()
                .map(ToString::to_string)
                .filter(|address| *address != vertex.name),
        );
        let _infallible = writeln!(text, "{} ({})", vertex.name, facts.join(", "));
        let sessions: Vec<_> = graph.sessions_of(&vertex.name).collect();
        for (index, (other, session)) in sessions.iter().enumerate() {
            let branch = if index + 1 == sessions.len() {
                "└──"
            } else {
                "├──"
            };
            let _infallible = writeln!(text, "{branch} {other}  {}  {}", session.origin, session.state);
        }
    }
    text
}

/// A colour for a session, by name.
fn colour(session: &Session) -> &'static str {
    if session.state == ESTABLISHED {
        "seagreen"
    } else {
        "crimson"
    }
}

fn dot(graph: &Graph) -> String {
    let mut text = "graph manx {\n  layout=circo;\n  node [shape=box];\n".to_owned();
    for vertex in &graph.vertices {
        let asn = vertex.asn.map(|asn| format!("\\nAS {asn}")).unwrap_or_default();
        let shape = if vertex.member { "box" } else { "ellipse" };
        let _infallible = writeln!(
            text,
            "  \"{0}\" [label=\"{0}{asn}\", shape={shape}];",
            vertex.name
        );
    }
    for session in &graph.sessions {
        let [one, other] = &session.ends;
        let _infallible = writeln!(
            text,
            "  \"{one}\" -- \"{other}\" [color={}, tooltip=\"{}: {}\"];",
            colour(session),
            session.origin,
            session.state
        );
    }
    text + "}\n"
}

/// Speakers on a circle, sessions as lines between them.
fn svg(graph: &Graph) -> String {
    const SIZE: f64 = 800.0;
    const RADIUS: f64 = 320.0;
    let place = |index: usize| {
        #[expect(clippy::cast_precision_loss, reason = "nobody draws 2^52 nodes")]
        let turn = TAU * index as f64 / graph.vertices.len().max(1) as f64;
        (SIZE / 2.0 + RADIUS * turn.sin(), SIZE / 2.0 - RADIUS * turn.cos())
    };
    let places: BTreeMap<&str, (f64, f64)> = graph
        .vertices
        .iter()
        .enumerate()
        .map(|(index, vertex)| (vertex.name.as_str(), place(index)))
        .collect();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {SIZE}\" font-family=\"sans-serif\" font-size=\"14\">\n"
    );
    for session in &graph.sessions {
        let [Some((x1, y1)), Some((x2, y2))] = session.ends.each_ref().map(|end| places.get(end.as_str()))
        else {
            continue;
        };
        let _infallible = writeln!(
            text,
            "  <line x1=\"{x1:.0}\" y1=\"{y1:.0}\" x2=\"{x2:.0}\" y2=\"{y2:.0}\" stroke=\"{}\"><title>{} – {}: {}</title></line>",
            colour(session),
            session.ends[0],
            session.ends[1],
            session.state
        );
    }
    for vertex in &graph.vertices {
        let Some((x, y)) = places.get(vertex.name.as_str()) else {
            continue;
        };
        let _infallible = writeln!(
            text,
            "  <circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"34\" fill=\"{}\" stroke=\"black\"/>\n  \
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            if vertex.member { "white" } else { "lightgrey" },
            y + 5.0,
            vertex.name
        );
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use manx_api::manifest;

    use super::*;

    fn peer(node: &str, address: &str, origin: &str, state: &str) -> PeerStatus {
        PeerStatus {
            node: node.into(),
            address: address.parse().unwrap(),
            interface: None,
            asn: 64512,
            state: state.into(),
            uptime_seconds: 0,
            received: 0,
            accepted: 0,
            advertised: 0,
            origin: origin.into(),
            hold_time: 9,
            drain: None,
            limits: Vec::new(),
            last_error: None,
            faults: Vec::new(),
            bfd: None,
        }
    }

    fn example() -> Graph {
        let node = |name: &str, address: &str| {
            format!(
                "apiVersion: manx.network/v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: {address}/24}}}}\n"
            )
        };
        let manifest = format!("{}---\n{}", node("n1", "192.0.2.1"), node("n2", "192.0.2.2"));
        let peers = [
            peer("n1", "192.0.2.2", "mesh", ESTABLISHED),
            peer("n2", "192.0.2.1", "mesh", "OpenConfirm"),
            peer("n1", "192.0.2.254", "tor", ESTABLISHED),
        ];
        graph(&manifest::load("test", &manifest).unwrap(), &peers)
    }

    #[test]
    fn a_session_is_told_once_with_the_worse_of_its_ends() {
        insta::assert_snapshot!(text(&example()), @r"
        n1 (192.0.2.1)
        ├── 192.0.2.254  tor  Established
        └── n2  mesh  OpenConfirm
        n2 (192.0.2.2)
        └── n1  mesh  OpenConfirm
        192.0.2.254 (AS 64512)
        └── n1  tor  Established
        ");
    }

    #[test]
    fn drawings_hold_every_speaker_and_session() {
        let graph = example();
        assert_eq!(dot(&graph).matches(" -- ").count(), 2);
        assert_eq!(svg(&graph).matches("<line").count(), 2);
        assert_eq!(svg(&graph).matches("<circle").count(), 3);
    }
}
