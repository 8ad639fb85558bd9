//! What was measured, and how it reads.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use manx_tests::sample::Sample;
use serde_json::{Value, json};

use crate::lines::{Letter, Line};
use crate::machine;
use crate::programs::{Running, Speaker};

/// One round of one speaker.
#[derive(Debug)]
pub(crate) struct Round {
    phases: Vec<Phase>,
    /// What the speaker had run for when the phase began.
    before: Duration,
    /// In KiB.
    memory: u64,
    /// What reached the peers.
    pub(crate) announcements: u64,
    /// What the speaker was told and what it told, in octets.
    pub(crate) octets: [u64; 2],
    /// The part of the machine that others had.
    pub(crate) others: f64,
}

#[derive(Debug)]
struct Phase {
    name: &'static str,
    took: Duration,
    processor: Option<Duration>,
}

impl Round {
    /// Before the first phase.
    pub(crate) fn begin(running: &Running) -> Self {
        Self {
            phases: Vec::new(),
            before: machine::running_time(running),
            memory: 0,
            announcements: 0,
            octets: [0; 2],
            others: 0.0,
        }
    }

    /// At the end of a phase.
    pub(crate) fn phase(&mut self, name: &'static str, took: Duration, running: &Running) {
        let now = machine::running_time(running);
        let processor = Some(now.saturating_sub(std::mem::replace(&mut self.before, now)));
        self.memory = machine::peak_memory(running);
        self.phases.push(Phase {
            name,
            took,
            processor,
        });
    }

    /// What has been done since the last phase belongs to none.
    pub(crate) fn skip(&mut self, running: &Running) {
        self.before = machine::running_time(running);
    }

    /// How long the sessions took, before the first phase.
    pub(crate) fn established(&mut self, name: &'static str, took: Duration) {
        let phase = Phase {
            name,
            took,
            processor: None,
        };
        self.phases.insert(0, phase);
    }

    /// All phases together.
    pub(crate) fn total(&self) -> Duration {
        self.phases.iter().map(|phase| phase.took).sum()
    }
}

/// All rounds of one speaker on one line.
#[derive(Debug)]
struct Row {
    letter: Letter,
    speaker: String,
    rounds: Vec<Round>,
    failure: Option<String>,
}

impl Row {
    /// The names of the phases.
    fn phases(&self) -> Vec<&'static str> {
        let first = self.rounds.first().map(|round| &round.phases);
        first.into_iter().flatten().map(|phase| phase.name).collect()
    }

    fn sample(&self, of: impl Fn(&Round) -> Option<Duration>) -> Sample {
        let mut sample = Sample::default();
        self.rounds.iter().filter_map(of).for_each(|it| sample.push(it));
        sample
    }

    fn time(&self, phase: usize) -> Sample {
        self.sample(|round| round.phases.get(phase).map(|it| it.took))
    }

    fn processor(&self, phase: usize) -> Sample {
        self.sample(|round| round.phases.get(phase)?.processor)
    }

    /// The median of the peaks, in KiB.
    fn memory(&self) -> u64 {
        let mut peaks: Vec<u64> = self.rounds.iter().map(|round| round.memory).collect();
        peaks.sort_unstable();
        peaks.get(peaks.len() / 2).copied().unwrap_or_default()
    }

    /// Read and sent, in the last round.
    fn octets(&self) -> [u64; 2] {
        self.rounds.last().map(|round| round.octets).unwrap_or_default()
    }

    fn others(&self) -> f64 {
        self.rounds.iter().map(|round| round.others).fold(0.0, f64::max)
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// How long the generator takes by itself, by line, with what it moves meanwhile.
    bare: Vec<(Letter, u64, Sample)>,
}

/// A part of a whole; nothing of nothing.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn megabytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap_or(u32::MAX)) * 1024.0 / 1e6
}

impl Report {
    pub(crate) fn add(&mut self, line: &Line, speaker: &Speaker, outcome: Result<Round, String>) {
        let is_it = |row: &Row| row.letter == line.letter && row.speaker == speaker.name;
        let place = self.rows.iter().position(is_it).unwrap_or_else(|| {
            self.rows.push(Row {
                letter: line.letter,
                speaker: speaker.name.clone(),
                rounds: Vec::new(),
                failure: None,
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        match outcome {
            Ok(round) => row.rounds.push(round),
            Err(failure) => row.failure = Some(failure),
        }
    }

    pub(crate) fn add_bare(&mut self, line: &Line, took: Duration) {
        match self.bare.iter_mut().find(|(letter, ..)| *letter == line.letter) {
            Some((.., sample)) => sample.push(took),
            None => {
                let mut sample = Sample::default();
                sample.push(took);
                self.bare.push((line.letter, line.moved(), sample));
            }
        }
    }

    /// Our row of a line.
    fn ours(&self, letter: Letter) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.letter == letter && row.speaker == "manx" && !row.rounds.is_empty())
    }

    /// Ours of theirs: time, processor, memory.
    fn ratios(&self, row: &Row, phase: usize) -> [Option<f64>; 3] {
        let Some(ours) = self.ours(row.letter) else {
            return [None; 3];
        };
        let of =
            |ours: Sample, theirs: Sample| ratio(ours.median().as_secs_f64(), theirs.median().as_secs_f64());
        [
            of(ours.time(phase), row.time(phase)),
            of(ours.processor(phase), row.processor(phase)),
            ratio(megabytes(ours.memory()), megabytes(row.memory())),
        ]
    }

    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN).set_header([
            "line",
            "speaker",
            "seconds (from, to)",
            "CPU s",
            "MB",
            "rounds",
            "ours of its time",
            "CPU",
            "memory",
            "others' part of the machine",
            "MB read, sent",
        ]);
        for row in &self.rows {
            for (place, name) in row.phases().into_iter().enumerate() {
                table.add_row(self.cells(row, place, name));
            }
            if let Some(failure) = &row.failure {
                table.add_row([row.letter.to_string(), row.speaker.clone(), failure.clone()]);
            }
        }
        let mut text = table.to_string();
        for (letter, announced, sample) in &self.bare {
            let took = sample.median();
            let rate = *announced as f64 / took.as_secs_f64() / 1e6;
            write!(
                text,
                "\n{letter}: the generator by itself sends and counts {announced} announcements in {:.3} s, {rate:.1} million a second",
                took.as_secs_f64()
            )
            .expect("a string takes all");
        }
        text
    }

    fn cells(&self, row: &Row, phase: usize, name: &str) -> Vec<String> {
        let time = row.time(phase);
        let seconds = |took: Duration| format!("{:.3}", took.as_secs_f64());
        let shown = |ratio: Option<f64>| ratio.map_or_else(String::new, |it| format!("{it:.2}"));
        let processor = row.processor(phase);
        let [times, processors, memory] = self.ratios(row, phase).map(shown);
        vec![
            format!("{} {name}", row.letter),
            row.speaker.clone(),
            format!(
                "{} ({}, {})",
                seconds(time.median()),
                seconds(time.percentile(0)),
                seconds(time.percentile(100))
            ),
            format!("{:.2}", processor.median().as_secs_f64()),
            format!("{:.1}", megabytes(row.memory())),
            row.rounds.len().to_string(),
            times,
            processors,
            memory,
            format!("{:.0} %", row.others() * 100.0),
            row.octets()
                .map(|it| format!("{:.1}", it as f64 / 1e6))
                .join(", "),
        ]
    }

    pub(crate) fn json(&self) -> String {
        let phase = |row: &Row, place: usize, name: &str| {
            let time = row.time(place);
            let [times, processors, memory] = self.ratios(row, place);
            json!({
                "line": row.letter.to_string(),
                "phase": name,
                "speaker": row.speaker,
                "rounds": row.rounds.len(),
                "seconds": time.median().as_secs_f64(),
                "leastSeconds": time.percentile(0).as_secs_f64(),
                "mostSeconds": time.percentile(100).as_secs_f64(),
                "processorSeconds": row.processor(place).median().as_secs_f64(),
                "peakKibibytes": row.memory(),
                "announcements": row.rounds.iter().map(|round| round.announcements).max(),
                "octetsReadAndSent": row.octets(),
                "othersPart": row.others(),
                "oursOfIts": {"seconds": times, "processorSeconds": processors, "memory": memory},
            })
        };
        let measured = self.rows.iter().flat_map(|row| {
            let phases = row.phases().into_iter().enumerate();
            phases
                .map(|(place, name)| phase(row, place, name))
                .collect::<Vec<Value>>()
        });
        let failed = self.rows.iter().filter_map(|row| {
            let failure = row.failure.as_ref()?;
            Some(json!({"line": row.letter.to_string(), "speaker": row.speaker, "failure": failure}))
        });
        let bare = self.bare.iter().map(|(letter, announced, sample)| {
            json!({
                "line": letter.to_string(),
                "announcements": announced,
                "seconds": sample.median().as_secs_f64(),
            })
        });
        let all = json!({
            "measured": measured.collect::<Vec<Value>>(),
            "failed": failed.collect::<Vec<Value>>(),
            "generator": bare.collect::<Vec<Value>>(),
        });
        format!("{all:#}")
    }
}
