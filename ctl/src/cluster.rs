//! Where a cluster's datastore and control sockets are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manx_api::rpc::{Method, Request, Response};
use manx_lab::layout::{self, Layout};
use manx_lab::options::Name;
use manx_store::SqliteStore;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::Location;
use crate::error::Error;

const STORE: &str = "/var/lib/manx/store.db";
const SOCKET: &str = "/run/manx/manxd.sock";

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a cluster's datastore and control sockets are.
#[derive(Debug)]
pub(crate) enum Cluster {
    /// This machine's node.
    Machine {
        /// The datastore's file.
        store: PathBuf,
        /// The agent's socket.
        socket: PathBuf,
    },
    /// A lab's nodes.
    Lab(Layout),
}

impl Cluster {
    pub(crate) fn new(location: Location) -> Result<Self, Error> {
        let Some(name) = location.lab else {
            return Ok(Self::Machine {
                store: location.store.unwrap_or_else(|| STORE.into()),
                socket: location.socket.unwrap_or_else(|| SOCKET.into()),
            });
        };
        let name: Name = name.parse().map_err(|error| Error::Lab(format!("{error}")))?;
        Ok(Self::Lab(Layout::new(Path::new(layout::BASE), &name)))
    }

    /// Opens the datastore. One that does not exist is not made.
    pub(crate) async fn store(&self) -> Result<SqliteStore, Error> {
        let path = self.store_path();
        if !path.exists() {
            return Err(Error::NoStore(path));
        }
        SqliteStore::open(&path).await.map_err(|source| Error::Store { path, source })
    }

    /// The datastore's file.
    pub(crate) fn store_path(&self) -> PathBuf {
        match self {
            Self::Machine { store, .. } => store.clone(),
            Self::Lab(layout) => layout.store(),
        }
    }

    /// Asks the agent of `node`, or every agent; answers come in order of the nodes' names. What failed is
    /// told beside what did not.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        node: Option<&str>,
        method: Method,
    ) -> Result<(Vec<T>, Vec<String>), Error> {
        let mut answers = Vec::new();
        let mut failures = Vec::new();
        for (name, socket) in self.agents(node)? {
            match call(&socket, method) {
                Ok(answer) => answers.push(answer),
                Err(reason) => failures.push(format!("{name}: {reason}")),
            }
        }
        Ok((answers, failures))
    }

    /// The nodes and their sockets.
    fn agents(&self, node: Option<&str>) -> Result<Vec<(String, PathBuf)>, Error> {
        let layout = match self {
            Self::Machine { socket, .. } => return Ok(vec![(socket.display().to_string(), socket.clone())]),
            Self::Lab(layout) => layout,
        };
        let root = layout.root();
        let folders = std::fs::read_dir(root).map_err(|_| {
            Error::Lab(format!("there is no lab in {}; `manxctl lab up` makes one", root.display()))
        })?;
        let names = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut known: Vec<String> = names.filter(|name| layout.cni_conf_dir(name).exists()).collect();
        known.sort();
        match node {
            None => Ok(known.into_iter().map(|name| (name.clone(), layout.socket(&name))).collect()),
            Some(name) if known.iter().any(|other| other == name) => {
                Ok(vec![(name.to_owned(), layout.socket(name))])
            }
            Some(name) => Err(Error::UnknownNode { name: name.to_owned(), known }),
        }
    }
}

/// Calls a method of an agent; the error is a sentence.
fn call<T: DeserializeOwned>(socket: &Path, method: Method) -> Result<T, String> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        format!("no agent answers at {}: {error}; is manxd running?", socket.display())
    })?;
    let answer = exchange(&stream, method).map_err(|error| format!("{}: {error}", socket.display()))?;
    match (answer.error, answer.result) {
        (Some(error), _) => Err(error.to_string()),
        (None, result) => serde_json::from_value(result.unwrap_or(Value::Null))
            .map_err(|error| format!("cannot read the agent's answer: {error}; are manxctl and manxd of one version?")),
    }
}

fn exchange(stream: &UnixStream, method: Method) -> std::io::Result<Response> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = Request { jsonrpc: "2.0".to_owned(), id: 1, method, params: Value::Null };
    let mut writer = stream;
    writeln!(writer, "{}", serde_json::to_string(&request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
