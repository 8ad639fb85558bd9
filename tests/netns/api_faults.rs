//! What goes on while the API server fails, and what comes about once it fails no more.
//!
//! Whatever becomes of it: pods reach each other, policies hold, a pod whose node was told of it and has an address for
//! it is added, and every pod is deleted. `MANX_OUTAGE=600` has each failure last for ten minutes.

use std::time::{Duration, Instant};

use manx_api::Kind;
use manx_api::rpc::Method;
use manx_store::fake::{Sort, Trouble};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent_harness::Node;
use crate::clusters::cluster::{Kubernetes, LATER, Pod, custom};
use crate::clusters::server::Which;
use crate::harness::{eventually, exchange};

/// How long a failure lasts in seconds, unless `MANX_OUTAGE` says otherwise. What is looked at takes longer.
const SECONDS: u64 = 5;

/// The longest that watches and writes wait for their next try, and then some.
const RECOVERY: Duration = Duration::from_secs(180);

/// Two nodes, a policy, and pods on both sides of it.
struct Site {
    kubernetes: Kubernetes,
    /// Takes packets of pods with `app: client` alone.
    web: Pod,
    client: Pod,
    stranger: Pod,
    /// Is added and deleted again and again.
    passing: Pod,
    /// Is deleted once.
    going: Pod,
    /// How long the slowest ADD and DEL took.
    slowest: [Duration; 2],
}

impl Site {
    fn new() -> Self {
        let kubernetes = Kubernetes::start(Which::Fake);
        kubernetes.set_namespace("shop", &json!({}));
        let passing = kubernetes.schedule(("shop", "passing"), &json!({"app": "other"}), 1);
        let web = kubernetes.run(("shop", "web"), &json!({"app": "web"}), 0);
        let client = kubernetes.run(("shop", "client"), &json!({"app": "client"}), 1);
        let stranger = kubernetes.run(("shop", "stranger"), &json!({"app": "other"}), 1);
        let going = kubernetes.run(("shop", "going"), &json!({}), 0);
        kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "client"}}}]));
        kubernetes.comes_to(&stranger, &web, false);
        kubernetes.comes_to(&client, &web, true);
        Self {
            kubernetes,
            web,
            client,
            stranger,
            passing,
            going,
            slowest: [Duration::ZERO; 2],
        }
    }

    fn passes(from: &Pod, to: &Pod) -> bool {
        let mut addresses = to.addresses.iter();
        addresses.all(|address| exchange(&from.netns, &to.netns, *address).is_some())
    }

    /// What holds whatever the API server does.
    fn holds(&mut self) {
        let logs = || self.kubernetes.logs();
        assert!(Self::passes(&self.client, &self.web), "{}", logs());
        let denied =
            |address: &std::net::IpAddr| exchange(&self.stranger.netns, &self.web.netns, *address).is_none();
        assert!(self.web.addresses.iter().all(denied), "{}", logs());
        let begin = Instant::now();
        let added = self.kubernetes.cni(&self.passing, "ADD");
        self.passing.addresses = self.kubernetes.nodes[1].added(&added);
        self.slowest[0] = self.slowest[0].max(begin.elapsed());
        assert!(Self::passes(&self.client, &self.passing), "{}", logs());
        self.slowest[1] = self.slowest[1].max(self.delete(&self.passing));
    }

    fn delete(&self, pod: &Pod) -> Duration {
        let begin = Instant::now();
        let output = self.kubernetes.cni(pod, "DEL");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", self.kubernetes.logs());
        begin.elapsed()
    }

    /// Looks at that for as long as the failure lasts, and says how it went.
    fn lasts(&mut self, what: &str) {
        let seconds = std::env::var("MANX_OUTAGE").map_or(SECONDS, |text| text.parse().unwrap());
        let (begin, before) = (Instant::now(), self.kubernetes.server.fake().requests());
        let mut rounds = 0;
        while rounds == 0 || begin.elapsed() < Duration::from_secs(seconds) {
            self.holds();
            rounds += 1;
        }
        self.delete(&self.going);
        let requests = self.kubernetes.server.fake().requests() - before;
        let ([add, del], lasted) = (self.slowest, begin.elapsed());
        eprintln!(
            "{what}: {rounds} rounds in {lasted:.0?}, the slowest ADD {add:.3?}, DEL {del:.3?}; {requests} requests of two agents"
        );
    }

    /// Labels, a policy, one that cannot be carried out, and a node that is not as they were.
    fn change(&self) {
        let kubernetes = &self.kubernetes;
        kubernetes.tell(&self.stranger, &json!({"app": "friend"}));
        kubernetes.set_policy(&json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]));
        let mut broken = custom(
            "NetworkPolicy",
            "broken",
            &json!({"ingress": [{"action": "Allow", "destination": {"ports": [80]}}]}),
        );
        broken["metadata"]["namespace"] = json!("shop");
        kubernetes.server.put(Kind::NetworkPolicy, broken);
        kubernetes.set_node("left", "b", false);
    }

    /// Waits until all of that has come about, at the nodes and at the API server.
    fn comes_about(&self) {
        let server = &self.kubernetes.server;
        let web = &self.web;
        let enforced = || Self::passes(&self.stranger, web) && !Self::passes(&self.client, web);
        assert!(eventually(RECOVERY, enforced), "{}", self.kubernetes.logs());
        let rack = || server.object(Kind::Node, "", "left").unwrap()["metadata"]["labels"]["rack"] == "b";
        assert!(eventually(RECOVERY, rack), "{}", self.kubernetes.logs());
        let told = || {
            let broken = server.object(Kind::NetworkPolicy, "shop", "broken").unwrap();
            broken["status"]["conditions"][0]["status"] == "False"
        };
        assert!(eventually(RECOVERY, told), "{}", self.kubernetes.logs());
        let stored = || {
            let blocks = server.objects(Kind::IpBlock).into_iter();
            let held = blocks.map(|block| block["spec"]["allocations"].as_array().map_or(0, Vec::len));
            held.sum::<usize>()
        };
        let held = || {
            let nodes = self.kubernetes.nodes.iter();
            // Whoever compares has checkpoints written.
            let held = |node: &Node| node.ask(Method::IpamCheck).map_or(0, |_| node.held());
            nodes.map(held).sum::<usize>()
        };
        assert!(
            eventually(RECOVERY, || stored() == held()),
            "{} of {}\n{}",
            stored(),
            held(),
            self.kubernetes.logs()
        );
    }

    /// A pod that was made meanwhile runs before long, as its kubelet tries until it does.
    fn runs(&self, name: &'static str) {
        let pod = self.kubernetes.schedule(("shop", name), &json!({"app": name}), 0);
        let added = || self.kubernetes.cni(&pod, "ADD").status.success();
        assert!(eventually(RECOVERY, added), "{}", self.kubernetes.logs());
        self.delete(&pod);
    }
}

#[test]
fn the_network_goes_on_while_the_api_server_is_down_and_follows_it_when_it_is_back() {
    let mut site = Site::new();
    site.kubernetes.stop();
    site.lasts("down");
    // An agent that is made anew meanwhile has nobody to ask, and takes nothing away.
    site.kubernetes.nodes[1].end(Signal::SIGKILL);
    assert!(Site::passes(&site.client, &site.web));
    site.kubernetes.nodes[1].launch();
    let answers = || site.kubernetes.nodes[1].status().is_some();
    assert!(eventually(LATER, answers), "{}", site.kubernetes.logs());
    assert!(Site::passes(&site.client, &site.web));
    assert!(!Site::passes(&site.stranger, &site.web));
    site.delete(&site.passing);
    site.change();
    site.kubernetes.serve();
    site.comes_about();
    site.runs("fresh");
}

#[test]
fn the_network_goes_on_while_the_api_server_is_slow_and_follows_it() {
    let mut site = Site::new();
    site.kubernetes.server.fake().delay(Duration::from_secs(5));
    site.kubernetes.server.fake().cut_watches();
    site.lasts("5 s late");
    site.change();
    site.comes_about();
    site.runs("fresh");
    site.kubernetes.nodes[1].end(Signal::SIGTERM);
    let begin = Instant::now();
    site.kubernetes.nodes[1].start();
    eprintln!(
        "5 s late: an agent is ready {:.0?} after its start",
        begin.elapsed()
    );
}

#[test]
fn the_network_goes_on_while_the_api_server_is_overloaded_and_follows_it_afterwards() {
    let mut site = Site::new();
    site.kubernetes.server.fake().trouble(Trouble::Overload(3));
    site.kubernetes.server.fake().cut_watches();
    site.lasts("429");
    site.change();
    site.kubernetes.server.fake().trouble(Trouble::None);
    site.comes_about();
    site.runs("fresh");
}

#[test]
fn the_network_goes_on_while_the_api_server_forgets_everything_and_follows_it() {
    let mut site = Site::new();
    site.kubernetes.server.fake().trouble(Trouble::Amnesia);
    site.kubernetes.server.fake().cut_watches();
    site.lasts("410");
    site.change();
    site.comes_about();
    site.runs("fresh");
}

#[test]
fn the_network_goes_on_while_every_write_is_refused_once_and_all_is_written() {
    let mut site = Site::new();
    site.kubernetes.server.fake().trouble(Trouble::Contention);
    site.lasts("409");
    site.change();
    site.comes_about();
    site.runs("fresh");
    let events = site.kubernetes.server.objects(Sort::EVENT);
    let told = |event: &Value| event["involvedObject"]["name"] == "broken";
    assert!(events.iter().any(told), "{events:?}");
}
