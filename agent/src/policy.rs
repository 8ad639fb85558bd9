//! The policy task: owner of the node's rules and sets in the kernel. Today they are those of NAT outgoing.
//!
//! Pools come from the view, [`Rules`] makes the kernel follow, and [`InForce`] tells the cni task how far it has
//! come: an ADD whose pool is masqueraded is answered when it is, so that a pod's first packet leaves with the
//! node's address. Pools change rarely; every other ADD finds them in force and waits for nothing, and no ADD or
//! DEL changes a rule.
//!
//! What others do to our rules is looked for at intervals, when nftables tells of it, and at a CHECK, and mended. Nothing is taken away when the agent ends or
//! the task panics; the next life reads what is there. As long as the datastore has not said which pools there
//! are, nothing is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use manx_api::ipam::pool_of;
use manx_linux::{Backend, Netns, Rules};
use manx_policy::{Engine, Update};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::ask::{Gone, answer, ask};
use crate::convert;
use crate::metrics::Metrics;
use crate::ready::Guard;
use crate::view::View;
use crate::watch::pauses;

/// How long an ADD waits for its pool's rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long whoever changes our rules is given to finish.
const SETTLE: Duration = Duration::from_millis(500);

/// What the kernel does, as far as it was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The pools whose pods' packets to the outside are masqueraded.
    pub masqueraded: BTreeSet<IpNetwork>,
    /// Why the rest is not, where it was tried.
    pub refusal: Option<String>,
}

/// A request to look at the kernel now; answered when it is as wanted, or with why it is not.
#[derive(Debug)]
pub struct Look(oneshot::Sender<Result<(), String>>);

/// Whose pauses the task takes: it shares the kernel with nobody, so any will do.
const RETRIES: &str = "policy";

/// What the task works with.
#[derive(Debug)]
pub struct Inbox {
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Where the rules go.
    pub netns: Netns,
    /// The back end of iptables that the user chose.
    pub backend: Option<Backend>,
    /// How often what others did to our rules is looked for.
    pub refresh: Duration,
    /// Requests.
    pub looks: mpsc::Receiver<Look>,
    /// How far the kernel has come.
    pub in_force: watch::Sender<InForce>,
    /// What is counted.
    pub metrics: Metrics,
    /// Done when the first view's rules are in the kernel.
    pub programmed: Option<Guard>,
}

/// Runs until nobody can change the view or ask any more.
pub async fn run(inbox: &mut Inbox) {
    let mut rules = Rules::start_in(&inbox.netns, inbox.backend);
    let mut retries = pauses(RETRIES);
    // Whether the kernel was as wanted when we last saw it, when to look again, and who waits for that.
    let (mut right, mut due, mut waiting) = (false, Instant::now(), Vec::new());
    loop {
        let view = inbox.view.borrow_and_update().clone();
        let late = due <= Instant::now();
        let news = news(rules.engine(), &view);
        if view.complete && (late || !news.is_empty()) {
            let outcome = follow(inbox, &mut rules, news, late && right).await;
            right = outcome.is_ok();
            let pause = if right {
                retries = pauses(RETRIES);
                inbox.refresh
            } else {
                retries.next().unwrap_or(inbox.refresh)
            };
            due = Instant::now() + pause;
            if late {
                for Look(reply) in waiting.drain(..) {
                    answer(reply, outcome.clone());
                }
            }
        }
        tokio::select! {
            changed = inbox.view.changed() => if changed.is_err() {
                return;
            },
            look = inbox.looks.recv() => match look {
                Some(look) => {
                    waiting.push(look);
                    due = Instant::now();
                }
                None => return,
            },
            () = sleep_until(due), if view.complete => {}
            // What is refused is tried again at its own pace.
            () = rules.disturbed(), if right => due = due.min(Instant::now() + SETTLE),
        }
    }
}

/// Makes the kernel follow the news, looks for what others did to our rules where that is due, and tells how far
/// it came; returns why not all is as wanted, if so.
async fn follow(inbox: &mut Inbox, rules: &mut Rules, news: Vec<Update>, look: bool) -> Result<(), String> {
    let begun = Instant::now();
    let mut outcome = rules.apply(news).await;
    if look && outcome.is_ok() {
        outcome = rules.check().await;
        if let Ok(repairs @ 1..) = outcome {
            tracing::warn!(repairs, "somebody changed our rules; they are as wanted again");
            inbox.metrics.rule_repairs.inc_by(repairs as u64);
        }
    }
    inbox.metrics.rules_commit.observe(begun.elapsed().as_secs_f64());
    match outcome {
        Ok(changes) => {
            if changes > 0 {
                tracing::info!(changes, backend = ?rules.backend(), "rules are as wanted");
            }
            let pools = rules.engine().pools().values();
            let masqueraded = pools
                .filter(|pool| pool.nat_outgoing)
                .map(|pool| pool.cidr)
                .collect();
            inbox.in_force.send_replace(InForce {
                masqueraded,
                refusal: None,
            });
            if let Some(guard) = inbox.programmed.take() {
                guard.done();
            }
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "rules are not as wanted; trying again");
            inbox.metrics.rule_errors.inc();
            let refusal = error.to_string();
            inbox
                .in_force
                .send_modify(|in_force| in_force.refusal = Some(refusal.clone()));
            Err(refusal)
        }
    }
}

/// What the view says of pools that the engine does not know.
fn news(engine: &Engine, view: &View) -> Vec<Update> {
    let known = engine.pools();
    let gone = known.keys().filter(|name| !view.pools.contains_key(*name));
    let gone = gone.map(|name| Update::RemovePool { name: name.clone() });
    let pools = view
        .pools
        .iter()
        .map(|(name, pool)| (name, convert::policy_pool(pool)));
    let set = pools
        .filter(|(name, pool)| known.get(*name) != Some(pool))
        .map(|(name, pool)| Update::SetPool {
            name: name.clone(),
            pool,
        });
    gone.chain(set).collect()
}

/// Where an ADD waits until its addresses' rules are in force, and a CHECK has them looked at.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// How far the kernel has come.
    pub in_force: watch::Receiver<InForce>,
    /// Requests to the task.
    pub looks: mpsc::Sender<Look>,
}

/// An address's packets would not be masqueraded as its pool wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("IPPool {pool} has natOutgoing, and the rules for it are not in the kernel yet: {reason}")]
pub struct NotInForce {
    /// The address's pool.
    pub pool: String,
    /// What the kernel's programs said, or that nothing was heard of them.
    pub reason: String,
}

impl Gate {
    /// Waits until packets from these addresses are treated as their pools want it; most often that is now.
    ///
    /// # Errors
    /// It does not come to be in time.
    pub async fn pass(&self, addresses: &[IpAddr]) -> Result<(), NotInForce> {
        let pools = self.masqueraded(addresses);
        let Some((pool, _)) = pools.first_key_value() else {
            return Ok(());
        };
        let mut in_force = self.in_force.clone();
        let arrived = in_force.wait_for(|now| pools.values().all(|cidr| now.masqueraded.contains(cidr)));
        if matches!(timeout(PATIENCE, arrived).await, Ok(Ok(_))) {
            return Ok(());
        }
        let refusal = self.in_force.borrow().refusal.clone();
        Err(NotInForce::new(pool, refusal))
    }

    /// Has the kernel looked at, and mended, if these addresses' pools need any rules.
    ///
    /// # Errors
    /// The rules are not there and cannot be written, or nothing is heard of them in time.
    pub async fn check(&self, addresses: &[IpAddr]) -> Result<(), NotInForce> {
        let pools = self.masqueraded(addresses);
        let Some((pool, _)) = pools.first_key_value() else {
            return Ok(());
        };
        match timeout(PATIENCE, ask(&self.looks, Look)).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refusal))) => Err(NotInForce::new(pool, Some(refusal))),
            Ok(Err(Gone)) | Err(_) => Err(NotInForce::new(pool, None)),
        }
    }

    /// The pools of these addresses that want NAT outgoing, by name.
    fn masqueraded(&self, addresses: &[IpAddr]) -> BTreeMap<String, IpNetwork> {
        let view = self.view.borrow();
        let pools = addresses
            .iter()
            .filter_map(|address| pool_of((*address).into(), view.pools.values()));
        pools
            .filter(|pool| pool.spec.nat_outgoing)
            .map(|pool| (pool.metadata.name.clone(), pool.spec.cidr))
            .collect()
    }
}

impl NotInForce {
    fn new(pool: &str, refusal: Option<String>) -> Self {
        Self {
            pool: pool.to_owned(),
            reason: refusal.unwrap_or_else(|| "nothing was heard of them".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use manx_api::ipam::{IpPool, IpPoolSpec};

    use super::*;

    fn view(pools: &[(&str, &str, bool)]) -> Arc<View> {
        let mut view = View {
            complete: true,
            ..View::default()
        };
        for (name, cidr, nat_outgoing) in pools {
            let spec = serde_json::json!({"cidr": cidr, "natOutgoing": nat_outgoing});
            let pool = IpPool {
                metadata: serde_json::from_value(serde_json::json!({"name": name})).unwrap(),
                spec: serde_json::from_value::<IpPoolSpec>(spec).unwrap(),
            };
            view.pools.insert((*name).to_owned(), pool);
        }
        Arc::new(view)
    }

    fn gate(view: Arc<View>) -> (watch::Sender<InForce>, Gate) {
        let (sender, in_force) = watch::channel(InForce::default());
        let (_, view) = watch::channel(view);
        let (looks, _) = mpsc::channel(1);
        (
            sender,
            Gate {
                view,
                in_force,
                looks,
            },
        )
    }

    #[tokio::test(start_paused = true)]
    async fn an_add_waits_for_its_own_pools_rules_and_no_others() {
        let pools = [
            ("plain", "10.1.0.0/16", false),
            ("nat", "10.2.0.0/16", true),
            ("part", "10.2.3.0/24", false),
        ];
        let (sender, gate) = gate(view(&pools));
        let [plain, part, hidden] =
            ["10.1.0.1", "10.2.3.1", "10.2.0.1"].map(|address| address.parse().unwrap());
        let begun = Instant::now();
        assert_eq!(
            gate.pass(&[plain, part, "192.0.2.1".parse().unwrap()]).await,
            Ok(())
        );
        assert_eq!(begun.elapsed(), Duration::ZERO);

        sender.send_modify(|now| now.refusal = Some("no iptables".to_owned()));
        let refused = gate.pass(&[plain, hidden]).await.unwrap_err();
        assert_eq!(
            (refused.pool.as_str(), refused.reason.as_str()),
            ("nat", "no iptables")
        );
        assert_eq!(begun.elapsed(), PATIENCE);

        let addresses = [hidden];
        let (waiting, ()) = tokio::join!(gate.pass(&addresses), async {
            sender.send_replace(InForce {
                masqueraded: ["10.2.0.0/16".parse().unwrap()].into(),
                refusal: None,
            });
        });
        assert_eq!(waiting, Ok(()));
        assert_eq!(begun.elapsed(), PATIENCE);
        assert_eq!(gate.check(&[plain]).await, Ok(()), "needs no look");
        assert_eq!(
            gate.check(&[hidden]).await.unwrap_err().pool,
            "nat",
            "nobody is there to look"
        );
    }

    #[test]
    fn news_are_pools_that_came_changed_or_went() {
        let mut engine = Engine::new();
        let before = view(&[
            ("a", "10.1.0.0/16", false),
            ("b", "10.2.0.0/16", true),
            ("c", "10.3.0.0/16", false),
        ]);
        assert_eq!(news(&engine, &before).len(), 3);
        engine.apply(news(&engine, &before));
        assert_eq!(news(&engine, &before), []);
        let after = view(&[("b", "10.2.0.0/16", false), ("c", "10.3.0.0/16", false)]);
        let told = news(&engine, &after);
        assert!(
            matches!(
                &told[..],
                [Update::RemovePool { name: gone }, Update::SetPool { name: changed, .. }]
                    if gone == "a" && changed == "b"
            ),
            "{told:?}"
        );
    }
}
