//! What `manx-bgpd` answers on its control socket.

use std::net::Ipv4Addr;

use manx_api::rpc::{Method, Request, RpcError};
use manx_api::status::{ExplainCall, Reload};
use manx_bgp::Prefix;
use manx_bgpd::control::{Answer, INTERNAL_ERROR, METHOD_NOT_FOUND, error, params, value};
use manx_bgpd::operate::{Operation, operate};
use manx_bgpd::reload::FileError;
use manx_bgpd::{Handle, show};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// What sessions are said to come from.
const ORIGIN: &str = "configuration";

/// Somebody waits for the configuration to be read again.
pub(crate) type Reloading = oneshot::Sender<Result<Reload, FileError>>;

/// Answers of this process.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The machine's name.
    pub(crate) node: String,
    /// Our BGP identifier.
    pub(crate) router_id: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) handle: Handle,
    /// Whoever holds the configuration.
    pub(crate) reload: mpsc::Sender<Reloading>,
}

impl Answer for Answers {
    async fn answer(&self, request: Request) -> Result<Value, RpcError> {
        match request.method {
            Method::BgpPeers => value(&show::peers(&self.handle, &self.node, |_, _| ORIGIN).await),
            Method::BgpRoutes => value(&show::paths(&self.handle, &self.node).await),
            Method::BgpExplain => {
                let ExplainCall { prefix } = params(&request)?;
                value(&show::explain(&self.handle, &self.node, Prefix::new(prefix)).await)
            }
            Method::BgpDump => value(&show::dump(&self.handle, self.router_id, self.asn).await),
            Method::BgpDrain => self.operate(Operation::Drain(params(&request)?)).await,
            Method::BgpUndrain => self.operate(Operation::Undrain(params(&request)?)).await,
            Method::BgpReset => self.operate(Operation::Reset(params(&request)?)).await,
            Method::BgpReload => self.reload().await,
            Method::CniAdd
            | Method::CniDel
            | Method::CniCheck
            | Method::CniStatus
            | Method::CniGc
            | Method::NodeStatus
            | Method::RouteShow
            | Method::IpamShow
            | Method::IpamCheck
            | Method::PolicyExplain
            | Method::PolicyDenies
            | Method::PolicyStaged
            | Method::PolicyWhatIf
            | Method::ServiceExplain => Err(error(
                METHOD_NOT_FOUND,
                "this is manx-bgpd, which does BGP only: name the socket of manxd with --socket",
            )),
        }
    }
}

impl Answers {
    async fn operate(&self, operation: Operation) -> Result<Value, RpcError> {
        value(&operate(&self.handle, operation).await?)
    }

    async fn reload(&self) -> Result<Value, RpcError> {
        let (reply, answer) = oneshot::channel();
        // Nobody holds it any more once the process ends.
        let gone = |_| error(INTERNAL_ERROR, "manx-bgpd is shutting down");
        self.reload.send(reply).await.map_err(|_| gone(()))?;
        let done = answer.await.map_err(|_| gone(()))?;
        value(&done.map_err(|wrong| error(INTERNAL_ERROR, wrong.to_string()))?)
    }
}
