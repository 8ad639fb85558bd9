//! What `docs/kubernetes.md` and `docs/migration.md` have people type: files are there, and commands of ours are understood.

use std::process::Command;

use manx_tests::binaries::program;
use manx_tests::manifests::blocks;
use manx_tests::tree::root;

/// What is wrong with a line that people are to type.
fn problem(line: &str) -> Option<String> {
    let words: Vec<&str> = line
        .split_whitespace()
        .take_while(|word| !matches!(*word, "|" | ">"))
        .collect();
    let missing = words
        .iter()
        .find(|it| it.starts_with("deploy/") && !root().join(it).exists());
    if let Some(missing) = missing {
        return Some(format!("{missing} is not there"));
    }
    let ours = words.iter().position(|word| *word == "manxctl")?;
    // Whatever else the words say, they have to be words that it knows.
    let output = Command::new(program("manxctl"))
        .args(&words[ours + 1..])
        .arg("--help")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{line}: {complaint}"))
}

#[test]
fn what_people_are_to_type_is_understood() {
    for document in ["kubernetes.md", "migration.md"] {
        let lines: Vec<String> = blocks(document, "")
            .iter()
            .flat_map(|it| it.lines())
            .map(str::to_owned)
            .collect();
        assert!(
            lines.iter().any(|line| line.contains("manxctl ")),
            "{document}: the commands are gone"
        );
        let problems: Vec<String> = lines.iter().filter_map(|line| problem(line)).collect();
        assert!(problems.is_empty(), "{document}: {}", problems.join("\n"));
    }
}

#[test]
fn what_nobody_understands_is_found() {
    for (line, complaint) in [
        ("kubectl apply -k deploy/overlays/star", "is not there"),
        (
            "kubectl exec ds/manxd -- manxctl bgp peer",
            "unrecognized subcommand",
        ),
        ("manxctl policy denies --folow", "unexpected argument"),
    ] {
        let problem = problem(line).unwrap_or_default();
        assert!(problem.contains(complaint), "{line}: {problem}");
    }
}
