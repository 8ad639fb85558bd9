//! What the API server's refusals mean.

use kube::core::Status;
use manx_api::{Key, Kind, Problem, Revision};

use crate::Error;

/// What was asked, for messages.
pub(super) struct Place<'a> {
    /// The verb: `read`.
    pub(super) what: &'a str,
    /// About what.
    pub(super) key: &'a Key,
    /// Of whom.
    pub(super) server: &'a str,
}

impl Place<'_> {
    /// No answer in time.
    pub(super) fn late(&self, late: tokio::time::error::Elapsed) -> Error {
        Error::unavailable(self.context(), late)
    }

    /// The refusal as an error of a store.
    pub(super) fn error(&self, error: kube::Error) -> Error {
        if let kube::Error::Api(status) = error {
            return self.refusal(status);
        }
        Error::unavailable(self.context(), error)
    }

    fn refusal(&self, status: Box<Status>) -> Error {
        let key = self.key.clone();
        match status.code {
            401 | 403 => Error::Denied {
                context: self.context(),
                message: status.message,
            },
            404 => Error::NotFound(missing(&key, &status)),
            409 if status.reason == "AlreadyExists" => Error::AlreadyExists(key),
            409 => Error::Conflict {
                key,
                expected: Revision::start(),
                actual: Revision::start(),
            },
            410 => Error::Expired(Revision::start()),
            400 | 422 => Error::Invalid {
                key,
                problems: problems(&status),
            },
            _ => Error::unavailable(self.context(), status),
        }
    }

    fn context(&self) -> String {
        format!("cannot {} {} at {}", self.what, self.key, self.server)
    }
}

/// What is not there: of what is to be created it is the namespace.
fn missing(key: &Key, status: &Status) -> Key {
    let namespaces = status
        .details
        .as_ref()
        .is_some_and(|details| details.kind == "namespaces");
    match &key.namespace {
        Some(namespace) if namespaces => Key::cluster(Kind::Namespace, namespace),
        Some(_) | None => key.clone(),
    }
}

/// Everything that the server finds wrong.
fn problems(status: &Status) -> Vec<Problem> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let problems: Vec<Problem> = causes
        .map(|cause| Problem::new(&cause.field, "", &cause.message))
        .collect();
    if problems.is_empty() {
        return vec![Problem::new("", "", &status.message)];
    }
    problems
}
