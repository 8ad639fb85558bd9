//! `node`, `bgp`, `route`: what agents say.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ipnetwork::IpNetwork;
use manx_api::operation::{DrainCall, Operated, ResetCall, UndrainCall};
use manx_api::rpc::Method;
use manx_api::status::{
    BgpExplanation, BgpRoute, ExplainCall, ExplainedPath, KernelRoute, NodeStatus, PeerStatus, Reload,
    TableDump,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cli::{BgpCommand, NodeCommand, NodesArgs, OutputArgs, RouteCommand, SpeakerArgs};
use crate::error::{CtlError, Result};
use crate::output::{self, Format, Row};
use crate::rows::{Change, PeerLine};
use crate::target::{Agent, Target, ask, ask_all, ask_with};

/// `bgp …`.
pub(crate) fn bgp(target: &Target, command: &BgpCommand) -> Result<()> {
    match command {
        BgpCommand::Peers(args) => list::<PeerStatus>(target, args, Method::BgpPeers),
        BgpCommand::Routes(args) => list::<BgpRoute>(target, args, Method::BgpRoutes),
        BgpCommand::Explain { prefix, args } => explain(target, *prefix, args),
        BgpCommand::Dump { file, node } => dump(target, file, node.as_ref()),
        BgpCommand::Drain {
            peer,
            seconds,
            message,
            args,
        } => {
            let call = DrainCall {
                peer: *peer,
                seconds: *seconds,
                message: message.clone(),
            };
            operate(target, args, Method::BgpDrain, json!(call), "drains")
        }
        BgpCommand::Undrain { peer, args } => {
            let call = UndrainCall { peer: *peer };
            operate(target, args, Method::BgpUndrain, json!(call), "may come back")
        }
        BgpCommand::Reset {
            peer,
            soft,
            message,
            args,
        } => {
            let call = ResetCall {
                peer: *peer,
                soft: *soft,
                message: message.clone(),
            };
            let done = if *soft { "refreshed" } else { "reset" };
            operate(target, args, Method::BgpReset, json!(call), done)
        }
        BgpCommand::Reload(OutputArgs { output }) => reload(target, *output),
    }
}

fn explain(target: &Target, prefix: IpNetwork, args: &NodesArgs) -> Result<()> {
    let mut found = Vec::new();
    for agent in target.agents(&args.nodes)? {
        let call = json!(ExplainCall { prefix });
        let answer: Option<BgpExplanation> = ask_with(&agent.socket, Method::BgpExplain, call)?;
        found.extend(answer);
    }
    if found.is_empty() {
        return Err(CtlError::NoPath(prefix));
    }
    output::emit(&explanation_text(&found, args.output.output)?)
}

fn explanation_text(found: &[BgpExplanation], format: Format) -> Result<String> {
    match format {
        Format::Table | Format::Wide => {
            let tables: Vec<String> = found.iter().map(explanation).collect();
            Ok(tables.join("\n"))
        }
        Format::Name => Ok(found
            .iter()
            .map(|it| format!("{}/{}\n", it.node, it.prefix))
            .collect()),
        Format::Yaml => output::yaml(&found),
        Format::Json => output::json(&found),
    }
}

/// A prefix in two tables: its paths, and who is told of it.
fn explanation(found: &BgpExplanation) -> String {
    let text = |value: Option<String>| value.unwrap_or_default();
    let paths = found.paths.iter().map(|ExplainedPath { path, rule }| {
        let why = if path.best {
            "best".to_owned()
        } else {
            text(path.reason.clone())
        };
        let from = path
            .peer
            .map_or_else(|| "ourselves".to_owned(), |peer| peer.to_string());
        let cells = vec![
            from,
            text(path.next_hop.map(|it| it.to_string())),
            path.as_path.clone(),
            text(path.local_pref.map(|it| it.to_string())),
            text(rule.clone()),
            why,
        ];
        (cells, path.best)
    });
    let peers = found.peers.iter().map(|it| {
        let told = if it.advertised { "yes" } else { "no" }.to_owned();
        let cells = vec![
            it.peer.to_string(),
            told,
            text(it.rule.clone()),
            text(it.reason.clone()),
        ];
        (cells, it.advertised)
    });
    format!(
        "{} on {}\n\n{}\n{}",
        found.prefix,
        found.node,
        output::table(
            &[
                "FROM",
                "NEXT HOP",
                "AS PATH",
                "LOCALPREF",
                "IMPORT RULE",
                "DECISION"
            ],
            paths
        ),
        output::table(&["PEER", "TOLD", "EXPORT RULE", "WHY NOT"], peers)
    )
}

/// The one agent that is meant.
fn one_agent(target: &Target, node: Option<&String>) -> Result<Agent> {
    let mut agents = target.agents(node.map(std::slice::from_ref).unwrap_or_default())?;
    match agents.pop() {
        Some(agent) if agents.is_empty() => Ok(agent),
        last => {
            let agents = agents.into_iter().chain(last);
            let known = agents.filter_map(|agent| agent.node).collect();
            Err(CtlError::OneNode { known })
        }
    }
}

/// Has a speaker do something to sessions, and prints to whose.
fn operate(
    target: &Target,
    args: &SpeakerArgs,
    method: Method,
    call: serde_json::Value,
    done: &'static str,
) -> Result<()> {
    let agent = one_agent(target, args.node.as_ref())?;
    let Operated { peers } = ask_with(&agent.socket, method, call)?;
    output::print(&Change::of_neighbors(&peers, done), args.output.output)
}

fn dump(target: &Target, file: &Path, node: Option<&String>) -> Result<()> {
    let agent = one_agent(target, node)?;
    let TableDump { mrt } = ask(&agent.socket, Method::BgpDump)?;
    let written = BASE64_STANDARD
        .decode(mrt)
        .map_err(std::io::Error::other)
        .and_then(|octets| std::fs::write(file, octets));
    written.map_err(|source| CtlError::Unwritable {
        path: file.to_owned(),
        source,
    })
}

fn reload(target: &Target, format: Format) -> Result<()> {
    for agent in target.agents(&[])? {
        let done: Reload = ask(&agent.socket, Method::BgpReload)?;
        output::print(&Change::all(&done), format)?;
    }
    Ok(())
}

/// `route …`.
pub(crate) fn route(target: &Target, command: &RouteCommand) -> Result<()> {
    let RouteCommand::Show(args) = command;
    list::<KernelRoute>(target, args, Method::RouteShow)
}

/// Prints what all agents say, also when some do not answer.
pub(crate) fn list<T: Row + DeserializeOwned>(
    target: &Target,
    args: &NodesArgs,
    method: Method,
) -> Result<()> {
    let (items, outcome) = ask_all::<T>(&target.agents(&args.nodes)?, method);
    output::print(&items, args.output.output)?;
    outcome
}

/// An agent's health with its sessions.
#[derive(Serialize)]
struct Health {
    #[serde(flatten)]
    status: NodeStatus,
    peers: Vec<PeerLine>,
}

/// `node …`.
pub(crate) fn node(target: &Target, command: &NodeCommand) -> Result<()> {
    let NodeCommand::Status {
        node,
        all: _,
        output: OutputArgs { output },
    } = command;
    let agents = target.agents(node.as_slice())?;
    let mut found = Vec::new();
    let mut failed = 0;
    for agent in &agents {
        match health(agent) {
            Ok(health) => found.push(health),
            Err(error) if agents.len() == 1 => return Err(error),
            Err(error) => {
                anstream::eprintln!("manxctl: {error}");
                failed += 1;
            }
        }
    }
    output::emit(&health_text(&found, *output)?)?;
    if failed == 0 {
        Ok(())
    } else {
        Err(CtlError::Partly {
            failed,
            all: agents.len(),
        })
    }
}

fn health(agent: &Agent) -> Result<Health> {
    let status = ask(&agent.socket, Method::NodeStatus)?;
    let peers: Vec<PeerStatus> = ask(&agent.socket, Method::BgpPeers)?;
    Ok(Health {
        status,
        peers: peers.into_iter().map(PeerLine).collect(),
    })
}

fn health_text(found: &[Health], format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(found.iter().map(paragraph).collect::<Vec<_>>().join("\n")),
        Format::Wide | Format::Name => output::text(
            &found
                .iter()
                .map(|health| health.status.clone())
                .collect::<Vec<_>>(),
            format,
        ),
        Format::Yaml => output::yaml(&found),
        Format::Json => output::json(&found),
    }
}

/// A node as calicoctl shows it, and what it does not show: routes, pods, what is waited for.
fn paragraph(health: &Health) -> String {
    let NodeStatus {
        node,
        version,
        uptime_seconds,
        ready,
        asn,
        router_id,
        ..
    } = &health.status;
    let status = &health.status;
    let uptime = output::duration(*uptime_seconds);
    let readiness = if *ready {
        "ready".to_owned()
    } else {
        format!("not ready, waiting for {}", status.waiting_for.join(", "))
    };
    let mut text = format!(
        "Manx agent {version} is running on {node} for {uptime}: {readiness}.\n\
         AS {asn}, router id {router_id}; {} of {} routes in the kernel; {} pods.\n",
        status.routes_installed, status.routes_wanted, status.pods,
    );
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        let peers: Vec<&PeerLine> = health
            .peers
            .iter()
            .filter(|peer| peer.0.address.is_ipv4() == is_v4)
            .collect();
        if peers.is_empty() {
            text += &format!("\nNo {family} peers found.\n");
        } else {
            let lines = peers.iter().map(|peer| (peer.cells(), peer.is_well()));
            text += &format!(
                "\n{family} BGP status\n{}",
                output::table(PeerLine::COLUMNS.0, lines)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use manx_api::operation::DrainStatus;
    use manx_api::status::{BfdStatus, RangeStatus};

    use super::*;

    fn peer(address: &str, state: &str, last_error: Option<&str>) -> PeerStatus {
        PeerStatus {
            node: "node1".into(),
            address: address.parse().unwrap(),
            interface: None,
            asn: 64512,
            state: state.into(),
            uptime_seconds: 75,
            received: 1,
            accepted: 1,
            advertised: 2,
            origin: "mesh".into(),
            hold_time: 9,
            drain: None,
            limits: Vec::new(),
            last_error: last_error.map(str::to_owned),
            faults: Vec::new(),
            bfd: None,
            range: None,
        }
    }

    fn status() -> NodeStatus {
        NodeStatus {
            node: "node1".into(),
            version: "0.1.0".into(),
            uptime_seconds: 80,
            ready: true,
            waiting_for: Vec::new(),
            asn: 64512,
            router_id: "192.168.1.11".parse().unwrap(),
            peers_established: 1,
            peers_configured: 2,
            routes_installed: 4,
            routes_wanted: 4,
            pods: 2,
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_nodes_status_reads_as_calicoctls() {
        let peers = [
            peer("192.168.1.12", "Established", None),
            peer("192.168.1.13", "Active", Some("hold timer expired")),
        ];
        let health = Health {
            status: status(),
            peers: peers.into_iter().map(PeerLine).collect(),
        };
        insta::assert_snapshot!(plain(&health_text(&[health], Format::Table).unwrap()), @r"
        Manx agent 0.1.0 is running on node1 for 1m20s: ready.
        AS 64512, router id 192.168.1.11; 4 of 4 routes in the kernel; 2 pods.

        IPv4 BGP status
        PEER ADDRESS  PEER TYPE          STATE  SINCE      INFO
        192.168.1.12  node-to-node mesh  up     1m15s ago  Established
        192.168.1.13  node-to-node mesh  down   -          Active: hold timer expired

        No IPv6 peers found.
        ");
    }

    #[test]
    fn a_prefix_is_explained_in_two_tables() {
        let explanation: BgpExplanation = serde_json::from_value(serde_json::json!({
            "node": "node1", "prefix": "10.244.0.0/26",
            "paths": [
                {"node": "node1", "prefix": "10.244.0.0/26", "nextHop": "192.0.2.2", "peer": "192.0.2.2", "best": true,
                 "asPath": "65001", "localPref": 100, "med": null, "origin": "IGP"},
                {"node": "node1", "prefix": "10.244.0.0/26", "nextHop": "192.0.2.3", "peer": "192.0.2.3", "best": false,
                 "asPath": "65002", "localPref": null, "med": null, "origin": "IGP", "rule": "f importV4[0]",
                 "reason": "the import policy refuses the prefix"},
            ],
            "peers": [
                {"peer": "192.0.2.2", "advertised": false, "reason": "the peer announced it to us"},
                {"peer": "192.0.2.3", "advertised": true, "rule": "f exportV4[2]"},
            ],
        }))
        .unwrap();
        let found = [explanation];
        insta::assert_snapshot!(plain(&explanation_text(&found, Format::Table).unwrap()), @r"
        10.244.0.0/26 on node1

        FROM       NEXT HOP   AS PATH  LOCALPREF  IMPORT RULE    DECISION
        192.0.2.2  192.0.2.2  65001    100        -              best
        192.0.2.3  192.0.2.3  65002    -          f importV4[0]  the import policy refuses the prefix

        PEER       TOLD  EXPORT RULE    WHY NOT
        192.0.2.2  no    -              the peer announced it to us
        192.0.2.3  yes   f exportV4[2]  -
        ");
        let json: serde_json::Value =
            serde_json::from_str(&explanation_text(&found, Format::Json).unwrap()).unwrap();
        assert_eq!(json[0]["paths"][1]["rule"], "f importV4[0]");
    }

    #[test]
    fn scripts_find_the_promised_fields_of_a_session() {
        let text = output::text(&[peer("192.168.1.12", "Established", None)], Format::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in [
            "node",
            "address",
            "asn",
            "state",
            "uptimeSeconds",
            "received",
            "accepted",
            "advertised",
        ] {
            assert!(json[0].get(field).is_some(), "{field} is missing in {text}");
        }
    }

    #[test]
    fn sessions_in_a_table() {
        let watched = BfdStatus {
            state: "Up".into(),
            remote_state: Some("Up".into()),
            diagnostic: "no diagnostic".into(),
            multihop: false,
            transmit_interval: Some(300),
            detection_time: Some(900),
        };
        let peers = [
            PeerStatus {
                bfd: Some(watched),
                ..peer("192.168.1.12", "Established", None)
            },
            peer("192.168.1.13", "Active", Some("hold timer expired")),
        ];
        insta::assert_snapshot!(plain(&output::text(&peers, Format::Table).unwrap()), @r"
        NODE   PEER ADDRESS  ASN    STATE        UPTIME  RECEIVED  ACCEPTED  ADVERTISED  BFD
        node1  192.168.1.12  64512  Established  1m15s   1         1         2           Up
        node1  192.168.1.13  64512  Active       -       1         1         2           -
        ");
    }

    #[test]
    fn wide_shows_how_full_the_range_of_a_dynamic_neighbour_is() {
        let range = |refused| RangeStatus {
            prefix: "192.0.2.0/24".parse().unwrap(),
            peers: 3,
            limit: 100,
            refused,
        };
        for (refused, shown) in [
            (0, "192.0.2.0/24: 3 of 100"),
            (2, "192.0.2.0/24: 3 of 100, 2 refused"),
        ] {
            let dynamic = PeerStatus {
                range: Some(range(refused)),
                ..peer("192.0.2.7", "Established", None)
            };
            let cells = dynamic.cells();
            let place = PeerStatus::COLUMNS
                .0
                .iter()
                .position(|it| *it == "RANGE")
                .unwrap();
            assert_eq!(cells[place], shown);
        }
    }

    #[test]
    fn drained_sessions_say_how_far_they_are() {
        let drained = |state, phase: &str, seconds_left| PeerStatus {
            drain: Some(DrainStatus {
                phase: phase.to_owned(),
                seconds_left,
            }),
            ..peer("192.168.1.12", state, None)
        };
        let peers = [
            drained("Established", "marked", 12),
            drained("Established", "withdrawn", 4),
            drained("Idle", "down", 0),
        ];
        insta::assert_snapshot!(plain(&output::text(&peers, Format::Table).unwrap()), @r"
        NODE   PEER ADDRESS  ASN    STATE                             UPTIME  RECEIVED  ACCEPTED  ADVERTISED  BFD
        node1  192.168.1.12  64512  Established (draining, 12s left)  1m15s   1         1         2           -
        node1  192.168.1.12  64512  Established (draining, 4s left)   1m15s   1         1         2           -
        node1  192.168.1.12  64512  Idle (drained)                    -       1         1         2           -
        ");
    }
}
