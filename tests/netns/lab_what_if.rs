//! What policies would change, told before they are applied, in a lab; then they are, and packets say the same.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::lab_policies::{DENY_ALL, SOON, Shop, WEB_FROM_TILL};

const PODS: [&str; 3] = ["web", "db", "till"];
const PORTS: [u16; 2] = [8080, 8081];

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_millis(500);

/// A pod, another, and a port of that.
type Flow = (&'static str, &'static str, u16);

/// Runs `manxctl policy explain --what-if` with manifests at its standard input.
fn what_if(shop: &Shop, more: &str, manifests: &str) -> (bool, String, String) {
    let mut command = shop.name.command(&format!("policy explain --what-if {more}"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever refuses the arguments does not read.
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn found(shop: &Shop, more: &str, manifests: &str) -> Value {
    let (well, out, error) = what_if(shop, &format!("{more} -o json"), manifests);
    assert!(well, "{error}");
    serde_json::from_str(&out).unwrap()
}

fn flows() -> Vec<Flow> {
    let pairs = PODS
        .iter()
        .flat_map(|from| PODS.iter().map(move |to| (*from, *to)));
    let others = pairs.filter(|(from, to)| from != to);
    others
        .flat_map(|(from, to)| PORTS.map(|port| (from, to, port)))
        .collect()
}

/// Which connections an answer is about, in both families, that would be treated so.
fn told(found: &Value, verdict: &str) -> BTreeSet<Flow> {
    let has = |group: &Value, pod: &str| {
        let group = &found["groups"][usize::try_from(group.as_u64().unwrap()).unwrap()];
        let pod = json!(format!("shop/{pod}"));
        group["pods"].as_array().is_some_and(|pods| pods.contains(&pod))
    };
    let is_of = |packets: &Value, port: u16| {
        let within = |range: &Value| {
            let range = range.as_str().unwrap();
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&port)
        };
        match packets["protocol"].as_str() {
            None => !packets["otherThan"]
                .as_array()
                .is_some_and(|others| others.contains(&json!("TCP"))),
            Some("TCP") => packets["ports"]
                .as_array()
                .is_none_or(|ports| ports.iter().any(within)),
            Some(_) => false,
        }
    };
    let changes = found["changes"].as_array().unwrap();
    let is_told = |(from, to, port): &Flow| {
        changes.iter().any(|change| {
            let packets = change["packets"].as_array().unwrap();
            change["after"]["verdict"] == verdict
                && change["families"] == json!([4, 6])
                && has(&change["from"], from)
                && has(&change["to"], to)
                && (packets.is_empty() || packets.iter().any(|packets| is_of(packets, *port)))
        })
    };
    flows().into_iter().filter(is_told).collect()
}

/// Whether these connections can be made, and no others, in both families alike.
fn passes(shop: &Shop, expected: &BTreeSet<Flow>) -> bool {
    flows().iter().all(|flow @ (from, to, port)| {
        let ((from, _), (to, addresses)) = (shop.pod(from), shop.pod(to));
        addresses.iter().all(|address| {
            let at = SocketAddr::new(*address, *port);
            let _listener = to.run(|| TcpListener::bind(at).unwrap()).unwrap();
            let connect = || TcpStream::connect_timeout(&at, PATIENCE).is_ok();
            from.run(connect).unwrap() == expected.contains(flow)
        })
    })
}

const WEB_HTTP: &str = "
apiVersion: manx.network/v1
kind: NetworkPolicy
metadata: {name: web-http, namespace: shop}
spec:
  order: 10
  selector: app == 'web'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: app == 'till'}, destination: {ports: [http]}}
";

#[test]
fn what_if_tells_what_packets_meet_once_it_is_applied() {
    let shop = Shop::open();
    let all: BTreeSet<Flow> = flows().into_iter().collect();
    assert!(eventually(SOON, || passes(&shop, &all)));
    let both = format!("{DENY_ALL}---\n{WEB_HTTP}");
    let first = found(&shop, "-f -", &both);
    let denied = told(&first, "deny");
    assert_eq!(told(&first, "allow"), BTreeSet::new());
    let expected: BTreeSet<Flow> = all.difference(&[("till", "web", 8080)].into()).copied().collect();
    assert_eq!(denied, expected, "{first:#}");
    let changes = first["changes"].as_array().unwrap().iter();
    let deciding = changes.map(|change| change["after"]["deciding"]["name"].as_str().unwrap());
    let deciding: BTreeSet<&str> = deciding.collect();
    assert_eq!(deciding, ["deny-all", "web-http"].into(), "{first:#}");
    assert!(!shop.state().contains("manx-"), "nothing was applied");
    for manifest in [DENY_ALL, WEB_HTTP] {
        shop.apply(manifest);
    }
    let now = &all - &denied;
    assert!(eventually(SOON, || passes(&shop, &now)), "{}", shop.state());

    let (well, text, _) = what_if(&shop, "-f -", &both);
    assert!(well && text.starts_with("0 of "), "{text}");
    let second = found(&shop, "-n shop --without netpol/deny-all", "");
    let allowed = told(&second, "allow");
    assert!(
        allowed.contains(&("web", "db", 8081)) && !allowed.contains(&("db", "web", 8080)),
        "{second:#}"
    );
    shop.name.ctl("delete netpol deny-all -n shop");
    let now = &now | &allowed;
    assert!(eventually(SOON, || passes(&shop, &now)), "{}", shop.state());

    // Another label of a pod is news like any other.
    let mut endpoint = shop.name.json("get wep node1-db-eth0 -n shop");
    endpoint["metadata"]["labels"]["app"] = "till".into();
    let third = found(&shop, "-f -", &endpoint.to_string());
    assert_eq!(told(&third, "allow"), [("db", "web", 8080)].into(), "{third:#}");
    shop.name.edit("wep node1-db-eth0 -n shop", |endpoint| {
        endpoint["metadata"]["labels"]["app"] = "till".into();
    });
    let now = &now | &told(&third, "allow");
    assert!(eventually(SOON, || passes(&shop, &now)), "{}", shop.state());
}

#[test]
fn what_if_shows_lines_for_people_and_refuses_as_apply_does() {
    let shop = Shop::open();
    let both = format!("{DENY_ALL}---\n{WEB_FROM_TILL}");
    let (well, text, _) = what_if(&shop, "-f -", &both);
    let heading = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = heading.split_whitespace().collect();
    assert!(
        well && words == ["FROM", "TO", "PACKETS", "NOW", "THEN", "BY"],
        "{text}"
    );
    assert!(
        text.contains("NetworkPolicy.networking.k8s.io shop/deny-all, by the end of tier default"),
        "{text}"
    );
    assert!(
        text.lines().last().unwrap().contains(" flows change, between "),
        "{text}"
    );

    let tier = "{apiVersion: manx.network/v1, kind: Tier, metadata: {name: t}, spec: {order: 1}}\n";
    let policy =
        "{apiVersion: manx.network/v1, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {tier: t}}\n";
    shop.apply(&format!("{tier}---\n{policy}"));
    let pool = "{apiVersion: manx.network/v1, kind: IPReservation, metadata: {name: r}, spec: {reservedCIDRs: [10.244.0.9]}}";
    let wrong = DENY_ALL.replace("podSelector", "podSelectors");
    let file = tempfile::NamedTempFile::new().unwrap();
    for manifest in [
        wrong,
        DENY_ALL.replace("Ingress", "Inside"),
        tier.replace("order: 1", "defaultAction: Log"),
    ] {
        std::fs::write(file.path(), &manifest).unwrap();
        let applied = shop.name.try_ctl(&format!("apply -f {}", file.path().display()));
        let applied = String::from_utf8(applied.stderr).unwrap();
        let (well, out, refused) = what_if(&shop, &format!("-f {}", file.path().display()), "");
        assert!(!well && out.is_empty() && !refused.is_empty());
        assert_eq!(refused, applied, "{manifest}");
    }
    for (more, part) in [
        ("--without tier/t", "is in use"),
        ("--without tier/other", "Tier/other does not exist"),
        ("", "required"),
        ("--from shop/web --to shop/db:80 -f -", "cannot be used with"),
    ] {
        let (well, _, error) = what_if(&shop, more, "");
        assert!(!well && error.contains(part), "{more}: {error}");
    }
    let (well, text, error) = what_if(&shop, "--without tier/t --without gnp/p -f -", pool);
    assert!(well, "{error}");
    assert!(text.contains(" allow  "), "the policy isolates all pods: {text}");
    assert_eq!(
        error,
        "manxctl: no policy depends on IPReservation/r: it is left out\n"
    );
}
