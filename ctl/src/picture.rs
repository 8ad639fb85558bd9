//! Pictures of labs: segments as double lines, machines as boxes below them.

use ipnetwork::IpNetwork;
use manx_lab::plan::{Host, Role};
use manx_lab::{Plan, Pod, Topology, address};

/// Columns of a picture, at most.
const WIDTH: usize = 100;
/// Pods that a box shows; of more it says how many.
const PODS: usize = 4;

/// Lines of a machine, and lines of what runs on it.
type Card = (Vec<String>, Vec<String>);

/// A lab with its pods.
#[must_use]
pub(crate) fn of_lab(plan: &Plan, pods: &[Pod]) -> String {
    let node = |host: &Host| node_card(host, pods);
    let dual_stack = plan.options.dual_stack;
    match plan.options.topology {
        Topology::Mesh => {
            let label = format!("{}; every node peers with every other", networks(1, dual_stack));
            segment(&label, &plan.nodes().map(node).collect::<Vec<_>>())
        }
        Topology::Rr { .. } => {
            let label = format!("{}; nodes peer with the reflectors only", networks(1, dual_stack));
            let hosts = plan.hosts.iter().filter(|host| host.role != Role::Fabric);
            segment(&label, &hosts.map(node).collect::<Vec<_>>())
        }
        Topology::Tor { .. } => racks(plan, pods),
    }
}

fn racks(plan: &Plan, pods: &[Pod]) -> String {
    let is_router = |host: &&Host| matches!(host.role, Role::Router(_));
    let routers: Vec<&Host> = plan.hosts.iter().filter(is_router).collect();
    let spine = networks(address::SPINE, plan.options.dual_stack);
    let cards: Vec<Card> = routers
        .iter()
        .map(|router| (machine(router, &router.interfaces[0].addresses), Vec::new()))
        .collect();
    let mut text = segment(&format!("spine {spine}; routers peer with each other"), &cards);
    for router in routers {
        let nodes = plan.nodes().filter(|node| node.asn == router.asn);
        let cards: Vec<Card> = nodes.map(|node| node_card(node, pods)).collect();
        let own: Vec<String> = router.bridge.iter().flatten().map(ToString::to_string).collect();
        let label = format!(
            "rack of {} at {}; its nodes peer with it only",
            router.name,
            own.join(", ")
        );
        text.push('\n');
        text.push_str(&segment(&label, &cards));
    }
    text
}

fn networks(segment: u8, dual_stack: bool) -> String {
    let prefixes = address::prefixes(segment, dual_stack);
    prefixes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn machine(host: &Host, addresses: &[IpNetwork]) -> Vec<String> {
    let title = match host.role {
        Role::Router(software) => format!("{} ({software})", host.name),
        Role::Reflector => format!("{} (reflector)", host.name),
        Role::Node | Role::Fabric => host.name.clone(),
    };
    let asn = host.asn.map(|asn| format!("AS {asn}"));
    let addresses = addresses.iter().map(|network| network.ip().to_string());
    std::iter::once(title).chain(asn).chain(addresses).collect()
}

fn node_card(host: &Host, pods: &[Pod]) -> Card {
    let of_host: Vec<&Pod> = pods.iter().filter(|pod| pod.node == host.name).collect();
    let mut lines = Vec::new();
    for pod in of_host.iter().take(PODS) {
        let mut name = pod.name.as_str();
        for address in &pod.addresses {
            lines.push(format!("{name:10} {address}"));
            name = "";
        }
    }
    if of_host.len() > PODS {
        lines.push(format!("and {} more pods", of_host.len() - PODS));
    }
    (machine(host, &host.addresses().collect::<Vec<_>>()), lines)
}

/// A segment with its label, and the machines on it, as many to a row as fit.
fn segment(label: &str, cards: &[Card]) -> String {
    let width = cards
        .iter()
        .flat_map(|(a, b)| a.iter().chain(b))
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let outer = width + 4;
    let per_row = (WIDTH / (outer + 1)).max(1);
    let mut text = format!("{label}\n");
    for row in cards.chunks(per_row) {
        text.push_str(&shelf(row, width));
    }
    text
}

/// A row of boxes, all as wide and as high as the largest, below their segment.
fn shelf(row: &[Card], width: usize) -> String {
    let tap = (width + 4) / 2;
    let upper = row.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
    let lower = row.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
    let across = |edge: &dyn Fn() -> String| row.iter().map(|_| edge()).collect::<Vec<_>>().join(" ");
    let blank = String::new();
    let inside = |part: fn(&Card) -> &Vec<String>, index: usize| {
        let cell = |card| format!("│ {:width$} │", part(card).get(index).unwrap_or(&blank));
        row.iter().map(cell).collect::<Vec<_>>().join(" ")
    };
    let bus = |tap_mark: &str| {
        let one = || format!("{}{tap_mark}{}", "═".repeat(tap), "═".repeat(width + 3 - tap));
        row.iter().map(|_| one()).collect::<Vec<_>>().join("═")
    };
    let mut lines = vec![bus("╤")];
    lines.push(across(&|| {
        format!("┌{}┴{}┐", "─".repeat(tap - 1), "─".repeat(width + 2 - tap))
    }));
    lines.extend((0..upper).map(|index| inside(|(machine, _)| machine, index)));
    if lower > 0 {
        lines.push(across(&|| format!("├{}┤", "─".repeat(width + 2))));
        lines.extend((0..lower).map(|index| inside(|(_, pods)| pods, index)));
    }
    lines.push(across(&|| format!("└{}┘", "─".repeat(width + 2))));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use manx_lab::{Options, Software};

    use super::*;

    fn picture(topology: Topology, nodes: u16, dual_stack: bool) -> String {
        let options = Options {
            name: "x".parse().unwrap(),
            nodes,
            topology,
            pods_per_node: 1,
            dual_stack,
        };
        let plan = Plan::new(&options, Path::new("/run/manx-lab")).unwrap();
        let pod = |(index, pod): (usize, &manx_lab::plan::PodPlan)| Pod {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            node: pod.node.clone(),
            netns: plan.pod_netns(&pod.namespace, &pod.name),
            container_id: "c".into(),
            addresses: vec![
                format!("10.244.{}.{}", index / 4, index % 4 * 64)
                    .parse()
                    .unwrap(),
            ],
            annotations: std::collections::BTreeMap::default(),
            labels: std::collections::BTreeMap::default(),
        };
        of_lab(&plan, &plan.pods.iter().enumerate().map(pod).collect::<Vec<_>>())
    }

    #[test]
    fn a_mesh_is_a_segment() {
        insta::assert_snapshot!(picture(Topology::Mesh, 3, false));
    }

    #[test]
    fn racks_hang_below_their_routers() {
        insta::assert_snapshot!(picture(
            Topology::Tor {
                software: Software::Bird,
                racks: 2
            },
            3,
            true
        ));
    }

    #[test]
    fn reflectors_stand_beside_nodes_and_rows_wrap() {
        insta::assert_snapshot!(picture(Topology::Rr { reflectors: 2 }, 4, false));
    }

    #[test]
    fn no_line_is_too_long() {
        let picture = picture(Topology::Mesh, 40, true);
        assert!(
            picture.lines().all(|line| line.chars().count() <= WIDTH),
            "{picture}"
        );
    }
}
