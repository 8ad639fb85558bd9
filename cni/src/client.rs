//! One question to the agent over its control socket, under one deadline.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use manx_api::rpc::{self, FrameError, MAX_LINE, Method, Request, Response, RpcError};
use serde_json::Value;

/// The id of the only request on a connection.
const ID: u64 = 1;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The agent gave no answer.
    #[error(transparent)]
    Absent(#[from] Absence),
    /// The agent refused.
    #[error(transparent)]
    Refused(#[from] RpcError),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Absence {
    /// Nobody listens.
    #[error("nobody listens there: {0}")]
    Unreachable(io::Error),
    /// The connection ended before the answer, or what came is none.
    #[error(transparent)]
    Broken(#[from] FrameError),
    /// The answer is to another question.
    #[error("an answer to request {0} instead of {ID}")]
    Misplaced(u64),
    /// The deadline has passed.
    #[error("no answer in {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// There is no thread to ask in.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
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
    let request = Request::new(ID, method, params);
    let socket = socket.to_owned();
    let (answer, wait) = mpsc::channel();
    let exchange = move || {
        // The receiver is gone only after its timeout: nobody is left to tell.
        answer.send(exchange(&socket, &request)).ok();
    };
    thread::Builder::new().spawn(exchange).map_err(Absence::Thread)?;
    let response = match wait.recv_timeout(timeout) {
        Ok(response) => response?,
        Err(RecvTimeoutError::Timeout) => return Err(Absence::Timeout(timeout).into()),
        Err(RecvTimeoutError::Disconnected) => return Err(Absence::Broken(FrameError::Closed).into()),
    };
    let id = response.id;
    // A request that the agent could not read is refused under no id.
    let result = response.outcome()?;
    if id == ID {
        Ok(result)
    } else {
        Err(Absence::Misplaced(id).into())
    }
}

fn exchange(socket: &Path, request: &Request) -> Result<Response, Absence> {
    let mut stream = UnixStream::connect(socket).map_err(Absence::Unreachable)?;
    rpc::write(&mut stream, request)?;
    Ok(rpc::read(&mut BufReader::new(stream), MAX_LINE)?)
}
