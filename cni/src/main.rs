//! `manx`: the CNI plugin, and what installs it.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use manx_cni::install::Installation;
use manx_cni::{Answer, Code, Error};

fn main() -> ExitCode {
    // Runtimes give no arguments.
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if !arguments.is_empty() {
        return done(install(&arguments));
    }
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

fn install(arguments: &[OsString]) -> Result<(), Error> {
    let [verb, plugins, list, lists] = arguments else {
        return Err(misused());
    };
    if verb != "install" {
        return Err(misused());
    }
    let program = env::current_exe()
        .map_err(|error| Error::new(Code::Io, "cannot find the program itself").with_details(error))?;
    let installation = Installation {
        program,
        plugins: plugins.into(),
        list: list.into(),
        lists: lists.into(),
    };
    installation.carry_out()
}

fn misused() -> Error {
    let usage =
        "usage: manx install PLUGIN-DIRECTORY LIST-FILE LIST-DIRECTORY; runtimes call it without arguments";
    Error::new(Code::InvalidEnvironment, usage)
}

/// Says what went wrong where people look.
fn done(result: Result<(), Error>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let details = error.details.iter().map(|details| format!(": {details}"));
    // Without anywhere to complain, the status has to do.
    writeln!(io::stderr(), "manx: {error}{}", details.collect::<String>()).ok();
    ExitCode::FAILURE
}
