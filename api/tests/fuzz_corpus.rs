//! The fuzz target `yaml`, over its corpus and over the bad manifests.

use std::fs;
use std::path::Path;

#[path = "../../tests/fuzz/src/manifest.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes it")]
mod manifest;

#[test]
fn the_fuzz_corpus_finds_nothing() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = 0;
    for folder in ["../tests/fuzz/corpus/yaml", "tests/data"] {
        for entry in fs::read_dir(here.join(folder)).unwrap() {
            manifest::yaml(&fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
    }
    assert!(seeds > 50, "{seeds} seeds only");
}
