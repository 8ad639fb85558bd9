//! One question to the agent over its control socket, under one deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use manx_api::rpc::{Method, Request, Response, RpcError};
use serde_json::Value;

/// The longest answer taken, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// The id of the only request on a connection.
const ID: u64 = 1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody listens.
    #[error("nobody listens there: {0}")]
    Unreachable(io::Error),
    /// The connection ended before the answer, or what came is none.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The deadline has passed.
    #[error("no answer in {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The agent refused.
    #[error(transparent)]
    Refused(#[from] RpcError),
}

/// Calls a method of the agent.
///
/// The exchange has a thread of its own, so that one deadline covers all of it: a full backlog, a half-read
/// request, an answer that comes in drops. After a timeout the thread ends with the process.
pub(crate) fn call(
    socket: &Path,
    method: Method,
    params: Value,
    timeout: Duration,
) -> Result<Value, CallError> {
    let request = Request {
        jsonrpc: "2.0".to_owned(),
        id: ID,
        method,
        params,
    };
    let mut line = serde_json::to_vec(&request).map_err(|error| CallError::Broken(error.into()))?;
    line.push(b'\n');
    let socket = socket.to_owned();
    let (answer, wait) = mpsc::channel();
    let exchange = move || {
        // The receiver is gone only after its timeout: nobody is left to tell.
        answer.send(exchange(&socket, &line)).ok();
    };
    thread::Builder::new()
        .spawn(exchange)
        .map_err(CallError::Broken)?;
    match wait.recv_timeout(timeout) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(CallError::Timeout(timeout)),
        Err(RecvTimeoutError::Disconnected) => Err(CallError::Broken(io::ErrorKind::Other.into())),
    }
}

fn exchange(socket: &Path, line: &[u8]) -> Result<Value, CallError> {
    let mut stream = UnixStream::connect(socket).map_err(CallError::Unreachable)?;
    stream.write_all(line).map_err(CallError::Broken)?;
    let mut answer = Vec::new();
    BufReader::new(stream)
        .take(MAX_ANSWER)
        .read_until(b'\n', &mut answer)
        .map_err(CallError::Broken)?;
    if answer.is_empty() {
        return Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let answer: Response =
        serde_json::from_slice(&answer).map_err(|error| CallError::Broken(error.into()))?;
    if let Some(error) = answer.error {
        return Err(CallError::Refused(error));
    }
    if answer.id != ID {
        let problem = format!("an answer to request {} instead of {ID}", answer.id);
        return Err(CallError::Broken(io::Error::new(
            io::ErrorKind::InvalidData,
            problem,
        )));
    }
    Ok(answer.result.unwrap_or_default())
}
