//! The chart of `deploy/helm/manx`: what it makes is what kustomize makes for the same choices.
//!
//! `chart/render.go` renders it with what Helm is made of, since no Debian release has Helm itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use manx_tests::manifests::{documents, rendered};
use manx_tests::tree::root;
use serde_json::{Value, json};

use crate::{is, items, problems};

/// Where Debian's packages keep Go's libraries.
const LIBRARIES: &str = "/usr/share/gocode";

/// The program that renders, built once.
static RENDERER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join("render-chart");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program);
    go.arg(root().join("tests/deploy/chart/render.go"));
    go.env("GO111MODULE", "off").env("GOPATH", LIBRARIES);
    go.env("GOCACHE", folder.join("go"));
    let output = go
        .output()
        .expect("go, of the Debian package golang-go: make deps");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
});

fn render(values: &str) -> Output {
    let mut command = Command::new(&*RENDERER);
    command.arg(root().join("deploy/helm/manx")).arg("manx-system");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut renderer = command.spawn().unwrap();
    renderer
        .stdin
        .take()
        .unwrap()
        .write_all(values.as_bytes())
        .unwrap();
    renderer.wait_with_output().unwrap()
}

/// The chart's objects with these values.
fn chart(values: &str) -> Vec<Value> {
    let output = render(values);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    documents(&text).into_iter().filter(|it| !it.is_null()).collect()
}

/// Why these values are refused.
fn refused(values: &str) -> String {
    let output = render(values);
    assert!(!output.status.success(), "{values} is taken");
    String::from_utf8(output.stderr).unwrap()
}

/// What one of the files of choices says, and that the namespace is made.
fn choice(name: &str) -> String {
    let path = root()
        .join("deploy/helm/manx/choices")
        .join(format!("{name}.yaml"));
    std::fs::read_to_string(path).unwrap() + "namespace: {create: true}\n"
}

/// Objects in an order of their own, the settings as what they say and under one name, whatever the hash in it.
fn comparable(mut objects: Vec<Value>) -> Vec<Value> {
    let unhashed = |name: &mut Value| {
        if name.as_str().is_some_and(|name| name.starts_with("manxd-")) {
            *name = json!("manxd");
        }
    };
    for object in &mut objects {
        if object["kind"] == "ConfigMap" {
            unhashed(&mut object["metadata"]["name"]);
            let said: Value = serde_saphyr::from_str(object["data"]["manxd.yaml"].as_str().unwrap()).unwrap();
            object["data"]["manxd.yaml"] = said;
        }
        let volumes = object.pointer_mut("/spec/template/spec/volumes");
        for volume in volumes.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(name) = volume.pointer_mut("/configMap/name") {
                unhashed(name);
            }
        }
    }
    objects.sort_by_key(|it| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &it["metadata"];
        (
            text(&it["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        )
    });
    objects
}

#[test]
fn the_chart_makes_what_kustomize_makes_for_the_same_choices() {
    let base = || rendered("");
    let with = |overlay: &str| [rendered(""), rendered(overlay)].concat();
    let alone = "namespace: {create: true}".to_owned();
    for (name, values, expected) in [
        ("the base", alone, base()),
        ("mesh", choice("mesh"), with("overlays/mesh")),
        ("tor", choice("tor"), with("overlays/tor")),
        ("reflectors", choice("reflectors"), with("overlays/reflectors")),
        ("admission", choice("admission"), with("overlays/admission")),
        ("migration", choice("migration"), rendered("overlays/migration")),
    ] {
        let (ours, theirs) = (comparable(chart(&values)), comparable(expected));
        let titles = |objects: &[Value]| objects.iter().map(crate::title).collect::<Vec<_>>();
        assert_eq!(titles(&ours), titles(&theirs), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
    }
}

#[test]
fn values_reach_what_they_are_for() {
    let objects = chart(
        "image: {repository: registry.example/manx, tag: v9}\nsettings: {logLevel: debug, controller: {leaseSeconds: 30}}\n\
         agent: {resources: {requests: {cpu: 1}}}\ncontroller: {replicas: 3}\n",
    );
    let find = |kind: &str| objects.iter().find(|it| it["kind"] == kind).unwrap();
    let (agents, controllers) = (find("DaemonSet"), find("Deployment"));
    for owner in [agents, controllers] {
        let pod = &owner["spec"]["template"]["spec"];
        let containers = items(&pod["initContainers"]).chain(items(&pod["containers"]));
        assert!({ containers }.all(|it| it["image"] == "registry.example/manx:v9"));
    }
    let resources = &agents["spec"]["template"]["spec"]["containers"][0]["resources"];
    assert_eq!(
        (resources, &controllers["spec"]["replicas"]),
        (&json!({"requests": {"cpu": 1}}), &json!(3))
    );
    let settings = find("ConfigMap")["data"]["manxd.yaml"].as_str().unwrap();
    let settings: Value = serde_saphyr::from_str(settings).unwrap();
    assert_eq!(
        (&settings["logLevel"], &settings["sysctlDir"]),
        (&json!("debug"), &json!("/host/proc/sys/net"))
    );
    let controller = json!({"defaultPools": {"default": {"cidr": "10.244.0.0/16", "natOutgoing": true}}, "leaseSeconds": 30});
    assert_eq!(settings["controller"], controller);

    let name = |values: &str| {
        let objects = chart(values);
        let map = objects.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
        map["metadata"]["name"].as_str().unwrap().to_owned()
    };
    assert_ne!(name(""), name("settings: {logLevel: debug}"), "agents start anew");
    assert!(!chart("").iter().any(|it| is(it, "Namespace", "manx-system")));
    let problems = problems(&chart("namespace: {create: true}\nsettings: {logLevel: debug}"));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn values_that_are_none_are_refused() {
    for (values, field) in [
        ("images: {tag: v9}", "images"),
        ("image: {name: manx}", "image"),
        ("image: {tag: 'v 9'}", "image.tag"),
        ("controller: {replicas: 0}", "controller.replicas"),
        ("controller: {nodeSelector: {a: b}}", "controller"),
        (
            "agent: {nodeSelector: {network: 1}}",
            "agent.nodeSelector.network",
        ),
        ("agent: {resources: {request: {cpu: 1}}}", "agent.resources"),
        (
            "agent: {resources: {limits: {memory: 1 GB}}}",
            "agent.resources.limits.memory",
        ),
        ("bgpPeers: {rack_a: {peerIP: 192.0.2.1}}", "bgpPeers"),
        ("bgpPeers: {rack-a: {}}", "bgpPeers.rack-a"),
        ("admission: yes please", "admission"),
        ("settings: {sysctlDir: /proc/sys/net}", "settings.sysctlDir"),
    ] {
        let told = refused(values);
        assert!(
            told.contains("specifications of the schema") && told.contains(field),
            "{values}: {told}"
        );
    }
    // What the schema leaves to them, our own programs refuse.
    let objects = chart("settings: {logLevels: debug}");
    assert!(problems(&objects).iter().any(|it| it.contains("logLevels")));
}
