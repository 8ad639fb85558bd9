//! What the agent says of itself as a whole: gathered from its tasks at each question.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manx_api::status::NodeStatus;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ask::{Gone, ask};
use crate::identity::Identity;
use crate::peering;
use crate::ready::Readiness;
use crate::server::Doors;
use crate::view::View;
use crate::{bgp, ipam, route};

/// How long the speaker is waited for: there is none before the datastore has said what it is to be.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a status is made of, beside what tasks are asked for.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// What is waited for.
    pub readiness: Readiness,
    /// When the agent started.
    pub started: Instant,
    /// Where tombstones are.
    pub state_dir: PathBuf,
}

impl Sources {
    /// The agent's health.
    ///
    /// # Errors
    /// A task has ended.
    pub async fn node(&self, doors: &Doors) -> Result<NodeStatus, Gone> {
        let peers = timeout(PATIENCE, ask(&doors.bgp, bgp::Question::Peers)).await;
        let peers = peers.unwrap_or_else(|_| Ok(Vec::new()))?;
        let routes = ask(&doors.routes, route::Command::Count).await?;
        let blocks = ask(&doors.ipam, ipam::Request::Show).await?;
        let waiting_for = self.readiness.waiting_for();
        let established = peers.iter().filter(|peer| peer.state == "Established").count();
        let pods: std::collections::BTreeSet<_> = blocks
            .iter()
            .flat_map(|block| &block.allocations)
            .map(|held| &held.owner)
            .collect();
        Ok(NodeStatus {
            node: self.identity.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: waiting_for.is_empty(),
            waiting_for,
            asn: self.asn(),
            router_id: self.identity.router_id.into(),
            peers_established: count(established),
            peers_configured: count(peers.len()),
            routes_installed: count(routes.installed),
            routes_wanted: count(routes.wanted),
            pods: count(pods.len()),
        })
    }

    fn asn(&self) -> u32 {
        let view = self.view.borrow();
        let bgp = view
            .nodes
            .get(&self.identity.name)
            .and_then(|node| node.spec.bgp.as_ref());
        bgp.map_or(view.configuration.as_number, |bgp| peering::asn(&view, bgp))
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
