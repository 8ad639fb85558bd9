//! A real kube-apiserver with an etcd of its own, as `envtest` starts them: on the loopback, without nodes or controllers.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::foreign::Process;

/// The variable that names the folder of the programs, by the convention of envtest.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// What has to be there. `kubectl` may be anywhere in the PATH instead.
const PROGRAMS: [&str; 2] = ["etcd", "kube-apiserver"];

/// How long it takes to start, on a machine that does much else.
const STARTED: Duration = Duration::from_secs(120);

/// Whoever shows this token is in the group `system:masters`.
const TOKEN: &str = "the-administrator-of-a-test";

/// What the server shows, for its address of the loopback; in its folder.
const CERTIFICATE: &str = "server.crt";

/// A running kube-apiserver; it ends, and its data goes, when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    server: Process,
    _etcd: Process,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// The programs' folder.
///
/// # Errors
/// What is missing, and where to get it.
pub fn assets() -> Result<PathBuf, String> {
    let how = "`setup-envtest use -p path` fetches kube-apiserver, etcd and kubectl, and prints the folder to name there";
    let Some(folder) = std::env::var_os(ASSETS).filter(|folder| !folder.is_empty()) else {
        return Err(format!("{ASSETS} is not set: {how}"));
    };
    let folder = PathBuf::from(folder);
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| !folder.join(name).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    Err(format!(
        "{} is not in {ASSETS}={}: {how}",
        missing.join(", "),
        folder.display()
    ))
}

impl ApiServer {
    /// Starts both programs and waits until the server says that it is ready.
    ///
    /// # Errors
    /// A program is missing or does not start, with the end of its log.
    pub async fn start() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let assets = assets()?;
        let folder = tempfile::tempdir()?;
        let [etcd, api] = [free_port()?, free_port()?];
        let place = |name: &str| folder.path().join(name);
        let etcd_url = format!("http://{etcd}");
        let etcd = Process::spawn(
            Command::new(assets.join("etcd")).args([
                &format!("--data-dir={}", place("etcd").display()),
                &format!("--listen-client-urls={etcd_url}"),
                &format!("--advertise-client-urls={etcd_url}"),
                "--listen-peer-urls=http://127.0.0.1:0",
                // The data goes with the test.
                "--unsafe-no-fsync",
            ]),
            &place("etcd.log"),
        );
        let mut command = Command::new(assets.join("kube-apiserver"));
        command.args(arguments(folder.path(), api, &etcd_url)?);
        let server = Process::spawn(&mut command, &place("kube-apiserver.log"));
        let mut server = Self {
            server,
            _etcd: etcd,
            address: api,
            folder,
        };
        server.ready().await?;
        Ok(server)
    }

    /// A kubeconfig of the administrator's; the file goes with the server.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig of whoever has this token, for whom the server is at this address of the loopback.
    #[must_use]
    pub fn configuration(&self, address: SocketAddr, token: &str) -> Value {
        configuration(address, &self.folder.path().join(CERTIFICATE), token)
    }

    async fn ready(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let client = client(&self.kubeconfig()).await?;
        let asked = Instant::now();
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) if asked.elapsed() > STARTED || self.server.has_ended() => {
                    let log = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
                    let (etcd, server) = (log("etcd.log"), log("kube-apiserver.log"));
                    return Err(format!(
                        "kube-apiserver is not ready after {:?}: {error}\n{}\n{}",
                        asked.elapsed(),
                        end(&etcd),
                        end(&server)
                    )
                    .into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// A client with the rights that a kubeconfig gives.
///
/// # Errors
/// Those of reading it, and of TLS.
pub async fn client(kubeconfig: &Path) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// The last lines of a log.
fn end(log: &str) -> &str {
    let start = log.rmatch_indices('\n').nth(20).map_or(0, |(at, _)| at);
    log.get(start..).unwrap_or_default()
}

/// A kubeconfig.
fn configuration(server: SocketAddr, certificate: &Path, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{server}"), "certificate-authority": certificate}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Writes what the server reads, and the kubeconfig; returns its command line.
fn arguments(
    folder: &Path,
    address: SocketAddr,
    etcd: &str,
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map(|()| path.display().to_string())
    };
    let own = rcgen::generate_simple_self_signed([address.ip().to_string()])?;
    let certificate = write(CERTIFICATE, &own.cert.pem())?;
    let key = write("server.key", &own.signing_key.serialize_pem())?;
    let tokens = write("tokens.csv", &format!("{TOKEN},admin,admin,system:masters\n"))?;
    let kubeconfig = configuration(address, Path::new(&certificate), TOKEN);
    write("kubeconfig", &kubeconfig.to_string())?;
    let port = address.port().to_string();
    let options = BTreeMap::from([
        ("advertise-address", "127.0.0.1"),
        ("allow-privileged", "true"),
        ("authorization-mode", "RBAC"),
        ("bind-address", "127.0.0.1"),
        // No controller makes the default service accounts that it would wait for.
        ("disable-admission-plugins", "ServiceAccount"),
        ("endpoint-reconciler-type", "none"),
        ("etcd-servers", etcd),
        ("secure-port", port.as_str()),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", certificate.as_str()),
        ("service-account-signing-key-file", key.as_str()),
        ("service-cluster-ip-range", "10.96.0.0/16"),
        ("tls-cert-file", certificate.as_str()),
        ("tls-private-key-file", key.as_str()),
        ("token-auth-file", tokens.as_str()),
    ]);
    Ok(options
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect())
}
