//! What can go wrong with a datastore.

use manx_api::{Key, Problem, Revision};

/// Why a store did not do as asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No resource has this key.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// A resource to be created is there already.
    #[error("{0} exists already: update it, or delete it first")]
    AlreadyExists(Key),
    /// Another write came first.
    #[error(
        "{key} was changed meanwhile (revision {actual}, not {expected}): read it again and redo the change"
    )]
    Conflict {
        /// What was to be written.
        key: Key,
        /// The revision that the writer knew.
        expected: Revision,
        /// The revision that is stored.
        actual: Revision,
    },
    /// The resource breaks rules.
    #[error("{key} is not valid: {}", list(problems))]
    Invalid {
        /// The resource.
        key: Key,
        /// Every rule that it breaks.
        problems: Vec<Problem>,
    },
    /// The store no longer remembers what came after this revision.
    #[error("the store no longer knows what came after revision {0}: list again and watch from there")]
    Expired(Revision),
    /// The API server does not let us.
    #[error(
        "{context}: the API server refuses: {message}; give whoever runs this the rights that deploy/ gives Manx, or \
         other credentials"
    )]
    Denied {
        /// What was tried, on what, where.
        context: String,
        /// What the server said.
        message: String,
    },
    /// The store cannot be reached or read now; trying again later may help.
    #[error("the store is unavailable: {context}: {source}")]
    Unavailable {
        /// What was tried, on what.
        context: String,
        /// What the layer below said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// An [`Error::Unavailable`].
    pub(crate) fn unavailable(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable {
            context: context.into(),
            source: source.into(),
        }
    }
}

fn list(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    texts.join("; ")
}
