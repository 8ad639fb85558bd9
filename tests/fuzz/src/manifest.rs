//! The loader of manifests: it never panics, and what it understood it can write and read again.

use manx_api::manifest::{load, to_json, to_yaml};

/// A file of resources.
pub fn manifest(data: &[u8]) {
    let Ok(resources) = load("fuzz.yaml", &String::from_utf8_lossy(data)) else {
        return;
    };
    for resource in resources {
        for text in [to_yaml(&resource).ok(), to_json(&resource).ok()] {
            let text = text.expect("what was read can be written");
            assert_eq!(load("again.yaml", &text), Ok(vec![resource.clone()]), "{text}");
        }
    }
}
