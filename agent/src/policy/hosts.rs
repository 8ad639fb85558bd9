//! Host endpoints of this node, and which of its interfaces they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use manx_api::host_endpoint::{ALL_INTERFACES, HostEndpointSpec};
use manx_policy::{HostInterface, Update};

/// This node's host endpoints, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    endpoints: BTreeMap<String, HostEndpointSpec>,
    /// Which interface has which of the addresses that endpoints without an interface's name are found by.
    interfaces: BTreeMap<IpAddr, String>,
}

impl Hosts {
    /// An endpoint of this node is there, and like this.
    pub(super) fn put(&mut self, name: String, spec: HostEndpointSpec) -> Update {
        let interface = self.interface(&spec);
        self.endpoints.insert(name.clone(), spec);
        Update::Host(name, interface)
    }

    /// An endpoint is none of this node; nothing if it never was.
    pub(super) fn remove(&mut self, name: &str) -> Option<Update> {
        self.endpoints.remove(name)?;
        Some(Update::Host(name.to_owned(), None))
    }

    /// Whether any of them drops what no policy decides.
    pub(super) fn any_closed(&self) -> bool {
        self.endpoints.values().any(HostEndpointSpec::is_closed)
    }

    /// The addresses that some are found by.
    pub(super) fn sought(&self) -> BTreeSet<IpAddr> {
        let by_address = self
            .endpoints
            .values()
            .filter(|spec| spec.interface_name.is_none());
        by_address.flat_map(|spec| &spec.expected_ips).copied().collect()
    }

    /// These interfaces have addresses that are sought, and no others.
    pub(super) fn place(&mut self, interfaces: BTreeMap<IpAddr, String>) -> Vec<Update> {
        self.interfaces = interfaces;
        let updates = self.endpoints.iter();
        updates
            .map(|(name, spec)| Update::Host(name.clone(), self.interface(spec)))
            .collect()
    }

    /// The interface that an endpoint is; none if the node has no such address.
    fn interface(&self, spec: &HostEndpointSpec) -> Option<HostInterface> {
        match spec.interface_name.as_deref() {
            Some(ALL_INTERFACES) => Some(HostInterface::All),
            Some(name) => Some(HostInterface::Named(name.to_owned())),
            None => {
                let mut found = spec
                    .expected_ips
                    .iter()
                    .filter_map(|address| self.interfaces.get(address));
                found.next().cloned().map(HostInterface::Named)
            }
        }
    }
}
