//! The control socket: JSON-RPC 2.0, one object a line ([`manx_api::rpc`]).
//!
//! One task per connection, calls of a connection one after the other. A call that has begun is carried out
//! even if its caller hangs up: a pod half attached helps nobody.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::{SinkExt as _, StreamExt as _};
use manx_api::rpc::{MAX_LINE, Method, Request, Response, RpcError};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use tokio_util::task::TaskTracker;

use crate::ask::Gone;
use crate::status::Sources;
use crate::{bgp, cni, ipam, route};

/// JSON-RPC's codes.
const PARSE_ERROR: i64 = -32700;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent has it.
    #[error("another manxd serves {0}: stop it first, or give this one a socket and stateDir of its own")]
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
    /// Claims the path; its directory is made if need be.
    ///
    /// # Errors
    /// Another agent has it, or the file system refuses.
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
        match file.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: file,
            }),
            Err(TryLockError::WouldBlock) => Err(SocketError::Taken(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(refused(source)),
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

/// Where calls go.
#[derive(Clone, Debug)]
pub struct Doors {
    /// CNI's.
    pub cni: mpsc::Sender<cni::Job>,
    /// `bgp.…`.
    pub bgp: mpsc::Sender<bgp::Question>,
    /// `ipam.…`.
    pub ipam: mpsc::Sender<ipam::Request>,
    /// `route.…`.
    pub routes: mpsc::Sender<route::Command>,
    /// `node.…`.
    pub status: Sources,
}

/// Serves until the process ends; calls under way are in `calls`.
pub async fn serve(listener: &UnixListener, doors: &Doors, calls: &TaskTracker) {
    loop {
        match listener.accept().await {
            // Not among the calls: a connection that is idle holds nothing up.
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, doors.clone(), calls.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, doors: Doors, calls: TaskTracker) {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MAX_LINE));
    while let Some(line) = lines.next().await {
        let response = match line {
            Ok(line) => {
                let doors = doors.clone();
                let call = calls.spawn(async move { answer(&line, &doors).await });
                call.await
                    .unwrap_or_else(|error| failed(0, INTERNAL_ERROR, error.to_string()))
            }
            Err(error @ LinesCodecError::MaxLineLengthExceeded) => failed(0, PARSE_ERROR, error.to_string()),
            Err(LinesCodecError::Io(error)) => return tracing::debug!(%error, "a control connection broke"),
        };
        let text = serde_json::to_string(&response).unwrap_or_default();
        if lines.send(text).await.is_err() {
            return tracing::debug!("a caller hung up before its answer");
        }
    }
}

async fn answer(line: &str, doors: &Doors) -> Response {
    let request = match parse(line) {
        Ok(request) => request,
        Err(response) => return *response,
    };
    Response::new(request.id, dispatch(&request, doors).await)
}

/// The request of a line, or what to answer to one that is none.
fn parse(line: &str) -> Result<Request, Box<Response>> {
    let value: Value =
        serde_json::from_str(line).map_err(|e| Box::new(failed(0, PARSE_ERROR, e.to_string())))?;
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    let known = value
        .get("method")
        .is_some_and(|method| Method::deserialize(method).is_ok());
    let code = if known { INVALID_PARAMS } else { METHOD_NOT_FOUND };
    serde_json::from_value(value).map_err(|error| Box::new(failed(id, code, error.to_string())))
}

async fn dispatch(request: &Request, doors: &Doors) -> Result<Value, RpcError> {
    match request.method {
        Method::CniAdd => {
            let call = params(request)?;
            cni(doors, |reply| cni::Job::Add {
                call: Box::new(call),
                reply,
            })
            .await
        }
        Method::CniDel => {
            let call: manx_cni::Call = params(request)?;
            cni(doors, |reply| cni::Job::Del {
                attachment: call.attachment,
                reply,
            })
            .await
        }
        Method::CniCheck => {
            let call = params(request)?;
            cni(doors, |reply| cni::Job::Check {
                call: Box::new(call),
                reply,
            })
            .await
        }
        Method::CniGc => {
            let config: manx_cni::NetConf = params(request)?;
            let valid = config.valid_attachments.unwrap_or_default();
            cni(doors, |reply| cni::Job::Collect { valid, reply }).await
        }
        Method::CniStatus => cni::available(&doors.status.readiness.waiting_for()).map(|()| Value::Null),
        Method::NodeStatus => value(&doors.status.node(doors).await.map_err(gone)?),
        Method::BgpPeers => value(&ask(&doors.bgp, bgp::Question::Peers).await?),
        Method::BgpRoutes => value(&ask(&doors.bgp, bgp::Question::Routes).await?),
        Method::RouteShow => value(&ask(&doors.routes, route::Command::Show).await?),
        Method::IpamShow => value(&ask(&doors.ipam, ipam::Request::Show).await?),
    }
}

async fn cni<T: Serialize>(
    doors: &Doors,
    job: impl FnOnce(oneshot::Sender<Result<T, manx_cni::Error>>) -> cni::Job,
) -> Result<Value, RpcError> {
    value(&ask(&doors.cni, job).await??)
}

async fn ask<M, T>(
    door: &mpsc::Sender<M>,
    question: impl FnOnce(oneshot::Sender<T>) -> M,
) -> Result<T, RpcError> {
    crate::ask::ask(door, question).await.map_err(gone)
}

fn gone(gone: Gone) -> RpcError {
    error(INTERNAL_ERROR, gone.to_string())
}

fn params<T: DeserializeOwned>(request: &Request) -> Result<T, RpcError> {
    T::deserialize(&request.params).map_err(|e| error(INVALID_PARAMS, format!("params: {e}")))
}

fn value(result: &impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(result).map_err(|e| error(INTERNAL_ERROR, e.to_string()))
}

fn error(code: i64, message: impl Into<String>) -> RpcError {
    RpcError {
        code,
        message: message.into(),
        data: None,
    }
}

fn failed(id: u64, code: i64, message: impl Into<String>) -> Response {
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
            let response = parse(line).unwrap_err();
            assert_eq!((response.id, response.error.unwrap().code), (id, code), "{line}");
        }
    }

    #[test]
    fn a_socket_has_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/manxd.sock");
        let first = Claim::new(&path).unwrap();
        let error = Claim::new(&path).unwrap_err().to_string();
        assert!(error.contains("another manxd serves"), "{error}");
        drop(first);
        Claim::new(&path).unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_an_earlier_life_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manxd.sock");
        drop(Claim::new(&path).unwrap().listen().unwrap());
        assert!(path.exists(), "a killed server leaves its socket");
        let claim = Claim::new(&path).unwrap();
        let _listener = claim.listen().unwrap();
        UnixStream::connect(&path).await.unwrap();
    }
}
