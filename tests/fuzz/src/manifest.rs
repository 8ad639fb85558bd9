//! The loader of manifests: it never panics, every refusal can be told, and what it accepts it writes back.

use manx_api::manifest::{load, to_json, to_yaml};

/// A manifest's text.
pub fn yaml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match load("fuzz.yaml", text) {
        Ok(resources) => {
            for resource in resources {
                let yaml = to_yaml(&resource).expect("any resource can be written");
                let json = to_json(&resource).expect("any resource can be written");
                let wanted = Ok(vec![resource]);
                assert_eq!(load("again.yaml", &yaml), wanted, "{yaml}");
                assert_eq!(load("again.json", &json), wanted, "{json}");
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            assert!(errors.iter().all(|error| !error.to_string().is_empty()));
        }
    }
}
