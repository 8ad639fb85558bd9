//! What we ship for people to apply, as a real API server takes it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use manx_tests::apiserver::assets;
use manx_tests::tree;
use serde_json::Value;

use crate::site::{Outcome, Test, Visit};

pub(crate) const TRIALS: [(&str, Test); 1] = [("manifests::a_dry_run_takes_every_kustomization", |site| {
    site.run(a_dry_run_takes_every_kustomization)
})];

async fn a_dry_run_takes_every_kustomization(visit: Visit) -> Outcome {
    let folders = kustomizations(&tree::root().join("deploy"))?;
    assert!(!folders.is_empty(), "deploy/ has kustomizations");
    let mut namespaces = BTreeSet::new();
    for folder in &folders {
        let rendered: Vec<Value> =
            serde_saphyr::from_multiple(&kubectl(&visit.kubeconfig, &["kustomize"], folder)?)?;
        let made = rendered.iter().filter(|object| object["kind"] == "Namespace");
        namespaces.extend(made.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)));
    }
    // A dry run makes no namespace, and refuses what is to be in one that is not there.
    for name in &namespaces {
        kubectl(&visit.kubeconfig, &["create", "namespace"], Path::new(name))?;
    }
    let admission = Path::new("/apis/admissionregistration.k8s.io/v1");
    let judges =
        kubectl(&visit.kubeconfig, &["get", "--raw"], admission)?.contains("validatingadmissionpolicies");
    let validate = if visit.knows_rules().await? {
        "--validate=strict"
    } else {
        "--validate=false"
    };
    for folder in &folders {
        if !judges && folder.ends_with("overlays/admission") {
            eprintln!("this server, before Kubernetes 1.30, has no ValidatingAdmissionPolicies");
            continue;
        }
        let arguments = ["apply", "--dry-run=server", validate, "--kustomize"];
        let said = kubectl(&visit.kubeconfig, &arguments, folder)?;
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)"));
        assert!(taken.count() > 0, "{}: {said}", folder.display());
    }
    Ok(())
}

/// The folders below this one that `kubectl apply -k` takes.
fn kustomizations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(kustomizations(&path)?);
        } else if path.ends_with("kustomization.yaml") {
            found.push(folder.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// What kubectl prints: the one beside the server, else the one in the PATH.
fn kubectl(kubeconfig: &Path, arguments: &[&str], last: &Path) -> Outcome<String> {
    let beside = assets()?.join("kubectl");
    let program = if beside.is_file() {
        beside
    } else {
        PathBuf::from("kubectl")
    };
    let mut command = Command::new(program);
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(arguments)
        .arg(last);
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}
