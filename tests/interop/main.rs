//! Our speaker against BIRD, FRR, GoBGP, OpenBGPD and ExaBGP, in network namespaces.
//!
//! Each test has two namespaces joined by a veth pair: our speaker in one, the other program with its own
//! configuration, sockets and folder in the other. Both sides are asked what they hold, ours through its
//! handle, theirs through their own command line. Needs root. A program that is not installed skips its tests,
//! loudly, unless `CI` is set.
//!
//! The tests wait most of the time, so more of them run at once than there are processors. Those of the matrix
//! are rows of `matrix.rs`, which prints its table at the end and compares it with `docs/interop.md`.

mod bfd;
mod binary;
mod bird;
mod cases;
mod drain;
mod exabgp;
mod features;
mod frr;
mod gobgp;
mod long_lived;
mod matrix;
mod net;
mod openbgpd;
mod ours;
mod policy;
mod router;
mod security;
mod traffic;
mod unnumbered;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::matrix::Matrix;

/// Tests at once, where the command line does not say.
const AT_ONCE: usize = 8;

/// What only one program, or our own binary, can show.
const SINGLE: [(&str, fn()); 6] = [
    (
        "policy::a_leak_of_birds_is_not_used",
        policy::a_leak_of_birds_is_not_used,
    ),
    (
        "frr::a_bfd_session_that_their_operator_takes_down_leaves_bgp_alone",
        bfd::a_session_that_their_operator_takes_down_leaves_bgp_alone,
    ),
    (
        "frr::bfd_watches_ipv6_and_link_local_paths",
        bfd::frr_watches_ipv6_and_link_local_paths,
    ),
    (
        "bird::bfd_watches_ipv6_and_link_local_paths",
        bfd::bird_watches_ipv6_and_link_local_paths,
    ),
    (
        "binary::kill_nine_and_a_new_start_change_no_route_anywhere",
        binary::kill_nine_and_a_new_start_change_no_route_anywhere,
    ),
    (
        "binary::a_polite_end_tells_the_peer_and_leaves_the_kernel_alone",
        binary::a_polite_end_tells_the_peer_and_leaves_the_kernel_alone,
    ),
];

/// FRR and OpenBGPD give what they make to users of their own.
fn left_out_without_users(trial: Trial) -> Trial {
    let wants_users = ["frr", "openbgpd"]
        .iter()
        .any(|program| trial.name().contains(program));
    trial.with_ignored_flag(wants_users && !manx_tests::users::others_exist())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    let matrix = Matrix::default();
    let single = SINGLE
        .into_iter()
        .chain(features::TESTS)
        .chain(long_lived::TESTS)
        .chain(drain::TESTS)
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        });
    let trials = single
        .chain(matrix.trials())
        .map(left_out_without_users)
        .collect();
    let failed = libtest_mimic::run(&arguments, trials).has_failed();
    let reported = matrix.report(&arguments);
    if let Err(error) = &reported {
        eprintln!("{error}");
    }
    if failed || reported.is_err() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
