//! A container runtime as the CNI specification's section 3 has it: a list of plugins, run in order with each
//! other's results, checked, and undone in reverse.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use manx_tests::binaries::program;
use serde_json::{Value, json};

use crate::agent_harness::{Node, extend};

/// Where Debian puts the reference plugins.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";

/// What a plugin printed: its result (null for none), or its error.
pub(crate) type Outcome = Result<Value, Value>;

/// A container, with what a runtime says of it in each call.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
    pub(crate) ifname: String,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// Capability arguments.
    pub(crate) wishes: Value,
}

impl Container {
    pub(crate) fn new(id: &str, netns: &Path) -> Self {
        Self {
            id: id.to_owned(),
            netns: netns.to_owned(),
            ifname: "eth0".to_owned(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={id}"),
            wishes: json!({}),
        }
    }

    /// The same with these capability arguments.
    pub(crate) fn wishing(self, wishes: Value) -> Self {
        Self { wishes, ..self }
    }
}

/// A network: a list of plugins, Manx the first of them.
pub(crate) struct Network<'a> {
    node: &'a Node,
    version: &'a str,
    name: &'a str,
    plugins: Vec<Value>,
}

impl<'a> Network<'a> {
    /// A network of this version of the specification, with these plugins behind Manx.
    pub(crate) fn new(node: &'a Node, version: &'a str, name: &'a str, behind: &[Value]) -> Self {
        let mut manx = node.plugin();
        manx["capabilities"] = json!({"ips": true, "mac": true, "io.kubernetes.cri.pod-annotations": true});
        Self {
            node,
            version,
            name,
            plugins: [&[manx], behind].concat(),
        }
    }

    /// The same with more fields for Manx.
    pub(crate) fn with(mut self, more: &Value) -> Self {
        extend(&mut self.plugins[0], more);
        self
    }

    /// Section 3, "Adding an attachment".
    pub(crate) fn add(&self, container: &Container) -> Outcome {
        let mut result = None;
        for plugin in &self.plugins {
            let request = self.request(plugin, container, result.as_ref());
            result = Some(self.execute(plugin, "ADD", Some(container), &request)?);
        }
        Ok(result.unwrap_or_default())
    }

    /// Section 3, "Checking an attachment".
    pub(crate) fn check(&self, container: &Container, result: &Value) -> Outcome {
        for plugin in &self.plugins {
            let request = self.request(plugin, container, Some(result));
            self.execute(plugin, "CHECK", Some(container), &request)?;
        }
        Ok(Value::Null)
    }

    /// Section 3, "Deleting an attachment".
    pub(crate) fn del(&self, container: &Container, result: Option<&Value>) -> Outcome {
        for plugin in self.plugins.iter().rev() {
            let request = self.request(plugin, container, result);
            self.execute(plugin, "DEL", Some(container), &request)?;
        }
        Ok(Value::Null)
    }

    /// Section 3, "Garbage-collecting a network", with Manx alone: the reference plugins of Debian 12 know no GC.
    pub(crate) fn gc(&self, valid: &[&Container]) -> Outcome {
        let valid: Vec<_> = valid
            .iter()
            .map(|container| json!({"containerID": container.id, "ifname": container.ifname}))
            .collect();
        let more = json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid});
        self.without_container("GC", &more)
    }

    pub(crate) fn status(&self) -> Outcome {
        self.without_container("STATUS", &json!({}))
    }

    fn without_container(&self, command: &str, more: &Value) -> Outcome {
        let mut request = self.named(&self.plugins[0]);
        extend(&mut request, more);
        self.execute(&self.plugins[0], command, None, &request)
    }

    /// Section 3, "Deriving request configuration from plugin configuration".
    fn request(&self, plugin: &Value, container: &Container, previous: Option<&Value>) -> Value {
        let mut request = self.named(plugin);
        let wanted = |name: &&String| plugin["capabilities"][name.as_str()] == json!(true);
        let wishes = container.wishes.as_object().unwrap();
        let granted: serde_json::Map<_, _> = wishes
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !granted.is_empty() {
            request["runtimeConfig"] = Value::Object(granted);
        }
        if let Some(previous) = previous {
            request["prevResult"] = previous.clone();
        }
        request
    }

    fn named(&self, plugin: &Value) -> Value {
        let mut request = plugin.clone();
        request.as_object_mut().unwrap().remove("capabilities");
        extend(
            &mut request,
            &json!({"cniVersion": self.version, "name": self.name}),
        );
        request
    }

    /// Runs a plugin in the node's namespace.
    fn execute(
        &self,
        plugin: &Value,
        command: &str,
        container: Option<&Container>,
        request: &Value,
    ) -> Outcome {
        match self.run(plugin, command, container, request) {
            (true, printed) => Ok(printed),
            (false, printed) => Err(printed),
        }
    }

    /// Whether the plugin succeeded, and what it printed.
    fn run(
        &self,
        plugin: &Value,
        command: &str,
        container: Option<&Container>,
        request: &Value,
    ) -> (bool, Value) {
        let binary = match plugin["type"].as_str().unwrap() {
            "manx" => program("manx"),
            other => Path::new(REFERENCE).join(other),
        };
        let mut process = self.node.netns.command(binary);
        process
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", REFERENCE)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(container) = container {
            process
                .env("CNI_CONTAINERID", &container.id)
                .env("CNI_NETNS", &container.netns)
                .env("CNI_IFNAME", &container.ifname)
                .env("CNI_ARGS", &container.args);
        }
        let mut process = process.spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        input.write_all(request.to_string().as_bytes()).unwrap();
        drop(input);
        let output = process.wait_with_output().unwrap();
        let printed = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).unwrap()
        };
        (output.status.success(), printed)
    }
}
