//! The store and what we ship, held to a real kube-apiserver: `make test-kube`.
//!
//! So are agents and a controller, each with the token of the account that `deploy/` gives it: they need root, or a user
//! namespace, as all tests with network namespaces do.
//!
//! Runs with the programs that the variable `KUBEBUILDER_ASSETS` names, and is passed over, visibly, without it; with
//! `--include-ignored` a missing program is an error. The trials of the store share one server, and each looks at what
//! is its own; a scenario has one for itself.

#![expect(
    clippy::unwrap_used,
    reason = "in a test and its harness, an unwrap is an assertion"
)]

#[path = "../netns/agent_harness.rs"]
#[expect(dead_code, reason = "netns uses more of it")]
mod agent_harness;
#[path = "../kubernetes/mod.rs"]
#[expect(dead_code, reason = "netns uses more of it")]
mod clusters;
#[path = "../netns/container.rs"]
mod container;
#[path = "../netns/daemon.rs"]
#[expect(dead_code, reason = "netns uses more of it")]
mod daemon;
mod definitions;
#[path = "../netns/harness.rs"]
#[expect(dead_code, reason = "netns uses more of it")]
mod harness;
mod manifests;
mod site;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use manx_store::conformance;
use manx_tests::apiserver::assets;

use crate::clusters::server::Which;
use crate::clusters::{controller, each_scenario, network, rights, told};
use crate::site::Site;

/// A trial of every clause of the store's contract.
macro_rules! trials {
    ($site:expr; $($clause:ident)*) => {
        vec![$({
            let site = Arc::clone(&$site);
            Trial::test(concat!("store::", stringify!($clause)), move || {
                site.run(async |site| {
                    conformance::$clause(&site.store().await?).await;
                    Ok(())
                })
            })
        }),*]
    };
}

/// A trial of every scenario.
macro_rules! scenarios {
    ($($module:ident { $($scenario:ident)* })*) => {
        [$($(
            Trial::test(concat!("cluster::", stringify!($scenario)), || {
                $module::$scenario(Which::Real);
                Ok(())
            })
        ),*),*]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let site = Arc::new(Site::default());
    let mut trials = manx_store::each_clause!([trials], site);
    for (name, trial) in definitions::TRIALS.into_iter().chain(manifests::TRIALS) {
        let site = Arc::clone(&site);
        trials.push(Trial::test(name, move || trial(&site)));
    }
    trials.extend(each_scenario!([scenarios]));
    if let Err(missing) = assets() {
        if arguments.include_ignored {
            eprintln!("{missing}");
            return ExitCode::FAILURE;
        }
        eprintln!("no test with a real kube-apiserver is run: {missing}");
        trials = trials
            .into_iter()
            .map(|trial| trial.with_ignored_flag(true))
            .collect();
    }
    trials.push(Trial::test("definitions::every_rule_has_a_row", || {
        Ok(definitions::every_rule_has_a_row().map_err(|error| error.to_string())?)
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}
