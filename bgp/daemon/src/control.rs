//! A control socket: JSON-RPC 2.0, one object a line ([`manx_api::rpc`]), for `manx-bgpd` and for the agent.
//!
//! One task per connection, calls of a connection one after the other. A call that has begun is carried out
//! even if its caller hangs up: what is half done helps nobody.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_api::rpc::{self, MAX_LINE, Method, Request, Response, RpcError};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// JSON-RPC: the line is no JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: nobody here does that.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: the parameters are not the method's.
pub const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: it could not be done.
pub const INTERNAL_ERROR: i64 = -32603;

/// How long a failing listener rests: it fails for want of file descriptors, which come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Callers at a time, at most; who comes later waits in the kernel's queue. A node's pods may all start at once.
const CALLERS: usize = 256;

/// How long a caller may take to ask, or to take what he asked for: after that his place is another's.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the lock of a process that was killed may outlive it: what it was just starting has the lock, too, until
/// it executes.
const AFTERLIFE: Duration = Duration::from_secs(1);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process has it.
    #[error("another process serves {0}: stop it first, or give this one a socket (and stateDir) of its own")]
    Taken(PathBuf),
    /// The file system refuses.
    #[error("cannot serve {path}: {source}")]
    Io {
        /// The socket, or the lock beside it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right to a socket's path, as long as this lives: a lock on a file beside it, which the kernel drops
/// with the process, however it ends.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Claims the path; its directory is made if need be. Blocks for a moment where another process has it.
    ///
    /// # Errors
    /// Another process has it, or the file system refuses.
    pub fn new(path: &Path) -> Result<Self, SocketError> {
        let lock = path.with_extension("lock");
        let refused = |source| SocketError::Io {
            path: lock.clone(),
            source,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(refused)?;
        }
        let file = File::create(&lock).map_err(refused)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        _lock: file,
                    });
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() < AFTERLIFE => {
                    std::thread::sleep(AFTERLIFE / 50);
                }
                Err(TryLockError::WouldBlock) => return Err(SocketError::Taken(path.to_owned())),
                Err(TryLockError::Error(source)) => return Err(refused(source)),
            }
        }
    }

    /// Listens; the socket of an earlier life is taken away first. Only root may connect.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn listen(&self) -> Result<UnixListener, SocketError> {
        let refused = |source| SocketError::Io {
            path: self.path.clone(),
            source,
        };
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&self.path).map_err(refused)?;
        std::fs::set_permissions(&self.path, Permissions::from_mode(0o600)).map_err(refused)?;
        Ok(listener)
    }
}

/// A call's parameters.
///
/// # Errors
/// They are not the method's.
pub fn params<T: DeserializeOwned>(request: &Request) -> Result<T, RpcError> {
    T::deserialize(&request.params).map_err(|e| error(INVALID_PARAMS, format!("params: {e}")))
}

/// Whoever answers calls; clones are the same.
pub trait Answer: Clone + Send + 'static {
    /// Does what is asked.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Value, RpcError>> + Send;
}

/// Serves until the process ends; calls under way are in `calls`.
pub async fn serve<A: Answer + Sync>(listener: &UnixListener, answers: &A, calls: &TaskTracker) {
    let places = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let conversation = converse(stream, answers.clone(), calls.clone());
                // Not among the calls: a connection that is idle holds nothing up.
                tokio::spawn(async move {
                    conversation.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse<A: Answer + Sync>(stream: UnixStream, answers: A, calls: TaskTracker) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let line = timeout(PATIENCE, line(&mut read)).await;
        let (response, last) = match line.unwrap_or_else(|late| Err(late.into())) {
            Ok(None) => return,
            Ok(Some(line)) => {
                let answers = answers.clone();
                let call = calls.spawn(async move { respond(&line, &answers).await });
                let failed = |error: tokio::task::JoinError| refusal(0, INTERNAL_ERROR, error.to_string());
                (call.await.unwrap_or_else(failed), false)
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                (refusal(0, PARSE_ERROR, error.to_string()), true)
            }
            Err(error) => return tracing::debug!(%error, "a control connection broke"),
        };
        let text = rpc::encode(&response).unwrap_or_default();
        match timeout(PATIENCE, write.write_all(&text)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return tracing::debug!("a caller did not take its answer"),
        }
        if last {
            return;
        }
    }
}

/// The next line; none when the caller has closed.
async fn line(stream: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let allowed = u64::try_from(MAX_LINE).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(allowed).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() > MAX_LINE => {
            let message = format!("a line of more than {MAX_LINE} bytes is refused");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn respond<A: Answer>(line: &[u8], answers: &A) -> Response {
    match parse(line) {
        Ok(request) => Response::new(request.id, answers.answer(request).await),
        Err(response) => *response,
    }
}

/// The request of a line, or what to answer to one that is none.
fn parse(line: &[u8]) -> Result<Request, Box<Response>> {
    let value: Value =
        serde_json::from_slice(line).map_err(|e| Box::new(refusal(0, PARSE_ERROR, e.to_string())))?;
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    let known = value
        .get("method")
        .is_some_and(|method| Method::deserialize(method).is_ok());
    let code = if known { INVALID_PARAMS } else { METHOD_NOT_FOUND };
    serde_json::from_value(value).map_err(|error| Box::new(refusal(id, code, error.to_string())))
}

/// A result as it is answered.
///
/// # Errors
/// JSON cannot hold it.
pub fn value(result: &impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(result).map_err(|e| error(INTERNAL_ERROR, e.to_string()))
}

/// An error with one of JSON-RPC's codes.
pub fn error(code: i64, message: impl Into<String>) -> RpcError {
    RpcError {
        code,
        message: message.into(),
        data: None,
    }
}

fn refusal(id: u64, code: i64, message: impl Into<String>) -> Response {
    Response::new(id, Err(error(code, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_request_is_answered_with_the_right_code() {
        for (line, id, code) in [
            ("{", 0, PARSE_ERROR),
            (
                r#"{"jsonrpc": "2.0", "id": 7, "method": "no.such"}"#,
                7,
                METHOD_NOT_FOUND,
            ),
            (
                r#"{"jsonrpc": "2.0", "id": "x", "method": "bgp.peers"}"#,
                0,
                INVALID_PARAMS,
            ),
        ] {
            let response = parse(line.as_bytes()).unwrap_err();
            assert_eq!((response.id, response.error.unwrap().code), (id, code), "{line}");
        }
    }

    /// Answers with the request's parameters.
    #[derive(Clone)]
    struct Echo;

    impl Answer for Echo {
        async fn answer(&self, request: Request) -> Result<Value, RpcError> {
            Ok(request.params)
        }
    }

    #[tokio::test]
    async fn calls_are_answered_one_after_the_other_and_a_line_without_end_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = Claim::new(&path).unwrap().listen().unwrap();
        tokio::spawn(async move { serve(&listener, &Echo, &TaskTracker::new()).await });
        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        let mut read = BufReader::new(read);
        for id in 1..=2 {
            let request = Request::new(id, Method::BgpPeers, Value::from(id));
            write.write_all(&rpc::encode(&request).unwrap()).await.unwrap();
            let response: Response = rpc::decode(&line(&mut read).await.unwrap().unwrap()).unwrap();
            assert_eq!((response.id, response.result), (id, Some(Value::from(id))));
        }
        // What is written beyond the limit may find the other side gone.
        write
            .write_all(&vec![b'x'; MAX_LINE + 1])
            .await
            .unwrap_or_default();
        let response: Response = rpc::decode(&line(&mut read).await.unwrap().unwrap()).unwrap();
        assert_eq!(response.error.unwrap().code, PARSE_ERROR);
        assert_eq!(line(&mut read).await.unwrap_or_default(), None, "closed");
    }

    /// A caller that neither asks nor reads, and one that asks and does not read, lose their places to others.
    #[tokio::test(start_paused = true)]
    async fn callers_that_stall_give_way_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = Claim::new(&path).unwrap().listen().unwrap();
        tokio::spawn(async move { serve(&listener, &Echo, &TaskTracker::new()).await });
        // Longer than what the kernel keeps for a caller.
        let long = rpc::encode(&Request::new(
            1,
            Method::BgpPeers,
            Value::from("x".repeat(MAX_LINE / 2)),
        ));
        let long = long.unwrap();
        let mut stalled = Vec::new();
        for caller in 0..CALLERS {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            if caller % 16 == 0 {
                stream.write_all(&long).await.unwrap();
            }
            stalled.push(stream);
        }
        let started = tokio::time::Instant::now();
        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        let request = Request::new(2, Method::BgpPeers, Value::Null);
        write.write_all(&rpc::encode(&request).unwrap()).await.unwrap();
        let answer = line(&mut BufReader::new(read)).await.unwrap().unwrap();
        assert_eq!(rpc::decode::<Response>(&answer).unwrap().id, 2);
        assert_eq!(
            started.elapsed().as_secs(),
            PATIENCE.as_secs(),
            "all places were taken until then"
        );
        for mut stream in stalled {
            let mut rest = Vec::new();
            timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .unwrap()
                .unwrap();
            assert!(rest.len() < long.len(), "who stalls is hung up on");
        }
    }

    #[test]
    fn a_socket_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let first = Claim::new(&path).unwrap();
        let error = Claim::new(&path).unwrap_err().to_string();
        assert!(error.contains("another process serves"), "{error}");
        drop(first);
        Claim::new(&path).unwrap();
    }

    #[test]
    fn what_a_killed_server_was_just_starting_does_not_keep_the_next_one_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let killed = Claim::new(&path).unwrap();
        let inherited = killed._lock.try_clone().unwrap();
        drop(killed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(AFTERLIFE / 5);
                drop(inherited);
            });
            Claim::new(&path).unwrap();
        });
    }

    #[tokio::test]
    async fn the_socket_of_an_earlier_life_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(Claim::new(&path).unwrap().listen().unwrap());
        assert!(path.exists(), "a killed server leaves its socket");
        let claim = Claim::new(&path).unwrap();
        let _listener = claim.listen().unwrap();
        UnixStream::connect(&path).await.unwrap();
    }
}
