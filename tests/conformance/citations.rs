//! Citations in the doc comments of tests, found line by line: `proptest!` hides its tests from parsers.
//! The tests in `tests/interop` have a harness of their own: what its modules share is what it runs.

use std::path::Path;

/// A test that cites something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Citation {
    /// What.
    pub(crate) cited: Cited,
    /// The test's name.
    pub(crate) test: String,
    /// Its file, from the root.
    pub(crate) file: String,
}

/// What a test cites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cited {
    /// `RFC 4271 §6.2 (version): text`.
    Clause { rfc: u32, section: String, text: String },
    /// `nasty case 17`.
    Case { number: u32 },
    /// It begins like one and is none.
    Unclear { line: String },
}

/// The citations of a file's tests.
pub(crate) fn in_tests(file: &Path, text: &str) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut docs: Vec<&str> = Vec::new();
    let mut is_test = false;
    let own_harness = file.starts_with("tests/interop");
    for line in text.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(test) = function(line) {
            if is_test || (own_harness && line.starts_with("pub(crate) ")) {
                found.extend(cited(&docs).into_iter().map(|cited| Citation {
                    cited,
                    test: test.to_owned(),
                    file: file.display().to_string(),
                }));
            }
            docs.clear();
            is_test = false;
        } else if line.is_empty() || line == "}" {
            docs.clear();
        }
    }
    found
}

/// The name of the function that starts here.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = line.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// What a doc comment cites: a citation ends where the next begins, or at an empty line.
fn cited(docs: &[&str]) -> Vec<Cited> {
    let mut citations: Vec<String> = Vec::new();
    let mut open = false;
    for line in docs {
        if begins(line) {
            citations.push((*line).to_owned());
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if let Some(last) = citations.last_mut().filter(|_| open) {
            last.push(' ');
            last.push_str(line);
        }
    }
    citations.iter().flat_map(|citation| parse(citation)).collect()
}

fn begins(line: &str) -> bool {
    let rfc = line.strip_prefix("RFC ");
    rfc.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        || line.to_lowercase().starts_with("nasty case")
}

fn parse(citation: &str) -> Vec<Cited> {
    let unclear = || {
        vec![Cited::Unclear {
            line: citation.to_owned(),
        }]
    };
    let parsed = if citation.starts_with("RFC ") {
        clauses(citation)
    } else {
        cases(citation)
    };
    parsed.unwrap_or_else(unclear)
}

/// `RFC 7606 §7.5, §7.9: text`.
fn clauses(citation: &str) -> Option<Vec<Cited>> {
    let (rfc, rest) = citation.strip_prefix("RFC ")?.split_once(' ')?;
    let rfc = rfc.parse().ok()?;
    let (sections, text) = rest.split_once(':')?;
    let each = sections.split(", ").map(|section| {
        Some(Cited::Clause {
            rfc,
            section: section.strip_prefix('§')?.to_owned(),
            text: text.trim().to_owned(),
        })
    });
    each.collect()
}

/// `nasty cases 4, 16 and 39: text`; the text is optional.
fn cases(citation: &str) -> Option<Vec<Cited>> {
    let head = citation.split([':', '.', '(', ';']).next()?;
    let numbers = head
        .split([' ', ','])
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let numbers = numbers.map(|word| word.parse().ok().map(|number| Cited::Case { number }));
    let numbers: Vec<_> = numbers.collect::<Option<_>>()?;
    (!numbers.is_empty()).then_some(numbers)
}

#[test]
fn citations_are_found_above_tests_and_nowhere_else() {
    let text = "
/// RFC 4271 §6.5: not above a test.
fn helper() {}

    /// Says more.
    ///
    /// RFC 7606 §7.5, §7.9 (internal): one demand
    /// on two lines.
    /// nasty cases 4, 16 and 39: with words
    #[test]
    fn a_test(x in any()) {
    }

/// RFC 4271: no section.
#[tokio::test(flavor = \"current_thread\")]
async fn another() {
";
    let clause = |section: &str| Cited::Clause {
        rfc: 7606,
        section: section.to_owned(),
        text: "one demand on two lines.".to_owned(),
    };
    let found: Vec<_> = in_tests(Path::new("a.rs"), text)
        .into_iter()
        .map(|citation| (citation.test, citation.cited))
        .collect();
    let case = |number| ("a_test".to_owned(), Cited::Case { number });
    let line = "RFC 4271: no section.".to_owned();
    assert_eq!(
        found,
        [
            ("a_test".to_owned(), clause("7.5")),
            ("a_test".to_owned(), clause("7.9 (internal)")),
            case(4),
            case(16),
            case(39),
            ("another".to_owned(), Cited::Unclear { line }),
        ]
    );
}
