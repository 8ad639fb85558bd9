//! Mistakes in a file, in its writer's words.

use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _};

use super::ConfigError;

/// Serde's error in the user's words: unknown names get the nearest known one.
pub(super) fn explain(error: &serde_saphyr::Error) -> ConfigError {
    let error = error.without_snippet();
    let (line, column) = error
        .location()
        .map_or((1, 1), |place| (place.line(), place.column()));
    // Any other kind of error says what is wrong by itself.
    let message = if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        unknown("field", field, expected)
    } else if let serde_saphyr::Error::SerdeUnknownVariant {
        variant, expected, ..
    } = error
    {
        unknown("value", variant, expected)
    } else {
        DefaultMessageFormatter.format_message(error).into_owned()
    };
    ConfigError::Syntax {
        line,
        column,
        message,
    }
}

fn unknown(what: &str, found: &str, expected: &[&str]) -> String {
    let list = expected.join(", ");
    let lower = found.to_lowercase();
    let near = |name: &&&str| strsim::damerau_levenshtein(&name.to_lowercase(), &lower);
    match expected
        .iter()
        .min_by_key(near)
        .filter(|name| near(name) <= 1 + found.len() / 4)
    {
        Some(name) => format!("unknown {what} '{found}'; did you mean '{name}'?"),
        None => format!("unknown {what} '{found}'; possible here: {list}"),
    }
}
