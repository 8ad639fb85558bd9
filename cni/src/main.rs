//! `manx`: the CNI plugin.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use manx_cni::Answer;

fn main() -> ExitCode {
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (text, status) = match manx_cni::run(variable, io::stdin().lock()) {
        Answer::Done(None) => return ExitCode::SUCCESS,
        Answer::Done(Some(result)) => (result, ExitCode::SUCCESS),
        Answer::Failed(error) => (error, ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => status,
        Err(_) => ExitCode::FAILURE,
    }
}
