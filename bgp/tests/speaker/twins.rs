//! What a wrong UPDATE does is what a withdrawal does: the fuzzer's inputs, and the table of wire cases.

/// The body of the fuzz target.
#[path = "../../../tests/fuzz/src/twins.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod fuzz;

use std::fs;
use std::path::Path;

/// RFC 7606 §2: after an UPDATE that was wrong a speaker holds and tells what it would after the withdrawal of all that it
/// names; after any other, what it would after the same in its own words.
#[test]
fn the_fuzz_corpus_of_twins_finds_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
    let mut wrong = Vec::new();
    for name in ["twins", "update"] {
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let input = entry.unwrap().path();
            let data = fs::read(&input).unwrap();
            if std::panic::catch_unwind(|| fuzz::twins(&data)).is_err() {
                wrong.push(input);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
