//! `manxctl policy denies`: packets that policies denied, as agents tell of them.

use std::ops::Range;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use manx_api::denied::{DeniedEnd, DeniedPacket, Denies, DeniesCall, DenyReason, LogVerdict};
use manx_api::rpc::Method;
use manx_api::rule::Direction;
use serde_json::json;

use crate::cli::DeniesArgs;
use crate::ends::Pod;
use crate::error::{CtlError, Result};
use crate::output::{self, Format, Row};
use crate::policy::called;
use crate::target::{Agent, Target, ask_with};

/// How long an agent that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Characters of the time of day in RFC 3339.
const TIME_OF_DAY: Range<usize> = 11..19;

/// How wide the columns of a table are that is printed line by line.
const WIDTHS: [usize; 12] = [9, 8, 7, 9, 28, 28, 8, 5, 60, 40, 32, 0];

/// `policy denies`.
pub(crate) fn run(target: &Target, args: &DeniesArgs) -> Result<()> {
    let agents = target.agents(&args.node)?;
    if args.follow {
        follow(agents, args)
    } else {
        show(&agents, args)
    }
}

/// What agents remember.
fn show(agents: &[Agent], args: &DeniesArgs) -> Result<()> {
    let (mut found, mut failed) = (Vec::new(), 0);
    for agent in agents {
        match ask(agent, DeniesCall::default()) {
            Ok(told) => {
                if !told.recording {
                    anstream::eprintln!(
                        "manxctl: {} does not log denied packets now: follow them with --follow, or set \
                         policy.logDenied in its manxd.yaml",
                        told.node
                    );
                }
                found.extend(told.entries);
            }
            Err(error) => {
                anstream::eprintln!("manxctl: {}: {error}", agent.label());
                failed += 1;
            }
        }
    }
    found.retain(|packet| is_meant(packet, args));
    found.sort_by(|one, other| one.time.cmp(&other.time));
    output::print(&found, args.output.output)?;
    match failed {
        0 => Ok(()),
        failed => Err(CtlError::Partly {
            failed,
            all: agents.len(),
        }),
    }
}

/// What an agent tells whoever follows it.
#[derive(Debug)]
enum Heard {
    /// It logs denied packets from now on.
    Follows(String),
    /// What was denied since.
    Told(Box<Denies>),
    /// It does not answer.
    Failed(String, CtlError),
}

fn follow(agents: Vec<Agent>, args: &DeniesArgs) -> Result<()> {
    let (out, heard) = mpsc::channel();
    for agent in agents {
        let out = out.clone();
        thread::spawn(move || listen(&agent, &out));
    }
    drop(out);
    if matches!(args.output.output, Format::Table | Format::Wide) {
        let columns: Vec<String> = DeniedPacket::COLUMNS
            .0
            .iter()
            .map(|&column| column.to_owned())
            .collect();
        output::emit(&line(&columns, args.output.output))?;
    }
    for heard in heard {
        match heard {
            Heard::Follows(node) => anstream::eprintln!("manxctl: {node} logs denied packets"),
            Heard::Told(told) => tell(&told, args)?,
            Heard::Failed(agent, error) => anstream::eprintln!("manxctl: {agent}: {error}; asking again"),
        }
    }
    Ok(())
}

/// Asks an agent again and again, until nobody wants to hear of it.
fn listen(agent: &Agent, out: &Sender<Heard>) {
    let mut last: Option<Denies> = None;
    let mut well = true;
    loop {
        let call = DeniesCall {
            follow: true,
            after: last.as_ref().map(|told| told.next),
        };
        let heard = match ask(agent, call) {
            Ok(told) => {
                well = true;
                continued(&mut last, told)
            }
            Err(error) => {
                let first = std::mem::replace(&mut well, false);
                thread::sleep(PAUSE);
                first.then(|| Heard::Failed(agent.label(), error))
            }
        };
        if heard.is_some_and(|heard| out.send(heard).is_err()) {
            return;
        }
    }
}

/// What is new in an answer, given the one before it.
fn continued(last: &mut Option<Denies>, mut told: Denies) -> Option<Heard> {
    let heard = match last.replace(told.clone()) {
        None => Some(Heard::Follows(told.node)),
        Some(before) if before.life == told.life => {
            told.omitted -= before.omitted;
            Some(Heard::Told(Box::new(told)))
        }
        Some(_) => {
            // What another life of the agent has is asked for from its beginning.
            last.iter_mut().for_each(|last| last.next = 0);
            None
        }
    };
    last.iter_mut().for_each(|last| last.entries.clear());
    heard
}

fn ask(agent: &Agent, call: DeniesCall) -> Result<Denies> {
    ask_with(&agent.socket, Method::PolicyDenies, json!(call))
}

fn tell(told: &Denies, args: &DeniesArgs) -> Result<()> {
    let format = args.output.output;
    for packet in told.entries.iter().filter(|packet| is_meant(packet, args)) {
        output::emit(&match format {
            Format::Json => serde_json::to_string(packet).map_err(CtlError::json)? + "\n",
            Format::Yaml => format!("---\n{}", output::yaml(packet)?),
            Format::Name => packet.name() + "\n",
            Format::Table | Format::Wide => line(&packet.cells(), format),
        })?;
    }
    for (number, what) in [
        (
            told.lost,
            "entries came faster than they could be printed, and are lost",
        ),
        (
            told.omitted,
            "denied packets were too different from others to be told of",
        ),
    ] {
        if number > 0 {
            anstream::eprintln!("manxctl: {}: {number} {what}", told.node);
        }
    }
    Ok(())
}

fn is_meant(packet: &DeniedPacket, args: &DeniesArgs) -> bool {
    let any =
        |meant: &dyn Fn(&DeniedEnd) -> bool| [&packet.source, &packet.destination].into_iter().any(meant);
    let in_namespace = |namespace: &String| any(&|end| end.namespace.as_ref() == Some(namespace));
    let is_pod = |pod: &Pod| {
        any(&|end| (end.namespace.as_ref(), end.pod.as_ref()) == (Some(&pod.namespace), Some(&pod.name)))
    };
    args.namespace.as_ref().is_none_or(in_namespace) && args.pod.as_ref().is_none_or(is_pod)
}

/// A line of a table whose other lines are not known yet.
fn line(cells: &[String], format: Format) -> String {
    let (columns, narrow) = DeniedPacket::COLUMNS;
    let shown = if format == Format::Wide {
        columns.len()
    } else {
        narrow
    };
    let cells = cells.iter().take(shown).zip(WIDTHS);
    let padded: String = cells.map(|(cell, width)| format!("{cell:width$}  ")).collect();
    padded.trim_end().to_owned() + "\n"
}

impl Row for DeniedPacket {
    const COLUMNS: (&'static [&'static str], usize) = (
        &[
            "TIME",
            "NODE",
            "VERDICT",
            "DIRECTION",
            "FROM",
            "TO",
            "PROTOCOL",
            "COUNT",
            "BY",
            "ADDRESSES",
            "INTERFACES",
            "NETWORK SETS",
        ],
        9,
    );

    fn cells(&self) -> Vec<String> {
        let verdict = match self.verdict {
            LogVerdict::Deny => "deny",
            LogVerdict::Log => "log",
        };
        let direction = match self.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        let interfaces =
            [&self.from_interface, &self.to_interface].map(|name| name.as_deref().unwrap_or("-"));
        let ends = [&self.source, &self.destination];
        vec![
            self.time.get(TIME_OF_DAY).unwrap_or(&self.time).to_owned() + "Z",
            self.node.clone(),
            verdict.to_owned(),
            direction.to_owned(),
            end(&self.source),
            end(&self.destination),
            self.protocol.to_string(),
            self.count.to_string(),
            by(self),
            ends.map(|end| end.address.to_string()).join(" -> "),
            interfaces.join(" -> "),
            ends.map(sets).join(" -> "),
        ]
    }

    fn name(&self) -> String {
        format!("{} -> {}", end(&self.source), end(&self.destination))
    }
}

fn end(end: &DeniedEnd) -> String {
    let name = match (&end.namespace, &end.pod, &end.host_endpoint) {
        (Some(namespace), Some(pod), _) => Some(format!("{namespace}/{pod}")),
        (_, _, Some(host)) => Some(format!("host endpoint {host}")),
        _ => None,
    };
    let port = end.port.map(|port| format!(":{port}")).unwrap_or_default();
    match name {
        Some(name) => format!("{name}{port}"),
        None if end.address.is_ipv6() && end.port.is_some() => format!("[{}]{port}", end.address),
        None => format!("{}{port}", end.address),
    }
}

fn sets(end: &DeniedEnd) -> String {
    match &end.network_sets[..] {
        [] => "-".to_owned(),
        sets => sets.join(", "),
    }
}

/// Who decided, or what did.
fn by(packet: &DeniedPacket) -> String {
    let tier = packet.tier.as_deref().unwrap_or_default();
    let policy = packet.policy.as_ref().map(called);
    match (packet.reason, policy) {
        (DenyReason::Rule, Some(policy)) => format!("{policy} rule {}", packet.rule.unwrap_or_default()),
        (DenyReason::EndOfTier, Some(policy)) => format!("{policy}, by the end of tier {tier}"),
        (DenyReason::Rule | DenyReason::EndOfTier, None) => format!("the end of tier {tier}"),
        (DenyReason::HostEndpoint, _) => "no policy opens the host endpoint".to_owned(),
        (DenyReason::SourceAddress, _) => "the pod may not send from this address".to_owned(),
        (DenyReason::UnknownInterface, _) => "no pod is known behind the interface".to_owned(),
        (DenyReason::EndpointToHost, _) => "policy.endpointToHost of the node is drop".to_owned(),
        (DenyReason::Gone, _) => "a rule that is gone meanwhile".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn packet(change: impl FnOnce(&mut Value)) -> DeniedPacket {
        let mut packet = json!({
            "time": "2026-11-21T15:04:05.123Z", "node": "node1", "count": 3, "verdict": "deny", "direction": "Ingress",
            "reason": "endOfTier", "tier": "default",
            "policy": {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop", "name": "deny-all"},
            "source": {"address": "10.244.0.3", "port": 40000, "namespace": "shop", "pod": "db"},
            "destination": {"address": "10.244.0.2", "port": 8080, "namespace": "shop", "pod": "web"},
            "protocol": "TCP", "fromInterface": "mx0", "toInterface": "mx1",
        });
        change(&mut packet);
        serde_json::from_value(packet).unwrap()
    }

    fn packets() -> Vec<DeniedPacket> {
        let outside = json!({"address": "fd00::9", "port": 53, "networkSets": ["GlobalNetworkSet bad"]});
        vec![
            packet(|_| {}),
            packet(|it| {
                it["reason"] = "rule".into();
                it["rule"] = 2.into();
                it["verdict"] = "log".into();
                it["destination"] = outside.clone();
            }),
            packet(|it| {
                it["reason"] = "sourceAddress".into();
                it["policy"] = Value::Null;
                it["toInterface"] = Value::Null;
                it["source"] = json!({"address": "192.0.2.1", "namespace": "shop", "pod": "db"});
                it["destination"] = json!({"address": "10.0.0.1"});
                it["protocol"] = "ICMP".into();
            }),
            packet(|it| {
                it["reason"] = "hostEndpoint".into();
                it["policy"] = Value::Null;
                it["destination"] = json!({"address": "192.0.2.1", "port": 80, "hostEndpoint": "uplink"});
            }),
        ]
    }

    #[test]
    fn each_denied_packet_is_a_line_with_names() {
        let shown =
            |format| anstream::adapter::strip_str(&output::text(&packets(), format).unwrap()).to_string();
        insta::assert_snapshot!(shown(Format::Table));
        let lines: String = packets()
            .iter()
            .map(|packet| line(&packet.cells(), Format::Wide))
            .collect();
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn only_what_is_meant_is_shown() {
        let of = |namespace: Option<&str>, pod: Option<&str>| {
            let args = DeniesArgs {
                follow: false,
                node: Vec::new(),
                namespace: namespace.map(str::to_owned),
                pod: pod.map(|pod| pod.parse().unwrap()),
                output: crate::cli::OutputArgs {
                    output: Format::Table,
                },
            };
            packets().iter().filter(|packet| is_meant(packet, &args)).count()
        };
        assert_eq!(of(None, None), 4);
        assert_eq!((of(Some("shop"), None), of(Some("other"), None)), (4, 0));
        assert_eq!((of(None, Some("shop/web")), of(None, Some("shop/db"))), (1, 4));
        assert_eq!(of(None, Some("web")), 0, "of the default namespace");
    }

    #[test]
    fn a_follower_hears_what_is_new_and_begins_anew_with_another_life() {
        let told = |life, next, omitted| Denies {
            node: "node1".to_owned(),
            recording: true,
            life,
            next,
            lost: 0,
            omitted,
            entries: packets(),
        };
        let mut last = None;
        assert!(matches!(
            continued(&mut last, told(1, 40, 7)),
            Some(Heard::Follows(_))
        ));
        let next = |last: &Option<Denies>| last.as_ref().map(|last| (last.next, last.entries.len()));
        assert_eq!(next(&last), Some((40, 0)));
        let Some(Heard::Told(new)) = continued(&mut last, told(1, 44, 9)) else {
            panic!("it is told");
        };
        assert_eq!(
            (new.omitted, new.entries.len(), next(&last)),
            (2, 4, Some((44, 0)))
        );
        assert!(continued(&mut last, told(2, 3, 0)).is_none());
        assert_eq!(next(&last), Some((0, 0)), "all of it is asked for");
    }
}
