//! An agent's socket, with whatever behind it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use manx_api::rpc::{Request, RpcError};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the agent does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers.
    Result(Value),
    /// Refuses.
    Error(RpcError),
    /// Says this, and closes.
    Raw(&'static [u8]),
    /// Says a byte every now and then, and never a line.
    Drip,
}

/// A state directory, and in it perhaps a socket with an agent.
pub(crate) struct Agent {
    directory: TempDir,
    requests: Option<Receiver<Request>>,
}

impl Agent {
    /// Nobody, and no socket.
    pub(crate) fn absent() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            requests: None,
        }
    }

    /// An agent that served before and is gone: the socket is there, and nobody listens.
    pub(crate) fn gone() -> Self {
        let agent = Self::absent();
        drop(UnixListener::bind(agent.socket()).unwrap());
        agent
    }

    /// An agent that answers every request so.
    pub(crate) fn answering(reply: Reply) -> Self {
        let mut agent = Self::absent();
        let listener = UnixListener::bind(agent.socket()).unwrap();
        let (seen, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let request: Request = serde_json::from_str(&line).unwrap();
                let id = request.id;
                seen.send(request).ok();
                serve(stream, &reply, id);
            }
        });
        agent.requests = Some(requests);
        agent
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("manxd.sock")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A configuration that leads to this agent, with more fields.
    pub(crate) fn config(&self, version: &str, more: Value) -> String {
        let mut config = json!({
            "cniVersion": version,
            "name": "pods",
            "type": "manx",
            "socket": self.socket(),
            "stateDir": self.state_dir(),
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config.to_string()
    }

    /// The request that came; there has to be one.
    pub(crate) fn request(&self) -> Request {
        self.requests
            .as_ref()
            .unwrap()
            .recv_timeout(Duration::from_secs(10))
            .unwrap()
    }
}

fn serve(mut stream: UnixStream, reply: &Reply, id: u64) {
    let line = match reply {
        Reply::Result(result) => format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "result": result})),
        Reply::Error(error) => format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "error": error})),
        Reply::Raw(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Drip => {
            // Until the plugin has hung up.
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
            return;
        }
    };
    // The plugin may have left already.
    stream.write_all(line.as_bytes()).ok();
}
