//! What a service asks for.

use std::net::IpAddr;

use manx_api::Metadata;
use manx_api::service::{IpFamily, IpFamilyPolicy, Service};

use super::{ADDRESSES, IPV4_POOLS, IPV6_POOLS, Refusal, SHARING_KEY};

/// What a service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The families that it wants an address of, the preferred first.
    pub(super) families: Vec<IpFamily>,
    /// Whether it makes do with fewer.
    pub(super) makes_do: bool,
    /// The addresses that it names, one of a family at most.
    pub(super) addresses: Vec<IpAddr>,
    /// The pools that it names: the annotation, and its entries.
    pub(super) ipv4_pools: Option<(&'static str, Vec<String>)>,
    /// The same for IPv6.
    pub(super) ipv6_pools: Option<(&'static str, Vec<String>)>,
}

impl Wish {
    /// What a service asks for.
    ///
    /// # Errors
    /// It cannot be read, or contradicts itself.
    pub(super) fn of(service: &Service) -> Result<Self, Refusal> {
        let metadata = &service.metadata;
        let families = families(service);
        let (place, texts) = requested(service)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in texts {
            let Ok(address) = text.parse::<IpAddr>() else {
                return Err(Refusal::Address { place, text });
            };
            let family = IpFamily::of(address);
            if let Some(other) = addresses.iter().find(|other| IpFamily::of(**other) == family) {
                let addresses = [*other, address];
                return Err(Refusal::Two {
                    place,
                    family,
                    addresses,
                });
            }
            if !families.contains(&family) {
                return Err(Refusal::Family {
                    place,
                    address,
                    family,
                });
            }
            addresses.push(address);
        }
        Ok(Self {
            families,
            makes_do: service.spec.ip_family_policy != Some(IpFamilyPolicy::RequireDualStack),
            addresses,
            ipv4_pools: pools(metadata, IPV4_POOLS)?,
            ipv6_pools: pools(metadata, IPV6_POOLS)?,
        })
    }

    /// The pools that it names for a family.
    pub(super) fn pools(&self, family: IpFamily) -> Option<&(&'static str, Vec<String>)> {
        match family {
            IpFamily::IPv4 => self.ipv4_pools.as_ref(),
            IpFamily::IPv6 => self.ipv6_pools.as_ref(),
        }
    }
}

/// What a service shares addresses by; nothing where it shares none.
pub(super) fn sharing_key(metadata: &Metadata) -> Option<&str> {
    let key = metadata.annotations.get(SHARING_KEY)?.as_str();
    (!key.is_empty()).then_some(key)
}

/// An API server says which families a service has; elsewhere its addresses in the cluster do.
fn families(service: &Service) -> Vec<IpFamily> {
    let spec = &service.spec;
    let mut families = spec.ip_families.clone();
    if families.is_empty() {
        families = spec.cluster_addresses().into_iter().map(IpFamily::of).collect();
    }
    if families.is_empty() {
        families.push(IpFamily::IPv4);
    }
    if spec.ip_family_policy == Some(IpFamilyPolicy::SingleStack) {
        families.truncate(1);
    }
    families.dedup();
    families
}

/// Where addresses are asked for, and how they are written there.
fn requested(service: &Service) -> Result<(&'static str, Vec<String>), Refusal> {
    const EXAMPLE: &str = "203.0.113.7 or 203.0.113.7,2001:db8::7";
    if let Some(found) = list(&service.metadata, ADDRESSES, EXAMPLE)? {
        return Ok(found);
    }
    let single = Some(service.spec.load_balancer_ip.clone()).filter(|text| !text.is_empty());
    Ok(("spec.loadBalancerIP", single.into_iter().collect()))
}

fn pools(
    metadata: &Metadata,
    annotations: [&'static str; 2],
) -> Result<Option<(&'static str, Vec<String>)>, Refusal> {
    let found = list(metadata, annotations, r#"["a-pool"] or ["203.0.113.0/24"]"#)?;
    Ok(found.filter(|(_, entries)| !entries.is_empty()))
}

/// The list that the first of these annotations holds which is there: of JSON, or with commas.
fn list(
    metadata: &Metadata,
    annotations: [&'static str; 2],
    example: &'static str,
) -> Result<Option<(&'static str, Vec<String>)>, Refusal> {
    let mut said = annotations
        .into_iter()
        .filter_map(|name| Some((name, metadata.annotations.get(name)?.trim())));
    let Some((annotation, value)) = said.next() else {
        return Ok(None);
    };
    if value.starts_with('[') {
        let read = serde_json::from_str(value).map_err(|_| Refusal::List {
            annotation,
            value: value.to_owned(),
            example,
        });
        return read.map(|entries| Some((annotation, entries)));
    }
    let entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    Ok(Some((annotation, entries.map(str::to_owned).collect())))
}
