//! Route leaks: what a provider or a peer gave us does not go on to another one (RFC 9234).
//!
//! A route that has come from a provider, a peer or a route server, or has gone to a customer, a peer or a
//! route server's client, carries ONLY_TO_CUSTOMER. It may go on downwards only, and one that comes from below with it
//! has leaked. All is decided by our own role towards the neighbor, whether it knows of roles or not.

use crate::wire::{Attributes, Role};

/// Our role towards a neighbor of another AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    /// What we are to it.
    pub(crate) role: Role,
    /// Its AS.
    pub(crate) asn: u32,
}

impl Relation {
    /// The mark that what comes in gets (RFC 9234 §5, ingress 3).
    pub(crate) fn incoming_mark(self, attributes: &Attributes) -> Option<u32> {
        match self.role {
            Role::Customer | Role::Peer | Role::RouteServerClient => {
                attributes.only_to_customer.is_none().then_some(self.asn)
            }
            Role::Provider | Role::RouteServer | Role::Unassigned(_) => None,
        }
    }

    /// Whether what comes in has leaked: from a customer or a route server's client with any mark, from a peer with
    /// another AS's (RFC 9234 §5, ingress 1 and 2).
    pub(crate) fn has_leaked(self, attributes: &Attributes) -> bool {
        match self.role {
            Role::Provider | Role::RouteServer => attributes.only_to_customer.is_some(),
            Role::Peer => attributes.only_to_customer.is_some_and(|asn| asn != self.asn),
            Role::Customer | Role::RouteServerClient | Role::Unassigned(_) => false,
        }
    }
}

/// Whether a route may go to a neighbor to whom we are `role`: none with a mark to providers, peers and route servers
/// (RFC 9234 §5, egress 2).
pub(crate) fn may_leave(role: Role, attributes: &Attributes) -> bool {
    match role {
        Role::Customer | Role::Peer | Role::RouteServerClient => attributes.only_to_customer.is_none(),
        Role::Provider | Role::RouteServer | Role::Unassigned(_) => true,
    }
}

/// Marks what leaves with our AS, towards customers, peers and a route server's clients (RFC 9234 §5, egress 1).
pub(crate) fn mark_outgoing(role: Role, our_asn: u32, attributes: &mut Attributes) {
    match role {
        Role::Provider | Role::Peer | Role::RouteServer => {
            attributes.only_to_customer.get_or_insert(our_asn);
        }
        Role::Customer | Role::RouteServerClient | Role::Unassigned(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 1;
    const NEIGHBOR: u32 = 2;
    const OTHER: u32 = 3;

    fn marked(asn: Option<u32>) -> Attributes {
        Attributes {
            only_to_customer: asn,
            ..Attributes::default()
        }
    }

    /// RFC 9234 §5 (ingress): per role, what becomes of no mark, the neighbor's and another AS's; none: leaked.
    #[test]
    fn what_comes_in_is_marked_or_has_leaked() {
        let (none, theirs, other) = (Some(None), Some(Some(NEIGHBOR)), Some(Some(OTHER)));
        let table = [
            (Role::Provider, [none, None, None]),
            (Role::RouteServer, [none, None, None]),
            (Role::Peer, [theirs, theirs, None]),
            (Role::Customer, [theirs, theirs, other]),
            (Role::RouteServerClient, [theirs, theirs, other]),
        ];
        for (role, expected) in table {
            let relation = Relation { role, asn: NEIGHBOR };
            for (mark, expected) in [None, Some(NEIGHBOR), Some(OTHER)].into_iter().zip(expected) {
                let attributes = marked(mark);
                let used = relation.incoming_mark(&attributes).or(mark);
                let found = (!relation.has_leaked(&attributes)).then_some(used);
                assert_eq!(found, expected, "{role:?} {mark:?}");
            }
        }
    }

    /// RFC 9234 §5 (egress): per role, what becomes of no mark and of one; none: it stays.
    #[test]
    fn what_leaves_is_marked_or_stays() {
        let (none, ours, other) = (Some(None), Some(Some(US)), Some(Some(OTHER)));
        let table = [
            (Role::Provider, [ours, other]),
            (Role::RouteServer, [ours, other]),
            (Role::Peer, [ours, None]),
            (Role::Customer, [none, None]),
            (Role::RouteServerClient, [none, None]),
        ];
        for (role, expected) in table {
            for (mark, expected) in [None, Some(OTHER)].into_iter().zip(expected) {
                let mut attributes = marked(mark);
                let leaves = may_leave(role, &attributes);
                mark_outgoing(role, US, &mut attributes);
                let sent = leaves.then_some(attributes.only_to_customer);
                assert_eq!(sent, expected, "{role:?} {mark:?}");
            }
        }
    }
}
