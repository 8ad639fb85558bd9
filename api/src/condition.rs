//! What Manx says of a resource where Kubernetes keeps it: in `status`.

use serde::{Deserialize, Serialize};

use crate::formats::nullable;

/// The type of the condition that says whether a policy is carried out.
pub const ACCEPTED: &str = "Accepted";

/// What Manx says of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Status {
    /// What holds of it, one of each type.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])))]
    pub conditions: Vec<Condition>,
}

impl Status {
    /// Whether nothing is said.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Says something in place of what was said of that type. Where that was the same, nothing changes, not even
    /// since when. Returns whether anything did.
    pub fn say(&mut self, condition: Condition) -> bool {
        let what = |it: &Condition| (it.status, it.reason.clone(), it.message.clone());
        match self.conditions.iter_mut().find(|it| it.kind == condition.kind) {
            Some(before) if what(before) == what(&condition) => return false,
            Some(before) => *before = condition,
            None => self.conditions.push(condition),
        }
        true
    }
}

/// Something that holds of a resource or does not, as Kubernetes writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What: `Accepted`, as an example.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// The `metadata.generation` that this was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Since when (RFC 3339).
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub last_transition_time: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(status: Truth, time: &str) -> Condition {
        Condition {
            kind: ACCEPTED.to_owned(),
            status,
            observed_generation: None,
            last_transition_time: time.to_owned(),
            reason: "Because".to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn what_is_said_again_changes_nothing() {
        let mut status = Status::default();
        assert!(status.say(condition(Truth::False, "1")));
        assert!(!status.say(condition(Truth::False, "2")));
        assert_eq!(status.condition(ACCEPTED), Some(&condition(Truth::False, "1")));
        assert!(status.say(condition(Truth::True, "3")));
        assert_eq!(status.conditions, [condition(Truth::True, "3")]);
        assert_eq!(status.condition("Other"), None);
    }
}
