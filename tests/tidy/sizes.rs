//! Files are read in a sitting and functions fit on a screen.

use std::path::Path;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::workspace::{root, rust_files};

/// Lines of a file, its tests aside.
const FILE: usize = 800;
/// Lines of a function, its attributes and documentation aside.
const FUNCTION: usize = 60;
/// Lines of a function that is one transition table.
const TABLE: usize = 120;
/// Functions that are one table: file and function, each with its reason.
const TABLES: [(&str, &str); 1] = [
    // RFC 4271 §8.2.2: every state against every event.
    ("bgp/src/session/fsm.rs", "on"),
];

/// Collects the functions of a file that are longer than they may be.
struct Long<'a> {
    file: &'a Path,
    found: Vec<String>,
}

impl Long<'_> {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        let name = signature.ident.to_string();
        let is_table = TABLES
            .iter()
            .any(|(file, function)| self.file == Path::new(file) && name == *function);
        if lines > if is_table { TABLE } else { FUNCTION } {
            self.found
                .push(format!("{}: {name}: {lines} lines", self.file.display()));
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|argument| argument == "test")
    })
}

impl<'ast> Visit<'ast> for Long<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

/// Lines of a file before its test module.
fn lines_without_tests(file: &syn::File, text: &str) -> usize {
    let tests = file.items.iter().find_map(|item| {
        let syn::Item::Mod(module) = item else {
            return None;
        };
        (is_test(&module.attrs) && module.content.is_some()).then(|| module.span())
    });
    tests.map_or_else(|| text.lines().count(), |span| span.start().line)
}

#[test]
fn files_and_functions_keep_their_sizes() {
    let mut found = Vec::new();
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let short = path.strip_prefix(root()).expect("in the tree");
        let lines = lines_without_tests(&file, &text);
        if lines > FILE {
            found.push(format!("{}: {lines} lines", short.display()));
        }
        let mut long = Long {
            file: short,
            found: Vec::new(),
        };
        long.visit_file(&file);
        found.append(&mut long.found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_is() {
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let first = text.lines().find(|line| !line.starts_with("#!"));
        assert!(
            first.is_some_and(|line| line.starts_with("//!")),
            "{} does not start with //!",
            path.display()
        );
    }
}
