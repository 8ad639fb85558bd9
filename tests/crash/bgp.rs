//! BGP as agents ask for it: which blocks the other nodes announce.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use manx_agent::bgp::Question;
use manx_agent::ipam::Owned;
use manx_api::status::{BgpRoute, PeerStatus};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// Where nodes announce their blocks. Clones share it.
///
/// A node is heard whether its agent lives or not, as its peers keep its routes, until it leaves the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Air(Arc<Mutex<BTreeMap<String, watch::Receiver<Arc<Owned>>>>>);

impl Air {
    /// A node announces these from now on.
    pub(crate) fn announce(&self, node: &str, owned: watch::Receiver<Arc<Owned>>) {
        self.0.lock().unwrap().insert(node.to_owned(), owned);
    }

    /// A node is heard no more.
    pub(crate) fn silence(&self, node: &str) {
        self.0.lock().unwrap().remove(node);
    }

    /// Answers a node's agent.
    pub(crate) async fn serve(self, node: String, mut questions: mpsc::Receiver<Question>) {
        while let Some(question) = questions.recv().await {
            // Nobody may wait for the answer any more.
            match question {
                Question::Peers(reply) => drop(reply.send(self.peers(&node))),
                Question::Routes(reply) => drop(reply.send(self.routes(&node))),
                question @ (Question::Explain(..)
                | Question::Dump(_)
                | Question::Operate(..)
                | Question::Shutdown(_)) => panic!("nobody asks the model of BGP {question:?}"),
            }
        }
    }

    fn peers(&self, node: &str) -> Vec<PeerStatus> {
        let peers = self.0.lock().unwrap();
        let peer = json!({
            "node": node, "address": "192.0.2.1", "asn": 64512, "state": "Established", "uptimeSeconds": 1,
            "received": 0, "accepted": 0, "advertised": 0, "origin": "mesh", "holdTime": 90,
        });
        let peers = peers.keys().filter(|peer| *peer != node).map(|_| peer.clone());
        serde_json::from_value(Value::Array(peers.collect())).unwrap()
    }

    fn routes(&self, node: &str) -> Vec<BgpRoute> {
        let peers = self.0.lock().unwrap();
        let of_others = peers.iter().filter(|(peer, _)| *peer != node);
        let prefixes = of_others.flat_map(|(_, owned)| owned.borrow().blocks.clone());
        let routes = prefixes.map(|prefix| {
            json!({
                "node": node, "prefix": prefix, "peer": "192.0.2.1", "best": true, "asPath": "", "origin": "IGP",
            })
        });
        serde_json::from_value(Value::Array(routes.collect())).unwrap()
    }
}
