//! What is behind services: their slices, put together.

use std::collections::BTreeSet;

use manx_api::Key;
use manx_api::policy::NamespacedName;
use manx_api::service::EndpointSlice;
use manx_policy::{ServiceEndpoint, Update};

use crate::slices::Slices;

/// Who is behind each service, by each of its slices.
#[derive(Clone, Debug, Default)]
pub(super) struct Services(Slices<BTreeSet<ServiceEndpoint>>);

impl Services {
    /// A slice is like this; it may have been another service's before.
    pub(super) fn put(&mut self, key: Key, slice: &EndpointSlice) -> Vec<Update> {
        let changed = self.0.put(key, slice, behind(slice));
        changed.into_iter().map(|service| self.tell(service)).collect()
    }

    /// A slice is gone.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Update> {
        let changed = self.0.remove(key);
        changed.map(|service| self.tell(service))
    }

    fn tell(&self, service: NamespacedName) -> Update {
        let endpoints = self.0.of(&service).flatten().copied().collect();
        Update::Service(service, endpoints)
    }
}

/// Who is behind a service by this slice, ready or not: an answer of one that is about to end must still pass. A port
/// without a number is any, which no rule of a service says.
fn behind(slice: &EndpointSlice) -> BTreeSet<ServiceEndpoint> {
    let ports = || {
        let ports = slice.ports.iter();
        ports.filter_map(|it| Some((it.protocol.into(), it.port?)))
    };
    let endpoints = slice.addresses().flat_map(|address| {
        ports().map(move |(protocol, port)| ServiceEndpoint {
            address,
            protocol,
            port,
        })
    });
    endpoints.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use manx_api::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, service: &str, addresses: &[&str], ports: &Value) -> (Key, EndpointSlice) {
        let slice = json!({
            "metadata": {
                "name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": addresses, "conditions": {"ready": false}}],
            "ports": ports,
        });
        let key = Key::namespaced(Kind::EndpointSlice, "shop", name);
        (key, serde_json::from_value(slice).unwrap())
    }

    /// The last word on each service: addresses and ports.
    fn folded(updates: &[Update]) -> BTreeMap<String, Vec<String>> {
        let mut folded = BTreeMap::new();
        for update in updates {
            let Update::Service(name, endpoints) = update else {
                panic!("{update:?}")
            };
            let told = endpoints
                .iter()
                .map(|it| format!("{}:{}/{}", it.address, it.port, it.protocol));
            folded.insert(name.name.clone(), told.collect::<Vec<_>>());
        }
        folded.retain(|_, endpoints| !endpoints.is_empty());
        folded
    }

    #[test]
    fn a_service_is_what_all_its_slices_say_as_they_come_change_and_go() {
        let mut services = Services::default();
        let ports =
            json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "any", "protocol": "UDP"}]);
        let (a, of_a) = slice("a", "web", &["10.0.0.1", "not-an-address"], &ports);
        let (b, of_b) = slice(
            "b",
            "web",
            &["10.0.0.2"],
            &json!([{"port": 53, "protocol": "UDP"}]),
        );
        let mut updates = services.put(a.clone(), &of_a);
        updates.extend(services.put(b.clone(), &of_b));
        let both = vec!["10.0.0.1:80/TCP".to_owned(), "10.0.0.2:53/UDP".to_owned()];
        assert_eq!(folded(&updates), [("web".to_owned(), both)].into());

        let (_, of_other) = slice("a", "db", &["10.0.0.1"], &ports);
        updates.extend(services.put(a.clone(), &of_other));
        let [web, db] = ["10.0.0.2:53/UDP", "10.0.0.1:80/TCP"].map(|it| vec![it.to_owned()]);
        assert_eq!(
            folded(&updates),
            [("web".to_owned(), web), ("db".to_owned(), db)].into()
        );

        updates.extend(services.remove(&a));
        updates.extend(services.remove(&b));
        assert_eq!(folded(&updates), BTreeMap::new());
        assert_eq!(services.remove(&a), None);
    }
}
