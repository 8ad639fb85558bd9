//! What the fuzzer of whole speakers found worth keeping.

use std::fs;
use std::path::Path;

use crate::fuzz;

#[test]
fn the_fuzz_corpus_of_whole_speakers_finds_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/speakers");
    let mut inputs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(inputs.len() > 20, "{} inputs only", inputs.len());
    for input in inputs {
        let data = fs::read(&input).unwrap();
        let found = std::panic::catch_unwind(|| fuzz::speakers(&data));
        assert!(found.is_ok(), "{}", input.display());
    }
}
