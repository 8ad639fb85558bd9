//! What the plugin answers when it cannot do as asked (specification section 5, "Error").

use manx_api::rpc::RpcError;
use serde_json::{Value, json};

use crate::SpecVersion;

/// The kinds of error: the specification's (1 to 99) and Manx's own (from 100).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The configuration asks for a specification version that Manx does not speak.
    IncompatibleVersion = 1,
    /// The configuration asks for something that Manx does not do; the message names the field.
    UnsupportedField = 2,
    /// The container is unknown or gone; the runtime need not clean up.
    UnknownContainer = 3,
    /// A `CNI_…` variable is missing or malformed; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// Not the JSON that was expected.
    Decode = 6,
    /// A field of the configuration has a value that cannot be.
    InvalidConfig = 7,
    /// A passing condition: the runtime should try again later.
    TryAgainLater = 11,
    /// STATUS: the plugin cannot serve ADD.
    NotAvailable = 50,
    /// STATUS: the plugin cannot serve ADD, and existing containers may have limited connectivity.
    LimitedConnectivity = 51,
    /// Something failed inside the agent.
    Internal = 100,
    /// Every pool that the pod may use is full.
    NoAddress = 101,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::IncompatibleVersion,
        Self::UnsupportedField,
        Self::UnknownContainer,
        Self::InvalidEnvironment,
        Self::Io,
        Self::Decode,
        Self::InvalidConfig,
        Self::TryAgainLater,
        Self::NotAvailable,
        Self::LimitedConnectivity,
        Self::Internal,
        Self::NoAddress,
    ];

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> i64 {
        self as i64
    }
}

/// An error of the plugin or the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind.
    pub code: Code,
    /// One sentence: what is wrong, and what to do.
    pub message: String,
    /// More, for whoever looks closer.
    pub details: Option<String>,
}

impl Error {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
        }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(self, details: impl ToString) -> Self {
        Self {
            details: Some(details.to_string()),
            ..self
        }
    }

    /// The error as the specification has it.
    #[must_use]
    pub fn render(&self, version: SpecVersion) -> Value {
        let mut error = json!({
            "cniVersion": version,
            "code": self.code.number(),
            "msg": self.message,
        });
        if let Some(details) = &self.details {
            error["details"] = json!(details);
        }
        error
    }
}

impl From<Error> for RpcError {
    fn from(error: Error) -> Self {
        Self {
            code: error.code.number(),
            message: error.message,
            data: error.details.map(Value::String),
        }
    }
}

impl From<RpcError> for Error {
    /// A code that is not CNI's (JSON-RPC's own are negative) becomes [`Code::Internal`].
    fn from(error: RpcError) -> Self {
        let code = Code::ALL.into_iter().find(|code| code.number() == error.code);
        let details = error.data.map(|data| match data {
            Value::String(text) => text,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                data.to_string()
            }
        });
        Self {
            code: code.unwrap_or(Code::Internal),
            message: error.message,
            details,
        }
    }
}
