//! The document's text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use manx_tests::tree::{root, rust_files};

use crate::citations::{Citation, Cited};
use crate::data::Rfc;

/// RFC and section, without a keyword → the source files that cite it.
pub(crate) type Code = BTreeMap<(u32, String), BTreeSet<String>>;

/// Links to tests, in order.
type Tests = BTreeSet<String>;

/// A row: a clause, or what tests cite beside the listed clauses.
struct Row {
    section: String,
    level: &'static str,
    demands: String,
    declined: Option<String>,
    tests: Tests,
}

/// Where the sources that ship cite RFCs.
pub(crate) fn code() -> Code {
    let mut code = Code::new();
    for path in rust_files() {
        let short = path.strip_prefix(root()).expect("in the tree");
        let ships = short.components().any(|part| part.as_os_str() == "src") && !short.starts_with("tests");
        if !ships {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for section in sections(&text.replace("\n//!", " ").replace("///", " ")) {
            code.entry(section)
                .or_default()
                .insert(short.display().to_string());
        }
    }
    code
}

/// Every `RFC N §S`, also of several sections: `RFC 7606 §7.5, §7.9 and §7.10`.
fn sections(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for citation in text.split("RFC ").skip(1) {
        let number: String = citation.chars().take_while(char::is_ascii_digit).collect();
        let Ok(rfc) = number.parse() else { continue };
        let mut rest = &citation[number.len()..];
        while let Some(section) = rest
            .trim_start_matches([',', ' '])
            .trim_start_matches("and ")
            .strip_prefix('§')
        {
            let end = section
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(section.len());
            found.push((rfc, section[..end].trim_end_matches('.').to_owned()));
            rest = &section[end..];
        }
    }
    found
}

/// The whole document.
pub(crate) fn render(
    rfcs: &[Rfc],
    cases: &BTreeMap<u32, String>,
    citations: &[Citation],
    code: &Code,
) -> String {
    let rfcs = tables(rfcs, citations);
    let proved = case_tests(citations);
    let mut out = String::from(HEAD);
    summary(&mut out, &rfcs);
    let open = cases.keys().filter(|number| !proved.contains_key(number));
    let done = cases.len() - open.clone().count();
    writeln!(out, "| Nasty cases | {done} | {} | 0 |", cases.len() - done).expect("a string");
    gaps(&mut out, &rfcs, cases, &proved);
    for (title, (rfc, rows)) in &rfcs {
        writeln!(out, "\n## RFC {rfc}{title}\n").expect("a string");
        out.push_str("| § | Level | Demanded | Tests | Rule |\n|---|---|---|---|---|\n");
        for row in rows {
            let tests = row.declined.as_ref().map_or_else(
                || joined(&row.tests),
                |why| format!("*declined:* {why} {}", joined(&row.tests)),
            );
            let base = row.section.split(' ').next().unwrap_or_default();
            let rules = code.get(&(*rfc, base.to_owned())).into_iter().flatten();
            let rules: Tests = rules.map(|file| link(file, file)).collect();
            let Row {
                section,
                level,
                demands,
                ..
            } = row;
            let (tests, rules) = (tests.trim_end(), joined(&rules));
            writeln!(out, "| {section} | {level} | {demands} | {tests} | {rules} |").expect("a string");
        }
    }
    out.push_str("\n## Nasty cases\n\nWhat brought other speakers down, or made them lie.\n\n");
    out.push_str("| # | What once happened, and must not here | Tests |\n|---|---|---|\n");
    for (number, told) in cases {
        let tests = proved.get(number).map(joined).unwrap_or_default();
        writeln!(out, "| {number} | {told} | {tests} |").expect("a string");
    }
    out
}

const HEAD: &str = "\
# What of BGP is proved, and by which test

Made from the tests by `MANX_UPDATE=1 cargo test -p manx-tests --test conformance`; a test fails when this file is
stale. A clause with a test behind it holds on every commit; one without stands under [Gaps](#gaps). *Rule* names
the source files that cite the section. Rows without a level are what tests prove beyond the list.

| | Proved | Gaps | Declined |
|---|---|---|---|
";

/// RFC by RFC, in order: the rest of its heading, its number and its rows.
fn tables(rfcs: &[Rfc], citations: &[Citation]) -> Vec<(String, (u32, Vec<Row>))> {
    let mut tables: BTreeMap<u32, (String, Vec<Row>)> = BTreeMap::new();
    for rfc in rfcs {
        let rows = rfc.clauses.iter().map(|clause| Row {
            section: clause.section.clone(),
            level: clause.level.word(),
            demands: clause.demands.clone(),
            declined: clause.declined.clone(),
            tests: Tests::new(),
        });
        tables.insert(rfc.rfc, (format!(": {}", rfc.title), rows.collect()));
    }
    for citation in citations {
        let Cited::Clause { rfc, section, text } = &citation.cited else {
            continue;
        };
        let (_, rows) = tables.entry(*rfc).or_default();
        let place = rows
            .iter()
            .position(|row| row.section == *section && (!row.level.is_empty() || row.demands == *text));
        let place = place.unwrap_or_else(|| {
            rows.push(Row {
                section: section.clone(),
                level: "",
                demands: text.clone(),
                declined: None,
                tests: Tests::new(),
            });
            rows.len() - 1
        });
        rows[place].tests.insert(link(&citation.test, &citation.file));
    }
    let sorted = tables.into_iter().map(|(rfc, (title, mut rows))| {
        rows.sort_by_key(|row| natural(&row.section));
        (title, (rfc, rows))
    });
    sorted.collect()
}

/// The numbers of a section first, then its words: 9.1 before 10.
fn natural(section: &str) -> (Vec<u32>, String) {
    let numbers = section.split(' ').next().unwrap_or_default().split('.');
    (
        numbers.map_while(|number| number.parse().ok()).collect(),
        section.to_owned(),
    )
}

fn case_tests(citations: &[Citation]) -> BTreeMap<u32, Tests> {
    let mut proved: BTreeMap<u32, Tests> = BTreeMap::new();
    for citation in citations {
        if let Cited::Case { number } = citation.cited {
            proved
                .entry(number)
                .or_default()
                .insert(link(&citation.test, &citation.file));
        }
    }
    proved
}

fn summary(out: &mut String, rfcs: &[(String, (u32, Vec<Row>))]) {
    for (title, (rfc, rows)) in rfcs {
        let proved = rows.iter().filter(|row| !row.tests.is_empty()).count();
        let gaps = rows.iter().filter(|row| is_gap(row)).count();
        let declined = rows.iter().filter(|row| row.declined.is_some()).count();
        writeln!(out, "| RFC {rfc}{title} | {proved} | {gaps} | {declined} |").expect("a string");
    }
}

fn is_gap(row: &Row) -> bool {
    row.tests.is_empty() && row.declined.is_none()
}

fn gaps(
    out: &mut String,
    rfcs: &[(String, (u32, Vec<Row>))],
    cases: &BTreeMap<u32, String>,
    proved: &BTreeMap<u32, Tests>,
) {
    out.push_str("\n## Gaps\n\n");
    let before = out.len();
    for (_, (rfc, rows)) in rfcs {
        for row in rows.iter().filter(|row| is_gap(row)) {
            writeln!(
                out,
                "- RFC {rfc} §{} ({}): {}",
                row.section, row.level, row.demands
            )
            .expect("a string");
        }
    }
    for (number, told) in cases.iter().filter(|(number, _)| !proved.contains_key(number)) {
        writeln!(out, "- nasty case {number}: {told}").expect("a string");
    }
    if out.len() == before {
        out.push_str("None.\n");
    }
}

fn link(name: &str, file: &str) -> String {
    format!("[`{name}`](../{file})")
}

fn joined(links: &Tests) -> String {
    links.iter().cloned().collect::<Vec<_>>().join(", ")
}
