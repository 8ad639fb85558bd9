//! Kubernetes' rules for names and labels, which are ours as well.

use std::collections::BTreeMap;

use crate::Problem;

/// A DNS-1123 label: 1 to 63 of `a-z 0-9 -`, alphanumeric at both ends.
fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS-1123 subdomain: at most 253 characters, dots between alphanumeric-ended parts of `a-z 0-9 -`.
fn is_dns_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        !part.starts_with('-')
            && !part.ends_with('-')
            && !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// The name part of a label's key, or a label's value: at most 63 of `A-Z a-z 0-9 - _ .`, alphanumeric at both ends.
fn is_qualified(text: &str) -> bool {
    let alphanumeric_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && alphanumeric_end(bytes.first())
        && alphanumeric_end(bytes.last())
}

/// Refuses what is no DNS-1123 subdomain.
pub(crate) fn subdomain(field: &str, name: &str, problems: &mut Vec<Problem>) {
    if !is_dns_subdomain(name) {
        problems.push(Problem::new(
            field,
            name,
            "is no name: use up to 253 lower-case letters, digits, '-' and '.', a letter or digit at each end",
        ));
    }
}

/// Refuses what is no DNS-1123 label.
pub(crate) fn namespace(field: &str, name: &str, problems: &mut Vec<Problem>) {
    if !is_dns_label(name) {
        problems.push(Problem::new(
            field,
            name,
            "is no namespace: use up to 63 lower-case letters, digits and '-', a letter or digit at each end",
        ));
    }
}

/// Refuses what is no DNS-1123 label, where one names something else than a namespace.
pub(crate) fn label(field: &str, name: &str, problems: &mut Vec<Problem>) {
    if !is_dns_label(name) {
        problems.push(Problem::new(
            field,
            name,
            "is no name: use up to 63 lower-case letters, digits and '-', a letter or digit at each end",
        ));
    }
}

/// Refuses labels that Kubernetes would refuse.
pub(crate) fn labels(labels: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for (key, value) in labels {
        label_key("metadata.labels", key, problems);
        label_value(&format!("metadata.labels[{key}]"), value, problems);
    }
}

/// Refuses a label's value that Kubernetes would refuse.
pub(crate) fn label_value(field: &str, value: &str, problems: &mut Vec<Problem>) {
    if !value.is_empty() && !is_qualified(value) {
        problems.push(Problem::new(
            field,
            value,
            "is no label value: use up to 63 letters, digits, '-', '_' and '.', a letter or digit at each end",
        ));
    }
}

/// Refuses a key of labels or annotations that is not `name` or `dns.prefix/name`.
pub(crate) fn label_key(field: &str, key: &str, problems: &mut Vec<Problem>) {
    let valid = match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
        None => is_qualified(key),
    };
    if !valid {
        problems.push(Problem::new(
            field,
            key,
            "is no label key: write 'name' or 'example.org/name', the name up to 63 letters, digits, '-', '_' and '.'",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dns_1123() {
        let long = "a".repeat(253);
        for name in ["a", "a-b", "a.b", "1", "node-1.rack.example", &long] {
            assert!(is_dns_subdomain(name), "{name}");
        }
        let too_long = "a".repeat(254);
        for name in [
            "", "A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a.-b", "ü", "a b", "a/b", &too_long,
        ] {
            assert!(!is_dns_subdomain(name), "{name}");
        }
        assert!(is_dns_label(&"a".repeat(63)));
        for name in ["", "a.b", "-a", "a-", &"a".repeat(64)] {
            assert!(!is_dns_label(name), "{name}");
        }
    }

    #[test]
    fn label_keys_have_an_optional_prefix() {
        for (key, valid) in [
            ("app", true),
            ("App_1.x", true),
            ("example.org/app", true),
            ("", false),
            ("/app", false),
            ("Example.org/app", false),
            ("a/b/c", false),
            ("-a", false),
            ("a ", false),
            (&"a".repeat(64), false),
        ] {
            let mut problems = Vec::new();
            label_key("metadata.labels", key, &mut problems);
            assert_eq!(problems.is_empty(), valid, "{key}");
        }
    }

    #[test]
    fn label_values_may_be_empty() {
        for (value, valid) in [
            ("", true),
            ("a", true),
            ("1.2_3-x", true),
            ("a b", false),
            ("-", false),
        ] {
            let mut problems = Vec::new();
            labels(
                &BTreeMap::from([("app".to_owned(), value.to_owned())]),
                &mut problems,
            );
            assert_eq!(problems.is_empty(), valid, "{value}");
        }
    }
}
