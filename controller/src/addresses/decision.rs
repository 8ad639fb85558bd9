//! Which service gets which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::{IpPool, IpReservation, PoolUse};
use manx_api::kubernetes::Transport;
use manx_api::policy::NamespacedName;
use manx_api::service::{IpFamily, Service, ServiceType, TrafficPolicy};

use super::wish::{Wish, sharing_key};
use super::{CLASS, Refusal};

/// What is known of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Known<'a> {
    /// Its services.
    pub services: Vec<&'a Service>,
    /// All its pools.
    pub pools: Vec<&'a IpPool>,
    /// Addresses that nobody gets unasked.
    pub reservations: Vec<&'a IpReservation>,
}

/// What becomes of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The addresses that its status shall name.
    pub addresses: Vec<IpAddr>,
    /// Why that is not all it asks for.
    pub refusal: Option<Refusal>,
}

/// What becomes of each service that is ours; of others nothing is said. The order of what is known makes no difference.
#[must_use]
pub fn decide(known: &Known<'_>) -> BTreeMap<NamespacedName, Decision> {
    let mut pools: Vec<&IpPool> = known.pools.clone();
    pools.retain(|pool| pool.spec.allowed_use() == PoolUse::LoadBalancer);
    pools.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut ours: Vec<Claim<'_>> = Vec::new();
    let mut book = Book::of(known, pools);
    let mut decisions = BTreeMap::new();
    for service in &known.services {
        match book.standing(service) {
            Standing::Ours => ours.push(Claim::of(service)),
            Standing::Former => {
                // Nobody else gets these before they are taken away.
                book.blocked.extend(service.status.addresses());
                let (addresses, refusal) = (Vec::new(), None);
                decisions.insert(Claim::of(service).name, Decision { addresses, refusal });
            }
            Standing::Others => book.blocked.extend(service.status.addresses()),
        }
    }
    ours.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    let kept: Vec<Vec<IpAddr>> = ours.iter().map(|claim| book.keep(claim)).collect();
    for (claim, kept) in ours.iter().zip(kept) {
        decisions.insert(claim.name.clone(), book.serve(claim, &kept));
    }
    decisions
}

/// Whose a service's status is.
enum Standing {
    /// Ours.
    Ours,
    /// It was; the service needs no address any more.
    Former,
    /// Somebody else's.
    Others,
}

/// A service that is to have addresses.
#[derive(Clone, Debug)]
struct Claim<'a> {
    name: NamespacedName,
    service: &'a Service,
}

impl<'a> Claim<'a> {
    fn of(service: &'a Service) -> Self {
        let metadata = &service.metadata;
        Self {
            name: NamespacedName {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone(),
            },
            service,
        }
    }

    /// Who of two comes first: the older.
    fn seniority(&self) -> (&Option<String>, &NamespacedName) {
        (&self.service.metadata.creation_timestamp, &self.name)
    }

    fn ports(&self) -> BTreeSet<(Transport, u16)> {
        let ports = self.service.spec.ports.iter();
        ports.map(|port| (port.protocol, port.port)).collect()
    }

    /// Whether two services may be reached at one address: they want it, are told apart by their ports, and a node that
    /// announces the address for one has endpoints of the other.
    fn shares_with(&self, other: &Self) -> bool {
        let key = sharing_key(&self.service.metadata);
        let (mine, theirs) = (&self.service.spec, &other.service.spec);
        let alike = match (mine.external_traffic_policy, theirs.external_traffic_policy) {
            (TrafficPolicy::Cluster, TrafficPolicy::Cluster) => true,
            (TrafficPolicy::Local, TrafficPolicy::Local) => {
                let same_pods = mine.selector == theirs.selector && !mine.selector.is_empty();
                same_pods && self.name.namespace == other.name.namespace
            }
            (TrafficPolicy::Cluster, TrafficPolicy::Local)
            | (TrafficPolicy::Local, TrafficPolicy::Cluster) => false,
        };
        key.is_some()
            && key == sharing_key(&other.service.metadata)
            && alike
            && self.ports().is_disjoint(&other.ports())
    }
}

/// Who has which address, as far as it is decided.
struct Book<'a> {
    /// The pools for load balancers, by name.
    pools: Vec<&'a IpPool>,
    holders: BTreeMap<IpAddr, Vec<Claim<'a>>>,
    /// Addresses that somebody else has.
    blocked: BTreeSet<IpAddr>,
    /// Addresses that nobody gets unasked.
    unasked: BTreeSet<IpAddr>,
    reserved: Vec<IpNetwork>,
    /// Where a pool's free addresses begin; none: it has none.
    first_free: BTreeMap<&'a str, Option<IpAddr>>,
}

impl<'a> Book<'a> {
    fn of(known: &Known<'a>, pools: Vec<&'a IpPool>) -> Self {
        let first = |pool: &&'a IpPool| (pool.metadata.name.as_str(), Some(pool.spec.cidr.network()));
        let reservations = known.reservations.iter();
        let external = known
            .services
            .iter()
            .flat_map(|service| &service.spec.external_ips);
        Self {
            holders: BTreeMap::new(),
            blocked: BTreeSet::new(),
            unasked: external.copied().collect(),
            reserved: reservations
                .flat_map(|it| it.spec.reserved_cidrs.clone())
                .collect(),
            first_free: pools.iter().map(first).collect(),
            pools,
        }
    }

    fn pool_of(&self, address: IpAddr) -> Option<&'a IpPool> {
        let mut pools = self.pools.iter().copied();
        pools.find(|pool| pool.spec.cidr.contains(address))
    }

    fn standing(&self, service: &Service) -> Standing {
        let ingress = &service.status.load_balancer.ingress;
        let ours = |ip: &str| ip.parse().is_ok_and(|address| self.pool_of(address).is_some());
        let all_ours = ingress.iter().all(|it| it.hostname.is_empty() && ours(&it.ip));
        if service.spec.kind != ServiceType::LoadBalancer {
            let has_ours = all_ours && !ingress.is_empty();
            return if has_ours {
                Standing::Former
            } else {
                Standing::Others
            };
        }
        match service.spec.load_balancer_class.as_deref() {
            Some(CLASS) => Standing::Ours,
            // Where no pool is for services, somebody else sees to them.
            None if all_ours && !self.pools.is_empty() => Standing::Ours,
            None | Some(_) => Standing::Others,
        }
    }

    /// Somebody who is in the way of a claim to an address.
    fn in_the_way(&self, address: IpAddr, claim: &Claim<'a>) -> Option<&NamespacedName> {
        let holders = self.holders.get(&address)?;
        let other = |holder: &&Claim<'a>| holder.name != claim.name && !holder.shares_with(claim);
        holders.iter().find(other).map(|holder| &holder.name)
    }

    fn hold(&mut self, address: IpAddr, claim: &Claim<'a>) {
        let holders = self.holders.entry(address).or_default();
        if holders.iter().all(|holder| holder.name != claim.name) {
            holders.push(claim.clone());
        }
    }

    /// Lets a service have what it has, as long as no older one is in the way.
    fn keep(&mut self, claim: &Claim<'a>) -> Vec<IpAddr> {
        let mut kept = Vec::new();
        for address in claim.service.status.addresses() {
            if self.pool_of(address).is_some() && self.in_the_way(address, claim).is_none() {
                self.hold(address, claim);
                kept.push(address);
            }
        }
        kept
    }

    /// Gives a service what it asks for, or leaves it what it has and says why.
    fn serve(&mut self, claim: &Claim<'a>, kept: &[IpAddr]) -> Decision {
        let wish = match Wish::of(claim.service) {
            Ok(wish) => wish,
            Err(refusal) => {
                return Decision {
                    addresses: kept.to_vec(),
                    refusal: Some(refusal),
                };
            }
        };
        let (mut addresses, mut refusals) = (Vec::new(), Vec::new());
        for family in &wish.families {
            match self.choose(claim, &wish, *family, kept) {
                Ok(address) => addresses.push(address),
                Err(refusal) => {
                    let had = kept.iter().copied().find(|it| IpFamily::of(*it) == *family);
                    addresses.extend(had);
                    refusals.push(refusal);
                }
            }
        }
        if wish.makes_do && !addresses.is_empty() {
            refusals.retain(|refusal| !matches!(refusal, Refusal::NoPool { .. }));
        }
        let refusal = refusals.into_iter().next();
        if refusal.is_some() && !wish.makes_do {
            // All or nothing; what it has stays.
            addresses.retain(|address| kept.contains(address));
        }
        for address in &addresses {
            self.hold(*address, claim);
        }
        Decision { addresses, refusal }
    }

    /// An address of a family for a service.
    fn choose(
        &mut self,
        claim: &Claim<'a>,
        wish: &Wish,
        family: IpFamily,
        kept: &[IpAddr],
    ) -> Result<IpAddr, Refusal> {
        let pools = self.eligible(wish, family)?;
        let contains = |pool: &&&IpPool, address| pool.spec.cidr.contains(address);
        let requested = wish.addresses.iter().find(|it| IpFamily::of(**it) == family);
        if let Some(&address) = requested {
            let pool = pools.iter().find(|pool| contains(pool, address));
            return if kept.contains(&address) {
                Ok(address)
            } else if pool.is_none_or(|pool| pool.spec.disabled) {
                Err(Refusal::NotOurs { address })
            } else {
                self.may_have(address, claim).map(|()| address)
            };
        }
        let is_fit = |address: &&IpAddr| pools.iter().any(|pool| contains(&pool, **address));
        if let Some(address) = kept.iter().find(is_fit) {
            return Ok(*address);
        }
        let is_named = wish.pools(family).is_some();
        let gives =
            |pool: &&IpPool| !pool.spec.disabled && (is_named || pool.spec.assignment_mode.is_automatic());
        let giving: Vec<&IpPool> = pools.iter().copied().filter(gives).collect();
        if giving.is_empty() {
            let pools = names(&pools);
            return Err(Refusal::NoneGives { family, pools });
        }
        let shared = self.shared(claim, &giving);
        let address = shared.or_else(|| giving.iter().find_map(|pool| self.free(pool)));
        address.ok_or_else(|| Refusal::Full {
            pools: names(&giving),
        })
    }

    /// The pools of a family that a service may have an address of: those that it names, or all.
    fn eligible(&self, wish: &Wish, family: IpFamily) -> Result<Vec<&'a IpPool>, Refusal> {
        let of_family = |pool: &&IpPool| IpFamily::of(pool.spec.cidr.network()) == family;
        let all: Vec<&IpPool> = self.pools.iter().copied().filter(of_family).collect();
        if all.is_empty() {
            return Err(Refusal::NoPool { family });
        }
        let Some((annotation, entries)) = wish.pools(family) else {
            return Ok(all);
        };
        let named = entries.iter().map(|entry| {
            let is_it =
                |pool: &&&IpPool| pool.metadata.name == *entry || pool.spec.cidr.to_string() == *entry;
            let pool = all.iter().find(is_it);
            pool.copied().ok_or_else(|| Refusal::UnknownPool {
                annotation,
                entry: entry.clone(),
                known: names(&all),
            })
        });
        named.collect()
    }

    /// Whether a service may have an address that it has not.
    fn may_have(&self, address: IpAddr, claim: &Claim<'a>) -> Result<(), Refusal> {
        if let Some(by) = self.in_the_way(address, claim).cloned() {
            return Err(Refusal::Taken { address, by });
        }
        if self.blocked.contains(&address) {
            return Err(Refusal::InUse { address });
        }
        Ok(())
    }

    /// An address that others have who share it with a service.
    fn shared(&self, claim: &Claim<'a>, pools: &[&IpPool]) -> Option<IpAddr> {
        sharing_key(&claim.service.metadata)?;
        let is_fit = |address: &&IpAddr| {
            pools.iter().any(|pool| pool.spec.cidr.contains(**address))
                && self.may_have(**address, claim).is_ok()
        };
        self.holders.keys().find(is_fit).copied()
    }

    /// The first address of a pool that nobody has.
    fn free(&mut self, pool: &'a IpPool) -> Option<IpAddr> {
        let first = self
            .first_free
            .get(pool.metadata.name.as_str())
            .copied()
            .flatten();
        let mut next = first;
        while let Some(address) = next.filter(|address| pool.spec.cidr.contains(*address)) {
            if let Some(reserved) = self.reserved.iter().find(|network| network.contains(address)) {
                next = after(reserved.broadcast());
            } else if self.is_taken(address) {
                next = after(address);
            } else {
                break;
            }
        }
        let found = next.filter(|address| pool.spec.cidr.contains(*address));
        self.first_free.insert(&pool.metadata.name, found);
        found
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        self.holders.contains_key(&address)
            || self.blocked.contains(&address)
            || self.unasked.contains(&address)
    }
}

fn names(pools: &[&IpPool]) -> Vec<String> {
    pools.iter().map(|pool| pool.metadata.name.clone()).collect()
}

/// The address behind one; none behind the last.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|it| IpAddr::V6(it.into())),
    }
}
