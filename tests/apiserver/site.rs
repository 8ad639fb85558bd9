//! The one server that all trials use, started by the first of them.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use kube::Client;
use libtest_mimic::Failed;
use manx_store::{KubeOptions, KubeStore};
use manx_tests::apiserver::ApiServer;
use tokio::runtime::Runtime;

use crate::definitions;

/// Where rules in a schema came to stay (CustomResourceValidationExpressions, on by default).
const RULES_SINCE: u32 = 25;

/// What a trial comes to.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A trial, to be run with the server.
pub(crate) type Test = fn(&Site) -> Result<(), Failed>;

/// The server, or why there is none, once a trial has needed it.
#[derive(Debug, Default)]
pub(crate) struct Site(Mutex<Option<Result<ApiServer, String>>>);

/// A trial's way to the server.
pub(crate) struct Visit {
    /// With the administrator's rights.
    pub(crate) client: Client,
    /// The same for other programs.
    pub(crate) kubeconfig: PathBuf,
}

impl Site {
    /// Runs a trial with the server, which is started and given our definitions first where it is not there yet.
    pub(crate) fn run(&self, trial: impl AsyncFnOnce(Visit) -> Outcome) -> Result<(), Failed> {
        let runtime = Runtime::new()?;
        let kubeconfig = {
            let mut server = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let started = server.get_or_insert_with(|| {
                let started = runtime.block_on(start());
                started.map_err(|error| error.to_string())
            });
            started.as_ref().map_err(String::clone)?.kubeconfig()
        };
        let outcome = runtime.block_on(async {
            let client = manx_tests::apiserver::client(&kubeconfig).await?;
            trial(Visit { client, kubeconfig }).await
        });
        Ok(outcome.map_err(|error| error.to_string())?)
    }
}

async fn start() -> Outcome<ApiServer> {
    let server = ApiServer::start().await?;
    definitions::install(manx_tests::apiserver::client(&server.kubeconfig()).await?).await?;
    Ok(server)
}

impl Visit {
    /// Whether the server goes by rules in schemas; says so where it does not.
    pub(crate) async fn knows_rules(&self) -> Outcome<bool> {
        let version = self.client.apiserver_version().await?;
        let minor: u32 = version.minor.trim_end_matches('+').parse()?;
        let knows = minor >= RULES_SINCE;
        if !knows {
            eprintln!(
                "this server, {}, does not know rules in schemas: it is older than what Manx needs",
                version.git_version
            );
        }
        Ok(knows)
    }

    /// The store on this server.
    pub(crate) async fn store(&self) -> Outcome<KubeStore> {
        let options = KubeOptions {
            kubeconfig: Some(self.kubeconfig.clone()),
            context: None,
        };
        Ok(KubeStore::connect(&options).await?)
    }
}
