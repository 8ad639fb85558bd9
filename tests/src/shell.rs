//! Commands in network namespaces, and waiting for what they bring about.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use manx_linux::Netns;

/// How long anything may take that should be quick: generous, for busy machines.
pub const SOON: Duration = Duration::from_secs(30);

/// A new network namespace whose name begins with `word` and the process's number. Whoever makes it deletes it.
///
/// # Panics
/// Without root.
#[must_use]
pub fn namespace(word: &str) -> (PathBuf, Netns) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = PathBuf::from(format!("/run/netns/{word}-{}-{number}", std::process::id()));
    let namespace = Netns::create(&path).expect("network namespaces are made here, which needs root");
    (path, namespace)
}

/// Runs `ip` with these words in a namespace.
///
/// # Panics
/// Where `ip` fails.
pub fn ip(namespace: &Netns, words: &str) -> String {
    run(namespace.command("ip").args(words.split(' ')))
}

/// Runs `ip` once with a command on each line.
///
/// # Panics
/// Where `ip` fails.
pub fn ip_batch(namespace: &Netns, lines: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(file.path(), lines).expect("it can be written");
    run(namespace.command("ip").arg("-batch").arg(file.path()));
}

/// Runs a command that must succeed; gives what it writes.
///
/// # Panics
/// Where it fails.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until `holds`, at most `within`.
///
/// # Panics
/// When the time is up.
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
