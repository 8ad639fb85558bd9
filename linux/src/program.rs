//! Programs of the system's, run within limits: text in, text out, and an end in sight.

use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::netns::Netns;

/// How long a program may take; longer than it waits for a lock of its own.
const LIMIT: Duration = Duration::from_secs(15);

/// A program that has done its work.
#[derive(Debug)]
pub(crate) struct Done {
    /// What it printed.
    pub(crate) printed: String,
    /// The number of its process.
    pub(crate) process: u32,
}

/// Runs a program in a namespace, and gives it `input` to read. It is killed when it takes too long, or when nobody
/// waits for it any more.
///
/// # Errors
/// [`Error::NoProgram`], [`Error::Program`] with what it complained of, and [`Error::Late`]; [`Error::Os`] if it
/// cannot be run at all.
pub(crate) async fn run(
    netns: &Netns,
    program: &'static str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Result<Done> {
    let mut command = netns.command(program);
    command
        .args(arguments)
        // Complaints are looked through for the number of a line.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let late = |_| Error::Late {
        program,
        limit: LIMIT,
    };
    let (process, output) = match timeout(LIMIT, feed(command.into(), input)).await.map_err(late)? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoProgram(program)),
        other => other.map_err(Error::os(format!("run {program}")))?,
    };
    if !output.status.success() {
        return Err(refused(program, &output, input));
    }
    let printed = String::from_utf8(output.stdout)
        .map_err(|_| Error::Malformed(format!("{program} printed no UTF-8")))?;
    Ok(Done { printed, process })
}

async fn feed(mut command: Command, input: &str) -> io::Result<(u32, Output)> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let process = child.id().unwrap_or_default();
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input.as_bytes()).await?;
        }
        io::Result::Ok(())
    };
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output?;
    // Who does not read to the end has failed, and says why itself.
    if output.status.success() {
        written?;
    }
    Ok((process, output))
}

/// What a program complained of, with the line of its input that it names.
fn refused(program: &'static str, output: &Output, input: &str) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    // The last line of iptables' complaints is advice to read its manual.
    let said: Vec<&str> = lines.filter(|line| !line.starts_with("Try `")).collect();
    let said = said.join("; ");
    let line = line_number(&said)
        .and_then(|number| input.lines().nth(number.checked_sub(1)?))
        .map(str::to_owned);
    Error::Program {
        program,
        status: output.status,
        said,
        line,
    }
}

/// The number in "Error occurred at line: 3" and "line 3: RULE_APPEND failed".
fn line_number(said: &str) -> Option<usize> {
    let (_, behind) = said.split_once("line")?;
    let digits = behind.trim_start_matches([':', ' ']);
    let end = digits
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_in_the_words_of_each_program() {
        for (said, line) in [
            (
                "iptables-restore v1.8.9 (legacy): Set nope doesn't exist.; Error occurred at line: 2",
                Some(2),
            ),
            (
                "iptables-nft-restore v1.8.9 (nf_tables): line 12: RULE_APPEND failed (No such file)",
                Some(12),
            ),
            (
                "Another app is currently holding the xtables lock; still 1s",
                None,
            ),
            ("a line of words", None),
        ] {
            assert_eq!(line_number(said), line, "{said}");
        }
    }

    #[tokio::test]
    async fn a_program_is_fed_and_its_complaint_names_the_line() {
        let here = Netns::current().unwrap();
        assert_eq!(run(&here, "cat", [""; 0], "text").await.unwrap().printed, "text");
        let error = run(
            &here,
            "sh",
            ["-c", "cat; echo 'Error in line 2: no' >&2; exit 3"],
            "a\nb\n",
        )
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "sh failed (exit status: 3): Error in line 2: no: 'b'"
        );
        let error = run(&here, "no-such-program", [""; 0], "").await.unwrap_err();
        assert!(matches!(error, Error::NoProgram("no-such-program")), "{error}");
    }

    /// Time is told to pass as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn a_program_that_does_not_end_is_ended() {
        let here = Netns::current().unwrap();
        let error = run(&here, "sleep", ["600"], "").await.unwrap_err();
        assert!(matches!(error, Error::Late { program: "sleep", .. }), "{error}");
    }
}
