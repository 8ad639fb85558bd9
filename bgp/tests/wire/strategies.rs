//! Arbitrary messages and contexts, all of them such as a speaker may send.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use manx_bgp::wire::{
    AddPath, AsPath, Attributes, Capability, Context, GracefulRestart, LongLivedRestart, NextHop, Nlri,
    Notification, Open, Origin, Role, RouteRefresh, Segment, UnknownAttribute,
};
use manx_bgp::{Family, Prefix};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

pub(crate) fn prefix(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        // Neither multicast nor loopback nor link-local: nobody may announce those.
        Family::Ipv4Unicast => (any::<u32>(), 0..=32_u8)
            .prop_map(|(address, len)| Prefix::v4((address & 0x5fff_ffff).into(), len).unwrap())
            .boxed(),
        Family::Ipv6Unicast => (any::<u128>(), 0..=128_u8)
            .prop_map(|(address, len)| Prefix::v6((address >> 2 | 1 << 125).into(), len).unwrap())
            .boxed(),
    }
}

/// Prefixes of one family, with path identifiers where the context says so.
pub(crate) fn nlri(
    family: Family,
    context: &Context,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Nlri>> + use<> {
    let path_id = if context.add_path_send.contains(&family) {
        any::<u32>().prop_map(Some).boxed()
    } else {
        Just(None).boxed()
    };
    vec(
        (path_id, prefix(family)).prop_map(|(path_id, prefix)| Nlri { path_id, prefix }),
        count,
    )
}

pub(crate) fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    let host = 0x2001_0db8_u128 << 96;
    let link_local = any::<u64>().prop_map(|id| Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id)));
    match family {
        Family::Ipv4Unicast => (1..=223_u8, any::<[u8; 3]>())
            .prop_filter("loopback", |(first, _)| *first != 127)
            .prop_map(|(first, [b, c, d])| NextHop::V4(Ipv4Addr::new(first, b, c, d)))
            .boxed(),
        Family::Ipv6Unicast => prop_oneof![
            (any::<u64>(), option::of(link_local.clone())).prop_map(move |(id, link_local)| NextHop::V6 {
                global: Ipv6Addr::from(host | u128::from(id)),
                link_local,
            }),
            link_local.prop_map(|address| NextHop::V6 {
                global: Ipv6Addr::UNSPECIFIED,
                link_local: Some(address),
            }),
        ]
        .boxed(),
    }
}

/// AS numbers of both widths.
fn asn() -> impl Strategy<Value = u32> {
    prop_oneof![1..=65_535_u32, 1..=u32::MAX]
}

/// A path with at least `hops` hops; some sequences take two segments on the wire.
fn as_path(hops: usize) -> impl Strategy<Value = AsPath> {
    let length = prop_oneof![9 => 1..6_usize, 1 => 250..300_usize];
    let sequence = length.prop_flat_map(|length| vec(asn(), length));
    let pair = (sequence, vec(asn(), 0..4));
    vec(pair, hops..3).prop_map(|pairs| {
        let mut segments: Vec<Segment> = Vec::new();
        for (sequence, set) in pairs {
            match segments.last_mut() {
                Some(Segment::Sequence(last)) => last.extend(sequence),
                Some(Segment::Set(_)) | None => segments.push(Segment::Sequence(sequence)),
            }
            if !set.is_empty() {
                segments.push(Segment::Set(set));
            }
        }
        AsPath {
            segments: segments.into(),
        }
    })
}

/// Attributes of type codes that nobody here knows, one of each at most.
fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let code = prop_oneof![Just(11_u8), Just(22), Just(23), 41..=255_u8];
    let value = prop_oneof![9 => vec(any::<u8>(), 0..20), 1 => vec(any::<u8>(), 250..300)];
    btree_map(code, value, 0..4).prop_map(|attributes: BTreeMap<_, _>| {
        let unknown = attributes.into_iter();
        unknown
            .map(|(code, value)| UnknownAttribute {
                flags: 0xe0,
                code,
                value: value.into(),
            })
            .collect()
    })
}

/// Attributes that may leave in this context.
pub(crate) fn attributes(context: &Context) -> impl Strategy<Value = Attributes> + use<> {
    let internal = !context.external;
    let path = (
        prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        as_path(usize::from(context.external)),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of((asn(), any::<u32>())),
    );
    let reflection = (
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        vec(any::<u32>(), 0..4),
    );
    let communities = (
        vec(any::<u32>(), 0..70),
        vec(any::<[u8; 8]>(), 0..4),
        btree_set(any::<[u32; 3]>(), 0..4),
        (unknown(), option::of(asn()), any::<u64>()),
    );
    (path, reflection, communities).prop_map(move |(path, reflection, communities)| {
        let (origin, as_path, med, atomic_aggregate, aggregator) = path;
        let (local_pref, originator_id, cluster_list) = reflection;
        let (communities, extended_communities, large_communities, others) = communities;
        let (unknown, only_to_customer, partial) = others;
        let cluster_list = cluster_list.into_iter().filter(|_| internal);
        let present = [
            (7, aggregator.is_some()),
            (8, !communities.is_empty()),
            (16, !extended_communities.is_empty()),
            (32, !large_communities.is_empty()),
            (35, only_to_customer.is_some()),
        ];
        let may = present.iter().filter(|(_, present)| *present);
        Attributes {
            origin,
            as_path,
            med,
            local_pref: local_pref.filter(|_| internal),
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, identifier)| (asn, identifier.into())),
            communities: communities.into(),
            extended_communities: extended_communities.into(),
            large_communities: large_communities.into_iter().collect(),
            only_to_customer,
            partial: partial & may.map(|(code, _)| 1_u64 << code).sum::<u64>(),
            originator_id: originator_id.filter(|_| internal).map(Ipv4Addr::from),
            cluster_list: cluster_list.map(Ipv4Addr::from).collect(),
            unknown: unknown.into(),
        }
    })
}

/// A context in which what leaves here arrives at a peer with the same context.
pub(crate) fn context() -> impl Strategy<Value = Context> {
    let add_path = proptest::sample::subsequence(Family::ALL.to_vec(), 0..=2);
    let max_message = prop_oneof![Just(4_096_usize), Just(65_535)];
    (any::<bool>(), any::<bool>(), add_path, any::<bool>(), max_message).prop_map(
        |(four_octet_as, external, add_path, extended, max_message)| Context {
            four_octet_as,
            external,
            families: Family::ALL.to_vec(),
            add_path_receive: add_path.clone(),
            add_path_send: add_path,
            extended_next_hop: if extended {
                vec![Family::Ipv4Unicast]
            } else {
                vec![]
            },
            max_message,
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        Just(Role::Provider),
        Just(Role::RouteServer),
        Just(Role::RouteServerClient),
        Just(Role::Customer),
        Just(Role::Peer),
        (5..=255_u8).prop_map(Role::Unassigned),
    ]
}

fn capability() -> impl Strategy<Value = Capability> {
    let restart = (
        any::<bool>(),
        any::<bool>(),
        0..4_096_u16,
        vec((family(), any::<bool>()), 0..4),
    );
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        restart.prop_map(|(restarting, notification, restart_time, families)| {
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time,
                families,
            })
        }),
        vec(family(), 0..4).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        role().prop_map(Capability::Role),
        vec((family(), 1..=3_u8), 0..4).prop_map(|families| {
            let each = families.into_iter().map(|(family, both)| AddPath {
                family,
                receive: both & 1 != 0,
                send: both & 2 != 0,
            });
            Capability::AddPath(each.collect())
        }),
        Just(Capability::EnhancedRouteRefresh),
        vec((family(), any::<bool>(), 0..1_u32 << 24), 0..4).prop_map(|families| {
            let each = families
                .into_iter()
                .map(|(family, forwarding, stale_time)| LongLivedRestart {
                    family,
                    forwarding,
                    stale_time,
                });
            Capability::LongLivedGracefulRestart(each.collect())
        }),
        (72..=255_u8, vec(any::<u8>(), 0..80)).prop_map(|(code, value)| Capability::Unknown {
            code,
            value: value.into()
        }),
        // It neither sends nor receives.
        Just(Capability::Unknown {
            code: 69,
            value: Bytes::from_static(&[0, 1, 1, 0])
        }),
        // A family of others.
        Just(Capability::Unknown {
            code: 1,
            value: Bytes::from_static(&[0, 25, 0, 70])
        }),
    ]
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let asn = asn().prop_filter("AS_TRANS", |asn| *asn != 23_456);
    let hold_time = prop_oneof![Just(0_u16), 3..=u16::MAX];
    (
        asn,
        any::<bool>(),
        hold_time,
        1..=u32::MAX,
        vec(capability(), 0..12),
    )
        .prop_map(|(asn, four_octet_as, hold_time, router_id, mut capabilities)| {
            if four_octet_as || asn > 65_535 {
                capabilities.insert(capabilities.len() / 2, Capability::FourOctetAs(asn));
            }
            Open {
                asn,
                hold_time,
                router_id: router_id.into(),
                capabilities,
            }
        })
}

pub(crate) fn notification() -> impl Strategy<Value = Notification> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..300)).prop_map(|(code, subcode, data)| Notification {
        code,
        subcode,
        data: data.into(),
    })
}

pub(crate) fn refresh() -> impl Strategy<Value = RouteRefresh> {
    (option::of(family()), any::<u8>()).prop_map(|(family, subtype)| RouteRefresh { family, subtype })
}
