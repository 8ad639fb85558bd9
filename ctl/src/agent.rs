//! What agents say of themselves.

use manx_api::rpc::Method;
use manx_api::status::{BgpRoute, KernelRoute, NodeStatus, PeerStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{Ask, BgpRoutes, NodeStatus as NodeStatusArguments};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::output::{self, Format, Row};

/// `node status`: how each node is and, of a single one, its sessions.
pub(crate) fn node_status(cluster: &Cluster, arguments: &NodeStatusArguments) -> Result<(), Error> {
    let node = arguments.node.as_deref();
    let format = arguments.output.format;
    let (nodes, mut failures) = cluster.ask::<NodeStatus>(node, Method::NodeStatus)?;
    output::list(&nodes, format)?;
    if nodes.len() == 1 && matches!(format, Format::Table | Format::Wide) {
        let (peers, silent) = cluster.ask::<Vec<PeerStatus>>(node, Method::BgpPeers)?;
        output::line("")?;
        output::list(&peers.concat(), format)?;
        failures.extend(silent);
    }
    complain(failures)
}

/// `bgp peers`.
pub(crate) fn peers(cluster: &Cluster, arguments: &Ask) -> Result<(), Error> {
    show::<PeerStatus>(cluster, arguments, Method::BgpPeers, |_| true)
}

/// `bgp routes`.
pub(crate) fn routes(cluster: &Cluster, arguments: &BgpRoutes) -> Result<(), Error> {
    let wanted = |route: &BgpRoute| arguments.prefix.is_none_or(|prefix| prefix == route.prefix);
    show(cluster, &arguments.ask, Method::BgpRoutes, wanted)
}

/// `route show`.
pub(crate) fn kernel_routes(cluster: &Cluster, arguments: &Ask) -> Result<(), Error> {
    show::<KernelRoute>(cluster, arguments, Method::RouteShow, |_| true)
}

fn show<T: Row + Serialize + DeserializeOwned>(
    cluster: &Cluster,
    arguments: &Ask,
    method: Method,
    wanted: impl Fn(&T) -> bool,
) -> Result<(), Error> {
    let (answers, failures) = cluster.ask::<Vec<T>>(arguments.node.as_deref(), method)?;
    let rows: Vec<T> = answers.into_iter().flatten().filter(wanted).collect();
    output::list(&rows, arguments.output.format)?;
    complain(failures)
}

/// What some nodes said has been shown; that others said nothing is still a failure.
fn complain(failures: Vec<String>) -> Result<(), Error> {
    if failures.is_empty() { Ok(()) } else { Err(Error::Agents(failures)) }
}
