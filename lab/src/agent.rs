//! Questions to agents over their control sockets.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use manx_api::rpc::{Method, Request, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{LabError, Result};

/// How long an agent may think.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the agent behind `socket`.
///
/// # Errors
/// [`LabError::Agent`] if nobody answers in time, [`LabError::Refused`] with the agent's own error.
pub fn ask<T: DeserializeOwned>(socket: &Path, method: Method) -> Result<T> {
    let failed = |source: io::Error| LabError::Agent { socket: socket.to_owned(), source };
    let answer = exchange(socket, method).map_err(failed)?;
    match answer.error {
        Some(source) => Err(LabError::Refused { socket: socket.to_owned(), source }),
        None => serde_json::from_value(answer.result.unwrap_or_default()).map_err(|error| failed(error.into())),
    }
}

fn exchange(socket: &Path, method: Method) -> io::Result<Response> {
    let request = Request { jsonrpc: "2.0".to_owned(), id: 1, method, params: Value::Null };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
