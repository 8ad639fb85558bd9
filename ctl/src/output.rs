//! Lists as tables for people, and as YAML, JSON and names for scripts.

use std::fmt;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use tabwriter::TabWriter;

use crate::error::Error;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The columns that people look at first.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// Names, one a line.
    Name,
}

/// A cell: text, and how good it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text in green where `good`, in red otherwise.
    pub(crate) fn verdict(text: impl fmt::Display, good: bool) -> Self {
        let color = if good { AnsiColor::Green } else { AnsiColor::Red };
        Self { text: text.to_string(), style: color.on_default() }
    }

    /// Text, or a dash where there is none.
    pub(crate) fn or_dash(text: Option<impl fmt::Display>) -> Self {
        Self::from(text.map_or_else(|| "-".to_owned(), |text| text.to_string()))
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), style: Style::new() }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.style;
        // A tab or a line end inside a cell would shift what follows.
        write!(f, "{style}{}{style:#}", self.text.replace(['\t', '\n'], " "))
    }
}

/// A row of a table.
pub(crate) trait Row {
    /// The columns' heads; the first `narrow` of them in [`Format::Table`], all in [`Format::Wide`].
    fn heads() -> Heads;

    /// The cells under the heads.
    fn cells(&self) -> Vec<Cell>;

    /// What [`Format::Name`] prints.
    fn name(&self) -> String;
}

/// The heads of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Those that always show.
    pub(crate) narrow: &'static [&'static str],
    /// Those that only the wide table shows.
    pub(crate) wide: &'static [&'static str],
}

/// Prints a list of rows that are themselves what scripts read.
pub(crate) fn list<T: Row + Serialize>(rows: &[T], format: Format) -> Result<(), Error> {
    match format {
        Format::Table | Format::Wide => table(T::heads(), rows.iter().map(Row::cells), format),
        Format::Yaml => yaml(&rows),
        Format::Json => json(&rows),
        Format::Name => rows.iter().try_for_each(|row| line(&row.name())),
    }
}

/// Prints a table; without rows, says so.
pub(crate) fn table(heads: Heads, rows: impl IntoIterator<Item = Vec<Cell>>, format: Format) -> Result<(), Error> {
    let text = layout(heads, rows, format == Format::Wide).map_err(written)?;
    line(text.trim_end())
}

fn layout(heads: Heads, rows: impl IntoIterator<Item = Vec<Cell>>, wide: bool) -> io::Result<String> {
    let mut writer = TabWriter::new(Vec::new()).padding(3);
    let columns = heads.narrow.len() + if wide { heads.wide.len() } else { 0 };
    let heads: Vec<_> = heads.narrow.iter().chain(heads.wide).take(columns).copied().collect();
    writeln!(writer, "{}", heads.join("\t"))?;
    let mut any = false;
    for row in rows {
        any = true;
        let cells: Vec<String> = row.iter().take(columns).map(ToString::to_string).collect();
        writeln!(writer, "{}", cells.join("\t"))?;
    }
    if !any {
        return Ok("No resources found.".to_owned());
    }
    let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

/// Prints a value as YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_saphyr::to_string(value).map_err(|error| written(io::Error::other(error.to_string())))?;
    line(text.trim_end())
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| written(error.into()))?;
    line(&text)
}

/// A list as `kubectl` and `calicoctl` write one; what `apply` takes back.
pub(crate) fn as_list(items: &[Value]) -> Value {
    json!({ "apiVersion": manx_api::API_VERSION, "kind": "List", "items": items })
}

/// Prints a line. Whoever stops reading (`| head`) has what it wanted.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(written),
    }
}

fn written(source: io::Error) -> Error {
    Error::io("cannot write the output")(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads { narrow: &["NAME", "STATE"], wide: &["WHY"] };

    fn row(name: &str, good: bool) -> Vec<Cell> {
        vec![name.into(), Cell::verdict(if good { "up" } else { "down" }, good), "because\tso".into()]
    }

    #[test]
    fn columns_stand_under_their_heads_whatever_their_colour() {
        let text = layout(HEADS, [row("a", true), row("longer", false)], false).unwrap();
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME     STATE\na        up\nlonger   down");
        assert!(text.contains("\u{1b}[31mdown"));
    }

    #[test]
    fn a_cell_keeps_to_its_cell() {
        let text = layout(HEADS, [row("a", true)], true).unwrap();
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME   STATE   WHY\na      up      because so");
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(layout(HEADS, [], false).unwrap(), "No resources found.");
    }
}
