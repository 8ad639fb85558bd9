//! `manxctl`: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    manx_ctl::main()
}
