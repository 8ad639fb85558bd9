//! Our speaker beside those that others use: the same work, in one run, in turn, from one load generator.
//!
//! `cargo bench -p manx-tests --bench speakers -- --lines A,D --rounds 5`, as root, after
//! `cargo build --release --workspace --bins`. The lines are described in `lines.rs`.
//!
//! Each round starts a speaker afresh in a network namespace, brings the sessions up, then lets all peers send at
//! once what they have encoded beforehand, and waits until every peer that listens has exactly the routes, with the
//! right best paths, that it must have in the end. The speakers take turns within a round, so that whatever else
//! the machine does meets all of them.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod generator;
mod lines;
mod machine;
mod programs;
mod report;
mod updates;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::lines::{Letter, Line};
use crate::machine::Machine;
use crate::programs::{Running, Speaker};
use crate::report::{Report, Round};
use crate::world::World;

/// Measures our speaker beside others.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "a,b,c,d,e")]
    lines: Vec<Letter>,
    /// Who is measured; by default all that are installed.
    #[arg(long, value_delimiter = ',', default_value = "manx,bird,frr,gobgp,openbgpd")]
    speakers: Vec<String>,
    /// Another build of manx-bgpd to measure beside: NAME=PATH.
    #[arg(long, value_parser = build)]
    with: Vec<(String, PathBuf)>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The part of the full size: 0.1 is a tenth of the prefixes (A, B, D) or of the peers (C, E, F, G, I) or nodes (H).
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Who takes longer than so many seconds is measured once only.
    #[arg(long, default_value_t = 20)]
    patience: u64,
    /// Who takes longer than so many seconds is not waited for.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// How the results are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn build(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("NAME=PATH is expected")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

impl Arguments {
    /// Whom to measure, of those who are here.
    fn speakers(&self) -> Result<Vec<Speaker>, String> {
        let named = self.speakers.iter().map(|name| Speaker::named(name));
        let speakers = named.collect::<Result<Vec<_>, _>>()?.into_iter();
        let builds = self
            .with
            .iter()
            .map(|(name, path)| Speaker::build(name, path.clone()));
        let (here, missing): (Vec<_>, Vec<_>) = speakers.chain(builds).partition(Speaker::is_installed);
        for speaker in missing {
            eprintln!("{} is not installed, and is left out", speaker.name);
        }
        Ok(here)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let speakers = match arguments.speakers() {
        Ok(speakers) => speakers,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    for letter in &arguments.lines {
        measure(&letter.line(arguments.scale), &speakers, &arguments, &mut report);
    }
    println!(
        "{}",
        match arguments.output {
            Output::Table => report.table(),
            Output::Json => report.json(),
        }
    );
    ExitCode::SUCCESS
}

/// All rounds of a line.
fn measure(line: &Line, speakers: &[Speaker], arguments: &Arguments, report: &mut Report) {
    let mut left: Vec<&Speaker> = speakers.iter().filter(|it| line.is_for(it)).collect();
    for round in 0..arguments.rounds {
        eprintln!("{} round {}", line.letter, round + 1);
        let bare = World::new(line).run(|| generator::bare(line));
        report.add_bare(line, bare);
        left.retain(|speaker| {
            let outcome = run(line, speaker, Duration::from_secs(arguments.limit));
            let (slow, failed) = match &outcome {
                Ok(round) => (round.total() > Duration::from_secs(arguments.patience), false),
                Err(error) => {
                    eprintln!("{}: {error}", speaker.name);
                    (false, true)
                }
            };
            report.add(line, speaker, outcome);
            !slow && !failed
        });
    }
}

/// One round of one speaker.
fn run(line: &Line, speaker: &Speaker, limit: Duration) -> Result<Round, String> {
    let world = World::new(line);
    let running = Running::start(speaker, line, &world);
    let machine = Machine::look(&running);
    let mut round = world.run(|| generator::round(line, &running, limit))?;
    machine.since(&running, &mut round);
    Ok(round)
}
