//! Questions to agents over their control sockets.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use manx_api::rpc::{self, FrameError, Method, Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{LabError, Result};

/// How long an agent may think.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer, at most: enough for the paths of a full table.
const MAX_ANSWER: usize = 1 << 30;

/// Asks the agent behind `socket`.
///
/// # Errors
/// [`LabError::Agent`] if nobody answers in time, [`LabError::Refused`] with the agent's own error.
pub fn ask<T: DeserializeOwned>(socket: &Path, method: Method) -> Result<T> {
    ask_with(socket, method, Value::Null)
}

/// Asks an agent, with parameters.
///
/// # Errors
/// As [`ask`].
pub fn ask_with<T: DeserializeOwned>(socket: &Path, method: Method, params: Value) -> Result<T> {
    ask_within(socket, method, params, TIMEOUT)
}

/// Asks an agent, which may think for so long.
///
/// # Errors
/// As [`ask`].
pub fn ask_within<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    params: Value,
    timeout: Duration,
) -> Result<T> {
    let failed = |source| LabError::Agent {
        socket: socket.to_owned(),
        source,
    };
    let answer = exchange(socket, method, params, timeout).map_err(failed)?;
    match answer.outcome() {
        Err(source) => Err(LabError::Refused {
            socket: socket.to_owned(),
            source,
        }),
        Ok(result) => serde_json::from_value(result).map_err(|error| failed(error.into())),
    }
}

fn exchange(
    socket: &Path,
    method: Method,
    params: Value,
    timeout: Duration,
) -> std::result::Result<Response, FrameError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    rpc::write(&mut stream, &Request::new(1, method, params))?;
    rpc::read(&mut BufReader::new(stream), MAX_ANSWER)
}
