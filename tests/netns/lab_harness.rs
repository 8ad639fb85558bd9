//! Labs that are gone when their test is, and manxctl as a user runs it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use manx_lab::{Lab, Name, Options, Progress, Proof, Settings, Topology};
use manx_tests::binaries::program;
use serde_json::Value;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The name of a lab that is taken down when this is dropped, also by a panic.
pub(crate) struct LabName(Name);

impl LabName {
    /// A name that no other test has.
    pub(crate) fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(format!("mxlab-{}-{number}", std::process::id()).parse().unwrap())
    }

    /// The name.
    pub(crate) fn name(&self) -> &Name {
        &self.0
    }

    /// Where the lab keeps its files.
    pub(crate) fn folder(&self) -> PathBuf {
        settings().base.join(self.0.as_str())
    }

    /// A run of manxctl for this lab.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(program("manxctl"));
        command
            .arg("--lab")
            .arg(self.0.as_str())
            .args(arguments.split_whitespace());
        command.env_remove("MANX_LAB").stdin(Stdio::null());
        command
    }

    /// What manxctl prints, if it ends well.
    pub(crate) fn ctl(&self, arguments: &str) -> String {
        let output = self.try_ctl(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "manxctl {arguments}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What becomes of manxctl.
    pub(crate) fn try_ctl(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What manxctl prints with `-o json`.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ctl(&format!("{arguments} -o json"))).unwrap()
    }

    /// Changes a resource, as an editor would; `which` is its kind and name, and its namespace if it has one.
    pub(crate) fn edit(&self, which: &str, change: impl FnOnce(&mut Value)) {
        let mut resource = self.json(&format!("get {which}"));
        change(&mut resource);
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, &resource).unwrap();
        self.ctl(&format!("apply -f {}", file.path().display()));
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest).unwrap();
        self.ctl(&format!("apply -f {}", file.path().display()));
    }

    /// A lab of this name, made by the library.
    pub(crate) fn up(&self, topology: Topology, nodes: u16, dual_stack: bool) -> Lab {
        let options = Options {
            name: self.0.clone(),
            nodes,
            topology,
            pods_per_node: 2,
            dual_stack,
        };
        Lab::up(&options, &settings(), &Progress::silent()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The namespaces that begin with the lab's name.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}-", self.0);
        let names = std::fs::read_dir("/run/netns").into_iter().flatten();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&prefix))
            .collect()
    }
}

impl Drop for LabName {
    fn drop(&mut self) {
        // Most tests have taken it down themselves.
        Lab::down(&settings().base, &self.0).ok();
    }
}

/// How the tests make labs.
pub(crate) fn settings() -> Settings {
    let bin_dir = program("manxctl").parent().unwrap().to_owned();
    Settings {
        base: manx_lab::layout::BASE.into(),
        bin_dir,
        timeout: Duration::from_secs(60),
    }
}

/// Fails with what is wrong unless the lab proves itself.
pub(crate) fn assert_proved(lab: &Lab) -> Proof {
    let proof = manx_lab::verify(lab).unwrap();
    let wrong: Vec<_> = proof
        .exchanges
        .iter()
        .filter(|exchange| exchange.problem.is_some())
        .collect();
    assert!(
        proof.proved,
        "{wrong:#?}\n{:?}\n{:?}",
        proof.packets, proof.offenders
    );
    proof
}
