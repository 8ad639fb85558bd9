//! The control socket: what is asked, and which task answers ([`manx_api::rpc`], [`manx_bgpd::control`]).

use manx_api::announcement::ServiceExplainCall;
use manx_api::denied::DeniesCall;
use manx_api::explanation::PolicyExplainCall;
use manx_api::report::NodeReport;
use manx_api::rpc::{Method, Request, RpcError};
use manx_api::status::ExplainCall;
use manx_api::what_if::WhatIfCall;
use manx_api::{Problem, Resource, validate};
use manx_bgpd::control::{Answer, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, error, params, value};
use manx_bgpd::operate::Operation;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::ask::Gone;
use crate::status::Sources;
use crate::{announcing, bgp, cni, denies, ipam, policy, route};

/// What `bgp.reload` is answered, which is for speakers by themselves.
const NOTHING_TO_RELOAD: &str = "manxd follows the datastore by itself: there is nothing to read again";

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
    /// `service.…`.
    pub services: mpsc::Sender<announcing::Question>,
    /// `policy.…`.
    pub policy: mpsc::Sender<policy::Request>,
    /// `policy.denies`.
    pub denies: mpsc::Sender<denies::Request>,
    /// `node.…`.
    pub status: Sources,
}

impl Answer for Doors {
    async fn answer(&self, request: Request) -> Result<Value, RpcError> {
        dispatch(&request, self).await
    }
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
        Method::CniGc => collect(doors, params(request)?).await,
        Method::CniStatus => {
            let blocks = ask(&doors.ipam, ipam::Request::Show).await?;
            cni::available(&doors.status.readiness.waiting_for(), &blocks).map(|()| Value::Null)
        }
        Method::NodeStatus => value(&doors.status.node(doors).await.map_err(gone)?),
        Method::BgpPeers => value(&ask(&doors.bgp, bgp::Question::Peers).await?),
        Method::BgpRoutes => value(&ask(&doors.bgp, bgp::Question::Routes).await?),
        Method::BgpExplain => {
            let ExplainCall { prefix } = params(request)?;
            let question = |reply| bgp::Question::Explain(prefix, reply);
            value(&ask(&doors.bgp, question).await?)
        }
        Method::BgpDump => value(&ask(&doors.bgp, bgp::Question::Dump).await?),
        Method::BgpDrain => operate(doors, Operation::Drain(params(request)?)).await,
        Method::BgpUndrain => operate(doors, Operation::Undrain(params(request)?)).await,
        Method::BgpReset => operate(doors, Operation::Reset(params(request)?)).await,
        Method::BgpReload => Err(error(METHOD_NOT_FOUND, NOTHING_TO_RELOAD)),
        Method::RouteShow => value(&ask(&doors.routes, route::Command::Show).await?),
        Method::IpamShow => value(&ask(&doors.ipam, ipam::Request::Show).await?),
        Method::ServiceExplain => {
            let call: ServiceExplainCall = params(request)?;
            value(&ask(&doors.services, |reply| (call, reply)).await?)
        }
        Method::PolicyExplain => explain(doors, params(request)?).await,
        Method::PolicyDenies => denied(doors, params(request)?).await,
        Method::PolicyStaged => staged(doors).await,
        Method::PolicyWhatIf => what_if(doors, params(request)?).await,
        Method::IpamCheck => value(&report(doors).await?),
    }
}

async fn collect(doors: &Doors, config: manx_cni::NetConf) -> Result<Value, RpcError> {
    cni(doors, |reply| cni::Job::Collect {
        network: config.name,
        valid: config.valid_attachments.unwrap_or_default(),
        reply,
    })
    .await
}

async fn explain(doors: &Doors, call: PolicyExplainCall) -> Result<Value, RpcError> {
    let question = |reply| policy::Request::Explain(Box::new(call), reply);
    let found = ask(&doors.policy, question).await?;
    value(&found.map_err(|problem| error(INVALID_PARAMS, problem.to_string()))?)
}

/// Compares what is with what would be, beside all tasks: it may take a while.
async fn what_if(doors: &Doors, call: WhatIfCall) -> Result<Value, RpcError> {
    let problems = call.put.iter().flat_map(refused);
    let problems: Vec<String> = problems.collect();
    if !problems.is_empty() {
        return Err(error(INVALID_PARAMS, problems.join("; ")));
    }
    let question = |reply| policy::Request::Suppose(Box::new(call), reply);
    let supposition = ask(&doors.policy, question).await?;
    let found = tokio::task::spawn_blocking(move || supposition.compare()).await;
    value(&found.map_err(|panic| error(INTERNAL_ERROR, panic.to_string()))?)
}

/// What keeps a resource from being written.
fn refused(resource: &Resource) -> Vec<String> {
    let told = |problem: &Problem| format!("{}: {problem}", resource.key());
    validate(resource).iter().map(told).collect()
}

async fn denied(doors: &Doors, call: DeniesCall) -> Result<Value, RpcError> {
    let question = |reply| denies::Request { call, reply };
    let found = ask(&doors.denies, question).await?;
    value(&found.map_err(|reason| error(INTERNAL_ERROR, reason))?)
}

async fn staged(doors: &Doors) -> Result<Value, RpcError> {
    let counts = ask(&doors.policy, policy::Request::Staged).await?;
    value(&counts.map_err(|reason| error(INTERNAL_ERROR, reason))?)
}

async fn report(doors: &Doors) -> Result<NodeReport, RpcError> {
    // Whoever compares reads the datastore after this.
    if doors.ipam.send(ipam::Request::Checkpoint).await.is_err() {
        tracing::debug!("the ipam task has ended");
    }
    let blocks = ask(&doors.ipam, ipam::Request::Show).await?;
    let Sources {
        identity, state_dir, ..
    } = doors.status.clone();
    let gathered =
        tokio::task::spawn_blocking(move || crate::report::gather(&identity.name, blocks, &state_dir)).await;
    match gathered {
        Ok(report) => report.map_err(|reason| error(INTERNAL_ERROR, reason.to_string())),
        Err(panic) => Err(error(INTERNAL_ERROR, panic.to_string())),
    }
}

async fn operate(doors: &Doors, operation: Operation) -> Result<Value, RpcError> {
    let question = |reply| bgp::Question::Operate(operation, reply);
    value(&ask(&doors.bgp, question).await??)
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
