//! Lists, printed as a table, as YAML, as JSON or as names.

use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{CtlError, Result};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// A table with more columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// One name a line.
    Name,
}

/// Something that lists have one line for.
pub(crate) trait Row: Serialize {
    /// The columns of a table, and how many of them a narrow one has.
    const COLUMNS: (&'static [&'static str], usize);

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;

    /// What to call it where only names are wanted.
    fn name(&self) -> String;

    /// Whether all is well with it; what is not stands out.
    fn is_well(&self) -> bool {
        true
    }
}

/// Prints a list.
pub(crate) fn print<T: Row>(items: &[T], format: Format) -> Result<()> {
    emit(&text(items, format)?)
}

/// A list as text, as [`print`] prints it.
pub(crate) fn text<T: Row>(items: &[T], format: Format) -> Result<String> {
    let (columns, narrow) = T::COLUMNS;
    let lines = || items.iter().map(|item| (item.cells(), item.is_well()));
    match format {
        Format::Table => Ok(table(&columns[..narrow], lines())),
        Format::Wide => Ok(table(columns, lines())),
        Format::Name => Ok(items.iter().map(|item| item.name() + "\n").collect()),
        Format::Yaml => yaml(&items),
        Format::Json => json(&items),
    }
}

/// A value as indented JSON, with a newline.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(CtlError::json)
}

/// A value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String> {
    serde_saphyr::to_string(value).map_err(|error| CtlError::Output(io::Error::other(error.to_string())))
}

/// A table without borders; lines that are not well are red, on a terminal.
pub(crate) fn table(columns: &[&str], lines: impl Iterator<Item = (Vec<String>, bool)>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut styles = vec![Style::new().bold()];
    for (mut cells, well) in lines {
        cells.truncate(columns.len());
        // What is empty reads better with something in it, and `awk` counts it.
        cells
            .iter_mut()
            .filter(|cell| cell.is_empty())
            .for_each(|cell| cell.push('-'));
        table.add_row(cells);
        styles.push(if well {
            Style::new()
        } else {
            AnsiColor::Red.on_default()
        });
    }
    let mut text = String::new();
    for (line, style) in table.lines().zip(styles) {
        let line = line.trim_end();
        if style.is_plain() {
            text.push_str(line);
        } else {
            text.push_str(&format!("{style}{line}{style:#}"));
        }
        text.push('\n');
    }
    text
}

/// A line; red on a terminal, unless all is well.
pub(crate) fn marked(line: &str, well: bool) -> String {
    if well {
        return line.to_owned();
    }
    let style = AnsiColor::Red.on_default();
    format!("{style}{line}{style:#}")
}

/// Writes to standard output; a reader that has seen enough is no error.
pub(crate) fn emit(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CtlError::Output),
    }
}

/// A duration as people say it: `59s`, `3m5s`, `2h10m`, `4d3h`.
#[must_use]
pub(crate) fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds}s"),
        MINUTE..HOUR => format!("{}m{}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h{}m", seconds / HOUR, seconds % HOUR / MINUTE),
        DAY.. => format!("{}d{}h", seconds / DAY, seconds % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Cat {
        name: String,
        tail: bool,
    }

    impl Row for Cat {
        const COLUMNS: (&'static [&'static str], usize) = (&["NAME", "TAIL"], 1);

        fn cells(&self) -> Vec<String> {
            vec![
                self.name.clone(),
                if self.tail { "long".into() } else { String::new() },
            ]
        }

        fn name(&self) -> String {
            format!("cat/{}", self.name)
        }

        fn is_well(&self) -> bool {
            !self.tail
        }
    }

    fn cats() -> Vec<Cat> {
        vec![
            Cat {
                name: "felix the first".into(),
                tail: true,
            },
            Cat {
                name: "stubbin".into(),
                tail: false,
            },
        ]
    }

    fn plain(format: Format) -> String {
        anstream::adapter::strip_str(&text(&cats(), format).unwrap()).to_string()
    }

    #[test]
    fn every_format_shows_the_same_list() {
        assert_eq!(plain(Format::Table), "NAME\nfelix the first\nstubbin\n");
        assert_eq!(
            plain(Format::Wide),
            "NAME             TAIL\nfelix the first  long\nstubbin          -\n"
        );
        assert_eq!(plain(Format::Name), "cat/felix the first\ncat/stubbin\n");
        assert_eq!(
            plain(Format::Yaml),
            "- name: felix the first\n  tail: true\n- name: stubbin\n  tail: false\n"
        );
        let json: serde_json::Value = serde_json::from_str(&plain(Format::Json)).unwrap();
        assert_eq!(json[1]["name"], "stubbin");
    }

    #[test]
    fn an_empty_list_is_a_header_or_an_empty_list() {
        let none: [Cat; 0] = [];
        let plain = |format| anstream::adapter::strip_str(&text(&none, format).unwrap()).to_string();
        assert_eq!(plain(Format::Table), "NAME\n");
        assert_eq!(plain(Format::Json), "[]\n");
        assert_eq!(plain(Format::Name), "");
    }

    #[test]
    fn what_is_not_well_is_red() {
        let text = text(&cats(), Format::Table).unwrap();
        assert!(text.contains("\u{1b}[31mfelix the first\u{1b}[0m"), "{text:?}");
        assert!(text.contains("\nstubbin\n"), "{text:?}");
    }

    #[test]
    fn durations_are_short() {
        let texts = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].map(duration);
        assert_eq!(texts, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d1h"]);
    }
}
