//! The agent's control socket: JSON-RPC 2.0, one object a line, over a Unix stream.
//!
//! A client writes one [`Request`] line and reads one [`Response`] line; it may send more over the same
//! stream. Methods and their types are listed in [`Method`]. [`write`] and [`read`] serve synchronous
//! clients; [`encode`] and [`decode`] are the same for whoever does the I/O another way.

use std::io::{self, BufRead, Read as _, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a line that a server reads from a client, and that an answer to the CNI plugin stays below.
/// Clients that ask for tables of routes allow the answer more.
pub const MAX_LINE: usize = 1 << 20;

/// Always what `jsonrpc` says.
const VERSION: &str = "2.0";

/// The methods of the control socket, with what they take and give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// CNI ADD: the plugin's call (`manx_cni::Call`) → a CNI result.
    #[serde(rename = "cni.add")]
    CniAdd,
    /// CNI DEL: the plugin's call → null.
    #[serde(rename = "cni.del")]
    CniDel,
    /// CNI CHECK: the plugin's call, with the result of ADD in `config.prevResult` → null.
    #[serde(rename = "cni.check")]
    CniCheck,
    /// CNI STATUS: the plugin's configuration (`manx_cni::NetConf`) → null while an ADD could succeed.
    #[serde(rename = "cni.status")]
    CniStatus,
    /// CNI GC: the plugin's configuration, with every attachment still alive → null.
    #[serde(rename = "cni.gc")]
    CniGc,
    /// Nothing → [`crate::status::NodeStatus`].
    #[serde(rename = "node.status")]
    NodeStatus,
    /// Nothing → a list of [`crate::status::PeerStatus`].
    #[serde(rename = "bgp.peers")]
    BgpPeers,
    /// Nothing → a list of [`crate::status::BgpRoute`].
    #[serde(rename = "bgp.routes")]
    BgpRoutes,
    /// [`crate::status::ExplainCall`] → [`crate::status::BgpExplanation`], or null where there is no path.
    #[serde(rename = "bgp.explain")]
    BgpExplain,
    /// Nothing → [`crate::status::TableDump`].
    #[serde(rename = "bgp.dump")]
    BgpDump,
    /// [`crate::operation::DrainCall`] → [`crate::operation::Operated`].
    #[serde(rename = "bgp.drain")]
    BgpDrain,
    /// [`crate::operation::UndrainCall`] → [`crate::operation::Operated`].
    #[serde(rename = "bgp.undrain")]
    BgpUndrain,
    /// [`crate::operation::ResetCall`] → [`crate::operation::Operated`].
    #[serde(rename = "bgp.reset")]
    BgpReset,
    /// Nothing → [`crate::status::Reload`]: a speaker by itself reads its configuration again.
    #[serde(rename = "bgp.reload")]
    BgpReload,
    /// Nothing → a list of [`crate::status::KernelRoute`].
    #[serde(rename = "route.show")]
    RouteShow,
    /// Nothing → a list of [`crate::status::BlockStatus`].
    #[serde(rename = "ipam.show")]
    IpamShow,
    /// Nothing → [`crate::report::NodeReport`].
    #[serde(rename = "ipam.check")]
    IpamCheck,
    /// [`crate::explanation::PolicyExplainCall`] → [`crate::explanation::PolicyExplanation`].
    #[serde(rename = "policy.explain")]
    PolicyExplain,
    /// [`crate::denied::DeniesCall`] → [`crate::denied::Denies`].
    #[serde(rename = "policy.denies")]
    PolicyDenies,
    /// [`crate::announcement::ServiceExplainCall`] → [`crate::announcement::ServiceExplanation`], or null where there is no
    /// such service.
    #[serde(rename = "service.explain")]
    ServiceExplain,
    /// Nothing → a list of [`crate::explanation::StagedCount`].
    #[serde(rename = "policy.staged")]
    PolicyStaged,
    /// [`crate::what_if::WhatIfCall`] → [`crate::what_if::WhatIf`].
    #[serde(rename = "policy.whatIf")]
    PolicyWhatIf,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Returned as it came.
    pub id: u64,
    /// What to do.
    pub method: Method,
    /// What to do it with.
    #[serde(default)]
    pub params: Value,
}

impl Request {
    /// A call.
    pub fn new(id: u64, method: Method, params: Value) -> Self {
        let jsonrpc = VERSION.to_owned();
        Self {
            jsonrpc,
            id,
            method,
            params,
        }
    }
}

/// An answer: exactly one of `result` and `error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// The request's.
    pub id: u64,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RpcError>,
}

impl Response {
    /// The answer to the request `id`.
    pub fn new(id: u64, outcome: Result<Value, RpcError>) -> Self {
        let jsonrpc = VERSION.to_owned();
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            jsonrpc,
            id,
            result,
            error,
        }
    }

    /// What came of the call. JSON's `null` is a result as well, that of a call that returns nothing.
    ///
    /// # Errors
    /// What the server says went wrong.
    pub fn outcome(self) -> Result<Value, RpcError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.result.unwrap_or_default()),
        }
    }
}

/// What went wrong. CNI calls carry the CNI error code; others the JSON-RPC ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// A JSON-RPC or CNI error code.
    pub code: i64,
    /// One sentence for people.
    pub message: String,
    /// More: for CNI calls, the `details` string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// Why a message could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side closed the stream where a message might have begun.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side closed the stream within a message.
    #[error("the other side closed the connection in the middle of a message, after {0} bytes")]
    Torn(usize),
    /// The line did not end within the limit.
    #[error("a message of more than {0} bytes is refused")]
    TooLong(usize),
    /// The line is not the JSON that was expected.
    #[error("a message that is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// A message as a line, its newline included.
///
/// # Errors
/// [`FrameError::Json`] for what JSON cannot hold, such as a map whose keys are not text.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    // JSON text has newlines only where a pretty-printer puts them.
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// A message from its line, with or without the newline.
///
/// # Errors
/// [`FrameError::Json`].
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(line)?)
}

/// Writes a message and flushes.
///
/// # Errors
/// [`FrameError::Json`], [`FrameError::Io`].
pub fn write<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(stream.flush()?)
}

/// Reads the next message, whose line may have `limit` bytes; see [`MAX_LINE`].
///
/// # Errors
/// Any [`FrameError`]. After [`FrameError::TooLong`] the stream is of no further use.
pub fn read<T: DeserializeOwned>(stream: &mut impl BufRead, limit: usize) -> Result<T, FrameError> {
    let mut line = Vec::new();
    let allowed = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    stream.by_ref().take(allowed).read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => decode(&line),
        Some(_) if line.len() > limit => Err(FrameError::TooLong(limit)),
        Some(_) => Err(FrameError::Torn(line.len())),
        None => Err(FrameError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_pass_one_to_a_line() {
        let requests = [
            Request::new(1, Method::CniAdd, json!({"text": "two\nlines"})),
            Request::new(2, Method::NodeStatus, Value::Null),
        ];
        let mut stream = Vec::new();
        for request in &requests {
            write(&mut stream, request).unwrap();
        }
        assert_eq!(stream.iter().filter(|b| **b == b'\n').count(), 2);
        let mut stream = &stream[..];
        for request in &requests {
            assert_eq!(read::<Request>(&mut stream, MAX_LINE).unwrap(), *request);
        }
        assert!(matches!(
            read::<Request>(&mut stream, MAX_LINE),
            Err(FrameError::Closed)
        ));
    }

    #[test]
    fn an_answer_is_a_result_or_an_error() {
        for outcome in [
            Ok(json!({"a": 1})),
            Ok(Value::Null),
            Err(RpcError {
                code: 11,
                message: "try again later".to_owned(),
                data: None,
            }),
        ] {
            let line = encode(&Response::new(7, outcome.clone())).unwrap();
            let response: Response = decode(&line).unwrap();
            assert_eq!(response.id, 7);
            assert_eq!(response.outcome(), outcome);
        }
    }

    #[test]
    fn lines_end_within_the_limit_or_are_refused() {
        let read = |text: &str| read::<String>(&mut text.as_bytes(), 8);
        assert_eq!(read("\"12345\"\n").unwrap(), "12345");
        assert_eq!(
            read("\"123456\"\n").unwrap(),
            "123456",
            "eight bytes and the newline"
        );
        assert!(matches!(read("\"1234567\"\n"), Err(FrameError::TooLong(8))));
        assert!(matches!(read("\"12345"), Err(FrameError::Torn(6))));
        assert!(matches!(read("12345\n"), Err(FrameError::Json(_))));
        assert!(matches!(read("\n"), Err(FrameError::Json(_))));
    }
}
