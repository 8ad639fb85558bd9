//! `docs/bgp-conformance.md`: which test proves which clause, made from the tests themselves.
//!
//! A test's doc comment cites what it proves: `RFC 4271 §6.5: what is demanded.` or `nasty case 17`. What we
//! hold ourselves to stands in `clauses.yaml` and `cases.yaml` beside this file, so that gaps show.
//! `MANX_UPDATE=1 cargo test -p manx-tests --test conformance` rewrites the document.

mod citations;
mod data;
mod document;

use std::collections::BTreeMap;

use citations::{Citation, Cited};
use manx_tests::tree::{root, rust_files};

const DOCUMENT: &str = "docs/bgp-conformance.md";

/// Every citation in the tree's tests.
fn citations() -> Vec<Citation> {
    let read = |path: &std::path::PathBuf| {
        let short = path.strip_prefix(root()).expect("in the tree");
        let text = std::fs::read_to_string(path).expect("a source file");
        citations::in_tests(short, &text)
    };
    // What reads citations has examples of them.
    let own = root().join("tests/conformance");
    let files = rust_files().into_iter().filter(|path| !path.starts_with(&own));
    files.flat_map(|path| read(&path)).collect()
}

#[test]
fn the_document_says_what_the_tests_prove() {
    let text = document::render(&data::rfcs(), &data::cases(), &citations(), &document::code());
    let path = root().join(DOCUMENT);
    if std::env::var_os("MANX_UPDATE").is_some() {
        std::fs::write(&path, text).expect("the document is written");
        return;
    }
    let committed = std::fs::read_to_string(&path).expect("the document");
    assert!(
        committed == text,
        "{DOCUMENT} is not what the tests say: rewrite it with MANX_UPDATE=1"
    );
}

#[test]
fn every_citation_names_what_it_cites() {
    let known = data::cases();
    let wrong: Vec<String> = citations()
        .into_iter()
        .filter_map(|citation| match &citation.cited {
            Cited::Clause { .. } => None,
            Cited::Case { number } if known.contains_key(number) => None,
            Cited::Case { number } => Some(format!("{}: no case {number}", citation.test)),
            Cited::Unclear { line } => Some(format!("{}: {line:?}", citation.test)),
        })
        .collect();
    assert_eq!(
        wrong,
        Vec::<String>::new(),
        "the form is `/// RFC 4271 §6.5: what is demanded.` or `/// nasty case 17`"
    );
}

#[test]
fn each_clause_and_case_stands_once() {
    let mut seen = BTreeMap::new();
    for rfc in data::rfcs() {
        for clause in rfc.clauses {
            *seen.entry((rfc.rfc, clause.section)).or_insert(0) += 1;
        }
    }
    seen.retain(|_, times| *times > 1);
    assert_eq!(seen, BTreeMap::new());
    assert!(data::cases().keys().copied().eq(1..=69));
}
