//! `manx install`: the plugin and its list on a node.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A node's directories, and a list to install.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, list: &str) -> Output {
        let file = self.path("10-manx.conflist");
        fs::write(&file, list).unwrap();
        Command::new(env!("CARGO_BIN_EXE_manx"))
            .arg("install")
            .args([self.path("bin"), file, self.path("net.d")])
            .output()
            .unwrap()
    }

    fn refuses(&self, list: &str, complaint: &str) {
        let output = self.install(list);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(complaint), "{said}");
    }
}

fn list(ours: &Value) -> String {
    json!({"cniVersion": "1.0.0", "name": "manx", "plugins": [ours, {"type": "portmap"}]}).to_string()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn installs_itself_and_the_list_in_the_place_of_what_was_there() {
    let node = Node::new();
    let (plugin, installed) = (node.path("bin/manx"), node.path("net.d/10-manx.conflist"));
    fs::write(&plugin, "an older one").unwrap();
    let older = fs::metadata(&plugin).unwrap().ino();
    let first = list(&json!({"type": "manx"}));
    assert!(node.install(&first).status.success());
    assert_eq!(names(&node.path("bin")), ["manx"], "nothing else is left");
    assert_eq!(names(&node.path("net.d")), ["10-manx.conflist"]);
    assert_eq!(fs::read_to_string(&installed).unwrap(), first);
    assert_eq!(
        fs::read(&plugin).unwrap(),
        fs::read(env!("CARGO_BIN_EXE_manx")).unwrap()
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&plugin), mode(&installed)), (0o755, 0o644));
    assert_ne!(
        fs::metadata(&plugin).unwrap().ino(),
        older,
        "a plugin that runs keeps its file"
    );

    // Again, over what an attempt left that was killed.
    fs::write(node.path("net.d/.10-manx.conflist.new"), "half a li").unwrap();
    let second = list(&json!({"type": "manx", "mtu": 1400}));
    assert!(node.install(&second).status.success());
    assert_eq!(fs::read_to_string(&installed).unwrap(), second);
    assert_eq!(names(&node.path("net.d")), ["10-manx.conflist"]);
}

#[test]
fn a_list_that_no_pod_could_be_added_by_changes_nothing() {
    let node = Node::new();
    node.refuses("{", "the list is no JSON object");
    node.refuses(&list(&json!({"type": "bridge"})), "no plugin of the type 'manx'");
    node.refuses(&list(&json!({"type": "manx", "mtu": 1})), "mtu");
    node.refuses(&list(&json!({"type": "manx", "ipMasq": true})), "ipMasq");
    let unnamed = json!({"cniVersion": "1.0.0", "plugins": [{"type": "manx"}]});
    node.refuses(&unnamed.to_string(), "name");
    let future = json!({"cniVersion": "9.0.0", "name": "manx", "plugins": [{"type": "manx"}]});
    node.refuses(&future.to_string(), "9.0.0");
    for directory in ["bin", "net.d"] {
        assert_eq!(names(&node.path(directory)), [""; 0]);
    }
}

#[test]
fn the_list_waits_for_the_plugin() {
    let node = Node::new();
    fs::remove_dir(node.path("bin")).unwrap();
    node.refuses(&list(&json!({"type": "manx"})), "bin/.manx.new");
    assert_eq!(names(&node.path("net.d")), [""; 0]);
}

#[test]
fn arguments_that_it_does_not_know_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_manx"))
        .arg("ADD")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: manx install"));
}
