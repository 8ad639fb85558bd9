//! What manifests say to our own programs: their files are there and understood, and what they write is mounted.

use std::path::Path;

use manx_agent::config::Config;
use manx_cni::install::check_list;
use manx_tests::tree::root;
use serde_json::{Value, json};

use crate::pods::{containers, spoil, templates};
use crate::{ALL, is, items, title};

/// A mount of a container, with the volume behind it.
struct Mount<'a> {
    path: &'a Path,
    writable: bool,
    volume: &'a Value,
}

fn mounts<'a>(pod: &'a Value, container: &'a Value) -> Vec<Mount<'a>> {
    let volume = |name: &Value| items(&pod["volumes"]).find(|it| it["name"] == *name);
    let mounts = items(&container["volumeMounts"]).filter_map(|it| {
        Some(Mount {
            path: Path::new(it["mountPath"].as_str()?),
            writable: it["readOnly"] != true,
            volume: volume(&it["name"])?,
        })
    });
    mounts.collect()
}

/// The file of a ConfigMap at this path of a container.
fn file<'a>(objects: &'a [Value], mounts: &[Mount<'_>], path: &Path) -> Option<&'a str> {
    let mount = mounts.iter().find(|it| Some(it.path) == path.parent())?;
    let map = objects.iter().find(|it| {
        is(
            it,
            "ConfigMap",
            mount.volume["configMap"]["name"].as_str().unwrap_or_default(),
        )
    })?;
    map["data"][path.file_name()?.to_str()?].as_str()
}

/// Files that are missing or not understood, and places that are not mounted.
pub(crate) fn problems(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for (owner, pod) in templates(objects) {
        for container in containers(pod) {
            let mounts = mounts(pod, container);
            let command: Vec<&str> = items(&container["command"]).filter_map(Value::as_str).collect();
            let found = match command.as_slice() {
                ["/usr/local/bin/manxd", "--config", config] => {
                    agent(pod, container, &mounts, file(objects, &mounts, Path::new(config)))
                }
                ["/usr/local/bin/manxd", "controller", "--config", config] => {
                    controller(file(objects, &mounts, Path::new(config)))
                }
                ["/usr/local/bin/manx", "install", plugins, list, lists] => {
                    installer(&mounts, [plugins, lists], file(objects, &mounts, Path::new(list)))
                }
                other => vec![format!("{other:?} is no command that this test knows")],
            };
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| format!("{}: {problem}", title(owner))),
            );
        }
    }
    problems
}

fn agent(pod: &Value, container: &Value, mounts: &[Mount<'_>], config: Option<&str>) -> Vec<String> {
    let Some(config) = config else {
        return vec!["no manxd.yaml".to_owned()];
    };
    let config = match Config::parse(Path::new("manxd.yaml"), config, |_| None) {
        Ok(config) => config,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    let inside = |path: &Path| mounts.iter().find(|mount| path.starts_with(mount.path));
    // What the node, and its plugin, know by the same path.
    let shared = [
        config.socket.as_path(),
        &config.state_dir,
        Path::new("/run/xtables.lock"),
        Path::new("/run/netns"),
    ];
    for path in shared {
        let mount = inside(path).filter(|it| it.writable);
        if mount.is_none_or(|it| it.volume["hostPath"]["path"].as_str().map(Path::new) != Some(it.path)) {
            problems.push(format!("{} is not the node's", path.display()));
        }
    }
    let settings = inside(&config.sysctl_dir).filter(|it| it.writable);
    if settings.is_none_or(|it| it.volume["hostPath"]["path"] != "/proc/sys/net") {
        problems.push(format!(
            "sysctlDir {} is not the node's",
            config.sysctl_dir.display()
        ));
    }
    let secrets = |mount: &Mount<'_>| {
        mount.path.parent() == Some(&config.secrets_dir)
            && mount.volume["secret"]["secretName"]
                == json!(mount.path.file_name().and_then(|it| it.to_str()))
    };
    if !mounts.iter().any(secrets) {
        problems.push(format!(
            "no secret is below {}, by its name",
            config.secrets_dir.display()
        ));
    }
    if !items(&container["env"]).any(|it| {
        it["name"] == "MANX_NODE_NAME" && it["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    }) {
        problems.push("the agent does not learn its node's name".to_owned());
    }
    if pod["hostNetwork"] != true {
        problems.push("the agent is not in its node's network".to_owned());
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        let address = format!("{}:{}", get["host"].as_str().unwrap_or_default(), get["port"]);
        if config.http.map(|it| it.to_string()) != Some(address) {
            problems.push(format!("{probe} asks where nobody answers"));
        }
    }
    problems
}

fn controller(config: Option<&str>) -> Vec<String> {
    let Some(config) = config else {
        return vec!["no manxd.yaml".to_owned()];
    };
    match Config::parse(Path::new("manxd.yaml"), config, |_| None) {
        Ok(config) if config.datastore.kubernetes.is_some() => Vec::new(),
        Ok(_) => vec!["the controller's datastore is no cluster".to_owned()],
        Err(error) => vec![error.to_string()],
    }
}

fn installer(mounts: &[Mount<'_>], folders: [&str; 2], list: Option<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    match list.map(|it| check_list(it.as_bytes())) {
        None => problems.push("no list of plugins".to_owned()),
        Some(Err(error)) => problems.push(error.to_string()),
        Some(Ok(())) => {}
    }
    for folder in folders {
        let mount = mounts
            .iter()
            .find(|it| it.path == Path::new(folder) && it.writable);
        if mount.is_none_or(|it| {
            it.volume["hostPath"]["path"]
                .as_str()
                .map(|it| format!("/host{it}"))
                .as_deref()
                != Some(folder)
        }) {
            problems.push(format!("{folder} is not the node's"));
        }
    }
    problems
}

#[test]
fn the_image_has_what_pods_run() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let image = read("deploy/Dockerfile");
    for (owner, pod) in templates(&ALL) {
        for container in containers(pod) {
            let program = container["command"][0].as_str().unwrap();
            let copied = image.replace("/src/target/release/", "/usr/local/bin/");
            assert!(
                copied.split_whitespace().any(|word| word == program),
                "{} runs {program}",
                title(owner)
            );
        }
    }
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.split('"').nth(1).unwrap();
    assert!(
        image.contains(&format!("/rust:{version}-")),
        "the tree is built with Rust {version}"
    );
}

#[test]
fn what_the_agent_would_stumble_over_is_found() {
    spoil(
        "spec/containers/0/command/2",
        json!("/etc/manx/manx.yaml"),
        "no manxd.yaml",
    );
    spoil(
        "spec/containers/0/command/1",
        json!("--conf"),
        "no command that this test knows",
    );
    for (index, problem) in [
        (1, "no secret is below /etc/manx-secrets"),
        (2, "/run/manx/manxd.sock is not the node's"),
        (3, "/var/lib/manx is not the node's"),
        (4, "sysctlDir /host/proc/sys/net is not the node's"),
        (5, "/run/xtables.lock is not the node's"),
        (6, "/run/netns is not the node's"),
    ] {
        spoil(
            &format!("spec/containers/0/volumeMounts/{index}/mountPath"),
            json!("/elsewhere"),
            problem,
        );
    }
    spoil(
        "spec/containers/0/volumeMounts/3/readOnly",
        json!(true),
        "/var/lib/manx is not the node's",
    );
    spoil(
        "spec/volumes/3/hostPath/path",
        json!("/srv"),
        "/var/lib/manx is not the node's",
    );
    spoil(
        "spec/containers/0/env/0/name",
        json!("NODE"),
        "does not learn its node's name",
    );
    spoil("spec/hostNetwork", json!(false), "not in its node's network");
    spoil(
        "spec/containers/0/readinessProbe/httpGet/port",
        json!(9098),
        "readinessProbe asks where nobody answers",
    );
}

#[test]
fn an_installer_that_would_install_nothing_is_found() {
    spoil(
        "spec/initContainers/0/command/3",
        json!("/etc/manx/manx.conflist"),
        "no list of plugins",
    );
    spoil(
        "spec/initContainers/0/volumeMounts/1/mountPath",
        json!("/opt/cni/bin"),
        "/host/opt/cni/bin is not the node's",
    );
}

#[test]
fn settings_that_our_programs_refuse_are_found() {
    let mut objects = ALL.clone();
    let map = objects.iter_mut().find(|it| it["kind"] == "ConfigMap").unwrap();
    map["data"]["manxd.yaml"] = json!("stateDirectory: /x");
    map["data"]["10-manx.conflist"] =
        json!(r#"{"cniVersion": "1.0.0", "name": "manx", "plugins": [{"type": "portmap"}]}"#);
    let problems = problems(&objects).join("\n");
    assert!(problems.contains("stateDirectory"), "{problems}");
    assert!(problems.contains("no plugin of the type 'manx'"), "{problems}");
}
