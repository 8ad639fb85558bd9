//! A client of the Container Runtime Interface, as far as these tests need it: gRPC over HTTP/2 on a Unix socket,
//! one connection per call.
//!
//! The messages have the fields that are used here, with their numbers in `runtime.v1`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// How long a call may take; a container's start is the longest.
const LIMIT: Duration = Duration::from_secs(60);

/// Octets before a message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// A pod, as a kubelet describes it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) port_mappings: Vec<PortMapping>,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) annotations: HashMap<String, String>,
}

/// What a pod is called.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

/// A port of the node's that is a pod's; the protocol 0 is TCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub(crate) struct PortMapping {
    #[prost(int32, tag = "1")]
    pub(crate) protocol: i32,
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<PodSandboxConfig>,
}

/// A sandbox, in requests and answers that say no more.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct SandboxId {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// A container, in requests and answers that say no more.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ContainerId {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// A request or an answer of which nothing matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub(crate) struct Nothing {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<SandboxId>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    pub(crate) network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    pub(crate) ip: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct PodIp {
    #[prost(string, tag = "1")]
    pub(crate) ip: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(crate) image: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pub(crate) pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pub(crate) sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    pub(crate) image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) command: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) command: Vec<String>,
    /// In seconds.
    #[prost(int64, tag = "3")]
    pub(crate) timeout: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(crate) struct ExecSyncResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) stdout: Vec<u8>,
}

/// Why a call has no answer, in words.
pub(crate) type Complaint = String;

/// A runtime's socket.
pub(crate) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            socket: socket.to_owned(),
            runtime: runtime.unwrap(),
        }
    }

    /// Calls a method of the runtime.
    pub(crate) fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Complaint> {
        self.call_service("RuntimeService", method, request)
    }

    /// Calls a method of a service.
    pub(crate) fn call_service<A: Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Complaint> {
        let uri = format!("http://localhost/runtime.v1.{service}/{method}");
        let answer = async { tokio::time::timeout(LIMIT, self.exchange(&uri, request)).await };
        let answer = self.runtime.block_on(answer);
        let answer = answer.map_err(|_| format!("{method}: no answer in {LIMIT:?}"))??;
        A::decode(answer).map_err(|error| format!("{method}: {error}"))
    }

    /// Sends a request and takes the answer's one message.
    async fn exchange(&self, uri: &str, request: &impl Message) -> Result<Bytes, Complaint> {
        let words = |error: &dyn std::error::Error| format!("{uri}: {error}");
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| words(&error))?;
        let (sender, connection) = h2::client::handshake(stream)
            .await
            .map_err(|error| words(&error))?;
        let driver = tokio::spawn(connection);
        let head = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| words(&error))?;
        let mut sender = sender.ready().await.map_err(|error| words(&error))?;
        let (response, mut stream) = sender.send_request(head, false).map_err(|error| words(&error))?;
        stream
            .send_data(frame(request), true)
            .map_err(|error| words(&error))?;
        let response = response.await.map_err(|error| words(&error))?;
        refused(response.headers())?;
        let mut body = response.into_body();
        let mut received = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(|error| words(&error))?;
            body.flow_control()
                .release_capacity(chunk.len())
                .map_err(|error| words(&error))?;
            received.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await.map_err(|error| words(&error))?;
        refused(&trailers.unwrap_or_default())?;
        driver.abort();
        if received.len() < FRAME_HEAD {
            return Err(format!("{uri}: no message"));
        }
        received.advance(FRAME_HEAD);
        Ok(received.freeze())
    }
}

/// A message with its length.
fn frame(message: &impl Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + encoded.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(encoded.len()).unwrap());
    frame.extend_from_slice(&encoded);
    frame.freeze()
}

/// The server's refusal, if the headers or trailers hold one.
fn refused(headers: &HeaderMap) -> Result<(), Complaint> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => Err(format!(
            "status {status}: {}",
            text("grpc-message").unwrap_or_default()
        )),
    }
}
