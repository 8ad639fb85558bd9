//! Pods: a namespace each, wired up by the real CNI plugin, run in its node's namespace as a runtime would.

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
/// CNI's error code for "try again later".
const TRY_AGAIN_LATER: u32 = 11;

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
    let configuration = configuration(&layout.cni_conf_dir(&pod.node))?;
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
fn configuration(folder: &Path) -> Result<Value> {
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

    #[test]
    fn the_plugin_gets_the_lists_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "manx", "socket": "/s"}]}"#;
        std::fs::write(folder.path().join("10-manx.conflist"), list).unwrap();
        let expected =
            serde_json::json!({"cniVersion": "1.0.0", "name": "n", "type": "manx", "socket": "/s"});
        assert_eq!(configuration(folder.path()).unwrap(), expected);
        std::fs::write(folder.path().join("10-manx.conflist"), r#"{"plugins": []}"#).unwrap();
        assert!(
            configuration(folder.path())
                .unwrap_err()
                .to_string()
                .contains("it lists no plugin")
        );
    }

    #[test]
    fn container_ids_differ() {
        assert_ne!(container_id().unwrap(), container_id().unwrap());
    }
}
