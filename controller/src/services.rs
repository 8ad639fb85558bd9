//! The services task: keeps the status of load balancers' services equal to what [`decide`] says, and tells of what it
//! cannot do.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;

use manx_api::policy::NamespacedName;
use manx_api::service::Service;
use manx_api::{Key, Kind, Resource};
use manx_store::{Cluster, Error, Happening, Store, Subject};

use crate::addresses::{Decision, Known, decide};
use crate::mirror::Mirror;

/// The kinds that decide.
const KINDS: [Kind; 3] = [Kind::Service, Kind::IpPool, Kind::IpReservation];

/// What has been told of services, so that the same is told once.
type Told = BTreeMap<NamespacedName, String>;

/// Runs until the watch ends, or what was read is not what is stored: a write that was refused, or may have been done.
pub(crate) async fn run<S: Store>(store: &S, cluster: &Cluster, me: &str) -> Result<Infallible, Error> {
    let mut mirror = Mirror::of(store, &KINDS).await?;
    let mut told = Told::new();
    loop {
        let decisions = decide(&known(&mirror));
        carry_out(cluster, &decisions, &mut mirror).await?;
        for happening in news(&decisions, &mirror, &mut told) {
            tracing::warn!(subject = ?happening.subject, message = happening.message, "a service lacks an address");
            if let Err(error) = cluster.record(me, &happening).await {
                tracing::warn!(%error, "an event cannot be recorded");
            }
        }
        mirror.changed().await?;
    }
}

fn known(mirror: &Mirror) -> Known<'_> {
    let mut known = Known::default();
    for resource in mirror.all() {
        if let Resource::Service(service) = resource {
            known.services.push(service);
        } else if let Resource::IpPool(pool) = resource {
            known.pools.push(pool);
        } else if let Resource::IpReservation(reservation) = resource {
            known.reservations.push(reservation);
        }
    }
    known
}

fn name(service: &Service) -> NamespacedName {
    NamespacedName {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone(),
    }
}

fn services(mirror: &Mirror) -> impl Iterator<Item = &Service> {
    mirror.all().filter_map(|resource| {
        if let Resource::Service(service) = resource {
            Some(service)
        } else {
            None
        }
    })
}

fn as_set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}

async fn carry_out(
    cluster: &Cluster,
    decisions: &BTreeMap<NamespacedName, Decision>,
    mirror: &mut Mirror,
) -> Result<(), Error> {
    let differs = |service: &&Service| {
        let wanted = decisions
            .get(&name(service))
            .map(|decision| as_set(&decision.addresses));
        wanted.is_some_and(|wanted| wanted != as_set(&service.status.addresses()))
    };
    let changed: Vec<Service> = services(mirror).filter(differs).cloned().collect();
    for service in changed {
        let name = name(&service);
        let Some(decision) = decisions.get(&name) else {
            continue;
        };
        match cluster.balance(&service, &decision.addresses).await {
            Ok(written) => {
                tracing::info!(service = format!("{}/{}", name.namespace, name.name), addresses = ?decision.addresses, "a load balancer's addresses");
                mirror.wrote(written);
            }
            // The watch tells of its end.
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What cannot be done and has not been told of.
fn news(decisions: &BTreeMap<NamespacedName, Decision>, mirror: &Mirror, told: &mut Told) -> Vec<Happening> {
    told.retain(|name, _| {
        decisions
            .get(name)
            .is_some_and(|decision| decision.refusal.is_some())
    });
    let mut news = Vec::new();
    for service in services(mirror) {
        let name = name(service);
        let refusal = decisions
            .get(&name)
            .and_then(|decision| decision.refusal.as_ref());
        let message = refusal.map(ToString::to_string);
        let Some(message) = message.filter(|it| told.get(&name) != Some(it)) else {
            continue;
        };
        let key = Key::namespaced(Kind::Service, &name.namespace, &name.name);
        news.push(Happening {
            subject: Subject::Resource(key, service.metadata.uid.clone()),
            reason: "NoLoadBalancerAddress",
            message: message.clone(),
        });
        told.insert(name, message);
    }
    news
}
