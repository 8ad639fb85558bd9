//! Pods: a namespace each, wired up by the real CNI plugin, run in its node's namespace as a runtime would.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;

use ipnetwork::IpNetwork;
use manx_linux::Netns;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{LabError, Result};
use crate::layout::{Layout, netns_path};
use crate::programs;
use crate::state::Pod;

/// The interface in a pod.
const INTERFACE: &str = "eth0";
/// The capability that brings a pod's annotations, as containerd and CRI-O have it.
pub(crate) const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// CNI's error code for "try again later".
const TRY_AGAIN_LATER: u32 = 11;

/// What a pod is like, beyond its name and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The part of a CNI result that a lab needs.
#[derive(Deserialize)]
struct CniResult {
    #[serde(default)]
    ips: Vec<CniAddress>,
}

#[derive(Deserialize)]
struct CniAddress {
    address: IpNetwork,
}

/// A CNI error.
#[derive(Deserialize)]
struct CniError {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl LabError {
    /// Whether the plugin asks to be called again.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Cni {
                code: Some(TRY_AGAIN_LATER),
                ..
            }
        )
    }
}

/// Gives the pod its namespace.
pub(crate) fn create(pod: &Pod) -> Result<()> {
    Netns::create(netns_path(&pod.netns))
        .map_err(LabError::kernel(format!("make namespace {}", pod.netns)))?;
    Ok(())
}

/// CNI ADD; the pod's addresses.
pub(crate) fn add(layout: &Layout, node_netns: &str, pod: &Pod) -> Result<Vec<IpAddr>> {
    let answer = call(layout, node_netns, pod, "ADD")?;
    let result: CniResult =
        serde_json::from_slice(&answer).map_err(|error| cni_error("ADD", pod, None, error.to_string()))?;
    Ok(result.ips.iter().map(|ip| ip.address.ip()).collect())
}

/// CNI DEL, and the namespace with it.
pub(crate) fn delete(layout: &Layout, node_netns: &str, pod: &Pod) -> Result<()> {
    call(layout, node_netns, pod, "DEL")?;
    Netns::delete(netns_path(&pod.netns)).map_err(LabError::kernel(format!("delete namespace {}", pod.netns)))
}

fn call(layout: &Layout, node_netns: &str, pod: &Pod, verb: &'static str) -> Result<Vec<u8>> {
    let configuration = configuration(&layout.cni_conf_dir(&pod.node), pod)?;
    let plugins = layout.cni_bin_dir(&pod.node);
    let program = plugins.join(programs::PLUGIN);
    let netns =
        Netns::open(netns_path(node_netns)).map_err(LabError::kernel(format!("enter {node_netns}")))?;
    let mut child = netns
        .command(&program)
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.container_id)
        .env("CNI_NETNS", netns_path(&pod.netns))
        .env("CNI_IFNAME", INTERFACE)
        .env("CNI_PATH", &plugins)
        .env("CNI_ARGS", arguments(pod))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::file("start", &program))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin that refuses before it has read says so on its standard output.
        input.write_all(configuration.to_string().as_bytes()).ok();
    }
    let output = child
        .wait_with_output()
        .map_err(LabError::file("run", &program))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(match serde_json::from_slice::<CniError>(&output.stdout) {
        Ok(error) => {
            let separator = if error.details.is_empty() { "" } else { ": " };
            cni_error(
                verb,
                pod,
                Some(error.code),
                format!("{}{separator}{}", error.msg, error.details),
            )
        }
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            cni_error(
                verb,
                pod,
                None,
                format!("the plugin ended with {}: {}", output.status, said.trim()),
            )
        }
    })
}

fn arguments(pod: &Pod) -> String {
    let Pod {
        namespace,
        name,
        container_id,
        ..
    } = pod;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={container_id}"
    )
}

fn cni_error(verb: &'static str, pod: &Pod, code: Option<u32>, message: String) -> LabError {
    LabError::Cni {
        verb,
        pod: format!("{}/{}", pod.namespace, pod.name),
        node: pod.node.clone(),
        code,
        message,
    }
}

/// What a runtime makes of the node's configuration list for its first plugin.
fn configuration(folder: &Path, pod: &Pod) -> Result<Value> {
    let path = folder.join("10-manx.conflist");
    let text = std::fs::read(&path).map_err(LabError::file("read", &path))?;
    let wrong = |problem: &str| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, problem.to_owned());
        LabError::file("use", &path)(source)
    };
    let list: Value = serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?;
    let mut plugin = list["plugins"][0].clone();
    let fields = plugin
        .as_object_mut()
        .ok_or_else(|| wrong("it lists no plugin"))?;
    for key in ["cniVersion", "name"] {
        fields.insert(key.to_owned(), list[key].clone());
    }
    // A runtime tells a plugin what the plugin's configuration says that it can take.
    let capabilities = fields.remove("capabilities").unwrap_or_default();
    if capabilities[ANNOTATIONS] == true && !pod.annotations.is_empty() {
        let runtime = serde_json::json!({ ANNOTATIONS: pod.annotations });
        fields.insert("runtimeConfig".to_owned(), runtime);
    }
    if !pod.labels.is_empty() {
        let label = |(key, value)| serde_json::json!({"key": key, "value": value});
        let labels: Vec<Value> = pod.labels.iter().map(label).collect();
        let args = serde_json::json!({"cni": {"labels": labels}});
        fields.insert("args".to_owned(), args);
    }
    Ok(plugin)
}

/// A container id that no other pod has had.
pub(crate) fn container_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let text = std::fs::read_to_string(path).map_err(LabError::file("read", path))?;
    Ok(text.trim().replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Pod {
            namespace: "default".to_owned(),
            name: "p".to_owned(),
            node: "n".to_owned(),
            netns: "ns".to_owned(),
            container_id: "c".to_owned(),
            addresses: Vec::new(),
            annotations: annotations.iter().map(own).collect(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn the_plugin_gets_the_lists_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "manx", "socket": "/s"}]}"#;
        std::fs::write(folder.path().join("10-manx.conflist"), list).unwrap();
        let expected =
            serde_json::json!({"cniVersion": "1.0.0", "name": "n", "type": "manx", "socket": "/s"});
        let annotated = pod(&[("a", "b")]);
        assert_eq!(configuration(folder.path(), &annotated).unwrap(), expected);
        std::fs::write(folder.path().join("10-manx.conflist"), r#"{"plugins": []}"#).unwrap();
        let refused = configuration(folder.path(), &annotated).unwrap_err().to_string();
        assert!(refused.contains("it lists no plugin"), "{refused}");
    }

    #[test]
    fn a_plugin_that_can_take_annotations_is_told_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": "n", "plugins": [
            {"type": "manx", "capabilities": {ANNOTATIONS: true}},
        ]});
        std::fs::write(folder.path().join("10-manx.conflist"), list.to_string()).unwrap();
        let told = |annotations: &[(&str, &str)]| {
            let plugin = configuration(folder.path(), &pod(annotations)).unwrap();
            plugin.get("runtimeConfig").cloned()
        };
        let expected = serde_json::json!({ANNOTATIONS: {"a": "b"}});
        assert_eq!(told(&[("a", "b")]), Some(expected));
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn container_ids_differ() {
        assert_ne!(container_id().unwrap(), container_id().unwrap());
    }
}
