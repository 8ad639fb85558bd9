//! What is tried with every program, and the table of what came of it: `docs/interop.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use libtest_mimic::{Arguments, Trial};

use crate::cases;
use crate::router::Program;
use crate::{bfd, bird, exabgp, features, frr, gobgp, openbgpd, policy, security, traffic, unnumbered};

/// Set to rewrite the document with what this run measures.
const WRITE: &str = "MANX_INTEROP_WRITE";

pub(crate) const PROGRAMS: [&Program; 5] = [
    &bird::PROGRAM,
    &frr::PROGRAM,
    &gobgp::PROGRAM,
    &openbgpd::PROGRAM,
    &exabgp::PROGRAM,
];

/// A row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    TheyDial,
    WeDial,
    Collision,
    HoldTime,
    WeRefuseTheirAs,
    TheyRefuseOurAs,
    IdentifierClash,
    OurNotification,
    TheirShutdown,
    FourOctetAs,
    AsPathLoop,
    LargeCommunities,
    ImportFilters,
    PathFilters,
    ExportFilters,
    Preference,
    AsNumbers,
    LocalAs,
    AllowedOwnAs,
    RouteRefresh,
    WeReflect,
    TheyReflect,
    WeSendPaths,
    TheySendPaths,
    WeRestart,
    TheyRestart,
    WeRestartUnderTraffic,
    TheyRestartUnderTraffic,
    WeLimit,
    TheyLimit,
    Bfd,
    Md5,
    Gtsm,
    ExtendedNextHop,
    Unnumbered,
}

/// A feature, what the document calls it, the test's name, and the test.
type Row = (Feature, &'static str, &'static str, fn(&Program));

const ROWS: [Row; 35] = [
    (
        Feature::TheyDial,
        "iBGP, they dial: IPv4 and IPv6 routes come and go",
        "they_dial",
        cases::they_dial,
    ),
    (
        Feature::WeDial,
        "eBGP, we dial: IPv4 and IPv6 routes come and go",
        "we_dial",
        cases::we_dial,
    ),
    (
        Feature::Collision,
        "both dial at once, 100 times: one session stays (RFC 4271 §6.8)",
        "collision",
        cases::collision,
    ),
    (
        Feature::HoldTime,
        "hold time: a frozen peer's routes go (RFC 4271 §6.5)",
        "hold_time",
        cases::hold_time,
    ),
    (
        Feature::WeRefuseTheirAs,
        "we refuse a wrong AS, they show why (RFC 4271 §6.2)",
        "we_refuse_their_as",
        cases::we_refuse_their_as,
    ),
    (
        Feature::TheyRefuseOurAs,
        "they refuse a wrong AS, we show why (RFC 4271 §6.2)",
        "they_refuse_our_as",
        cases::they_refuse_our_as,
    ),
    (
        Feature::IdentifierClash,
        "one BGP identifier twice: refused within an AS only (RFC 6286)",
        "identifier_clash",
        cases::identifier_clash,
    ),
    (
        Feature::OurNotification,
        "our NOTIFICATION says why (RFC 4486)",
        "our_notification",
        cases::our_notification,
    ),
    (
        Feature::TheirShutdown,
        "their shutdown message is shown (RFC 9003)",
        "their_shutdown",
        cases::their_shutdown,
    ),
    (
        Feature::FourOctetAs,
        "four-octet AS numbers (RFC 6793)",
        "four_octet_as",
        cases::four_octet_as,
    ),
    (
        Feature::AsPathLoop,
        "a path with our AS is not taken, and ends the one before it (RFC 4271 §9.1.2)",
        "as_path_loop",
        cases::as_path_loop,
    ),
    (
        Feature::LargeCommunities,
        "large communities pass through us (RFC 8092)",
        "large_communities",
        cases::large_communities,
    ),
    (
        Feature::ImportFilters,
        "import filters, by community, prefix and length; a change resets nothing",
        "import",
        policy::import,
    ),
    (
        Feature::PathFilters,
        "import filters by AS path",
        "import_by_path",
        policy::import_by_path,
    ),
    (
        Feature::ExportFilters,
        "export filters: they see what is left; a change tells what changed",
        "export",
        policy::export,
    ),
    (
        Feature::Preference,
        "LOCAL_PREF set by a filter",
        "preference",
        policy::preference,
    ),
    (
        Feature::AsNumbers,
        "AS override, and private ASes removed, between two of them",
        "as_numbers",
        policy::as_numbers,
    ),
    (
        Feature::LocalAs,
        "another AS of ours towards them",
        "local_as",
        policy::local_as,
    ),
    (
        Feature::AllowedOwnAs,
        "own AS in their paths, once allowed (RFC 4271 §9.1.2)",
        "allowed_own_as",
        policy::allowed_own_as,
    ),
    (
        Feature::RouteRefresh,
        "route refresh: they ask, we answer (RFC 2918)",
        "route_refresh",
        cases::route_refresh,
    ),
    (
        Feature::WeReflect,
        "we reflect between two of them (RFC 4456)",
        "we_reflect",
        cases::we_reflect,
    ),
    (
        Feature::TheyReflect,
        "they reflect between two of us (RFC 4456)",
        "they_reflect",
        cases::they_reflect,
    ),
    (
        Feature::WeSendPaths,
        "Add-Path: we send two paths, they take them (RFC 7911)",
        "we_send_paths",
        cases::we_send_paths,
    ),
    (
        Feature::TheySendPaths,
        "Add-Path: they send two paths, we take them (RFC 7911)",
        "they_send_paths",
        cases::they_send_paths,
    ),
    (
        Feature::WeRestart,
        "graceful restart: we crash, they keep our routes (RFC 4724)",
        "we_restart",
        cases::we_restart,
    ),
    (
        Feature::TheyRestart,
        "graceful restart: they crash, we keep their routes (RFC 4724)",
        "they_restart",
        cases::they_restart,
    ),
    (
        Feature::WeRestartUnderTraffic,
        "graceful restart: we crash, and no packet is lost through both kernels",
        "we_restart_under_traffic",
        traffic::we_restart,
    ),
    (
        Feature::TheyRestartUnderTraffic,
        "graceful restart: they crash, and no packet is lost through both kernels",
        "they_restart_under_traffic",
        traffic::they_restart,
    ),
    (
        Feature::WeLimit,
        "max-prefix: they announce more than we take (RFC 4486)",
        "we_limit",
        cases::we_limit,
    ),
    (
        Feature::TheyLimit,
        "max-prefix: we announce more than they take (RFC 4486)",
        "they_limit",
        cases::they_limit,
    ),
    (
        Feature::Bfd,
        "BFD, one hop and several: a dead link ends the session at once (RFC 5882)",
        "bfd",
        bfd::a_dead_link_ends_the_session_at_once,
    ),
    (
        Feature::Md5,
        "TCP MD5, whoever dials; not without the password (RFC 2385)",
        "md5",
        security::md5,
    ),
    (
        Feature::Gtsm,
        "GTSM, whoever dials; not with another TTL (RFC 5082)",
        "gtsm",
        security::gtsm,
    ),
    (
        Feature::ExtendedNextHop,
        "IPv4 over IPv6 next hop: both sides' routes, and packets pass (RFC 8950)",
        "extended_next_hop",
        features::extended_next_hop,
    ),
    (
        Feature::Unnumbered,
        "unnumbered: we are given an interface, and packets pass (RFC 2545, RFC 8950)",
        "unnumbered",
        unnumbered::packets_pass,
    ),
];

/// The cells: what a feature and a program came to, as the document has it.
type Cells = BTreeMap<(String, String), String>;

/// What this run has measured so far.
#[derive(Clone, Default)]
pub(crate) struct Matrix(Arc<Mutex<Cells>>);

impl Matrix {
    /// One test per cell whose program does what it is about.
    pub(crate) fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for program in PROGRAMS {
            for (feature, title, name, case) in ROWS {
                if program.lacks.iter().any(|(lacks, _)| *lacks == feature) {
                    continue;
                }
                let cells = Arc::clone(&self.0);
                let test = move || {
                    if program.installed() {
                        case(program);
                        let cell = (title.to_owned(), program.name.to_owned());
                        cells
                            .lock()
                            .expect("no panic in here")
                            .insert(cell, "yes".to_owned());
                    }
                    Ok(())
                };
                trials.push(Trial::test(
                    format!("{}::{name}", program.name.to_lowercase()),
                    test,
                ));
            }
        }
        trials
    }

    /// Prints the table, and compares it with the document or rewrites that.
    pub(crate) fn report(&self, arguments: &Arguments) -> Result<(), String> {
        let mut measured = self.0.lock().map_err(|error| error.to_string())?.clone();
        if measured.is_empty() || arguments.list {
            return Ok(());
        }
        for program in PROGRAMS {
            for (feature, title, ..) in ROWS {
                if let Some((_, why)) = program.lacks.iter().find(|(lacks, _)| *lacks == feature) {
                    let cell = (title.to_owned(), program.name.to_owned());
                    measured.insert(cell, format!("no: {why}"));
                }
            }
        }
        eprintln!("\n{}\n", table(&measured));
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md");
        let committed = parse(&std::fs::read_to_string(&file).unwrap_or_default());
        if std::env::var_os(WRITE).is_some() {
            let mut cells = committed;
            cells.extend(measured);
            return std::fs::write(&file, document(&cells)).map_err(|error| error.to_string());
        }
        let differs = |cell: &(&(String, String), &String)| committed.get(cell.0) != Some(cell.1);
        let differing: Vec<String> = measured
            .iter()
            .filter(differs)
            .map(|((title, program), now)| format!("{program}: {title}: {now}"))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "docs/interop.md says otherwise of these; {WRITE}=1 with this command rewrites it:\n{}",
            differing.join("\n")
        ))
    }
}

fn table(cells: &Cells) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let heads = PROGRAMS.map(|program| {
        let version = program.version().unwrap_or_default();
        format!("{} {version}", program.name)
    });
    table.set_header(std::iter::once(String::new()).chain(heads));
    for (_, title, ..) in ROWS {
        let cell = |program: &&Program| {
            let cell = cells.get(&(title.to_owned(), program.name.to_owned()));
            cell.cloned().unwrap_or_default()
        };
        table.add_row(std::iter::once(title.to_owned()).chain(PROGRAMS.iter().map(cell)));
    }
    table
}

fn document(cells: &Cells) -> String {
    let mut text = String::new();
    let written = write!(
        text,
        "# Interoperability, as measured

What `tests/interop` shows of our speaker and the BGP programs that Debian 12 has, each in a network namespace of its
own. A cell says `yes` where the test passes, and otherwise why the program cannot take part. The run writes this file
(`{WRITE}=1 cargo test -p manx-tests --test interop`) and fails when it measures something else.

{}
",
        table(cells)
    );
    written.expect("a string takes all");
    text
}

/// The cells of a document.
fn parse(text: &str) -> Cells {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let mut rows = rows.map(|line| {
        line.trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()
    });
    let heads = rows.next().unwrap_or_default();
    let mut cells = Cells::new();
    for row in rows {
        for (head, cell) in heads.iter().zip(&row).skip(1) {
            let program = head.split(' ').next().unwrap_or_default();
            cells.insert((row[0].to_owned(), program.to_owned()), (*cell).to_owned());
        }
    }
    cells
}
