//! Whether settings that are each well formed make sense together, and to whom they apply.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use super::handling::{ActionName, MaxPrefix};
use super::place::{self, MAX_NAME};
use super::{Address, BfdSettings, FamilyName, Neighbor, PeerAs, PolicySetting, Settings};

/// A setting that cannot be meant as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Not the address of one router.
    #[error("'{field}' {address} is no address of a single router: write one")]
    Address {
        /// Which setting.
        field: &'static str,
        /// What it says.
        address: IpAddr,
    },
    /// An IPv4 address in the form of an IPv6 one.
    #[error("'{field}' {address} is an IPv4 address: write {}", address.to_canonical())]
    Mapped {
        /// Which setting.
        field: &'static str,
        /// What it says.
        address: IpAddr,
    },
    /// No port at all.
    #[error("'address' has port 0: write the port that the neighbor listens at, or none for 179")]
    Port,
    /// Our own address.
    #[error("'address' {0} is our own ('{1}'): write the neighbor's")]
    Ourselves(IpAddr, &'static str),
    /// No route leads from one family to the other.
    #[error("'localAddress' {local} and 'address' {remote} are of two families: write one of the same")]
    LocalFamily {
        /// Ours.
        local: IpAddr,
        /// The neighbor's.
        remote: IpAddr,
    },
    /// Who waits needs to be found.
    #[error("'{0}' waits for the neighbor to connect, and 'listen' has no address of its family: add one")]
    Unheard(&'static str),
    /// No neighbor fits into the range.
    #[error("'limit' is 0, so nobody may connect: write how many may, or leave the range out")]
    NoPlaces,
    /// A setting for neighbors of another AS.
    #[error("'{0}' is for neighbors of another AS: leave it out here")]
    WithinAs(&'static str),
    /// Reflection is within an AS.
    #[error("'routeReflectorClient' is for neighbors of our own AS (RFC 4456 §4): leave it out here")]
    ClientOfAnotherAs,
    /// Our AS in the place of our AS.
    #[error("'localAs' is our AS {0} as it is: leave it out")]
    SameLocalAs(u32),
    /// A list without items.
    #[error("'{0}' is an empty list: write what belongs there, or leave it out")]
    Empty(&'static str),
    /// A list that says something twice.
    #[error("'{0}' has {1} twice: once is enough")]
    Repeated(&'static str, String),
    /// A setting for a family that the session does not carry.
    #[error(
        "'{field}' is for {family}, which the session does not carry: add it to 'families', or leave '{field}' out"
    )]
    Uncarried {
        /// Which setting.
        field: &'static str,
        /// The family.
        family: FamilyName,
    },
    /// Several paths, none each way.
    #[error("'addPath' neither receives nor sends: write 'receive: true' or 'send', or leave it out")]
    NoPaths,
    /// A limit on nothing.
    #[error("'maxPrefix' limits no family: write 'ipv4' or 'ipv6', or leave it out")]
    NoLimit,
    /// A pause that is none.
    #[error(
        "'maxPrefix.restartAfter' is 0, so the session would come and go without end: write 1 or more seconds"
    )]
    NoPause,
    /// We would offer what we refuse.
    #[error("'holdTime' {hold_time} is below 'minHoldTime' {least}: no session could ever agree on one")]
    HoldTime {
        /// What we offer.
        hold_time: u16,
        /// What we ask for.
        least: u16,
    },
    /// Two opinions on how far the neighbor is.
    #[error("'bfd.multihop' is {}, and '{field}' says that the neighbor is {hops} hops away at most: let them agree", !one_hop)]
    Hops {
        /// The setting beside `bfd`.
        field: &'static str,
        /// What it says.
        hops: u8,
        /// BFD watches one hop.
        one_hop: bool,
    },
    /// No interface has such a name.
    #[error("'interface' '{0}' is no interface's name: use 1 to {MAX_NAME} octets without '/' or space")]
    Interface(String),
}

/// Whether it all makes sense, of a file that is read: first the file by itself, then each neighbor, which is named.
pub(super) fn check(settings: &Settings) -> Result<(), (Option<String>, Nonsense)> {
    repeated("listen", &settings.listen).map_err(|nonsense| (None, nonsense))?;
    repeated("routes", &settings.routes).map_err(|nonsense| (None, nonsense))?;
    for neighbor in &settings.neighbors {
        let name = || place::place(neighbor).ok().map(|place| place.to_string());
        let of = |nonsense| (name(), nonsense);
        address(neighbor, &settings.listen).map_err(of)?;
        each(neighbor, settings).map_err(of)?;
    }
    for range in &settings.dynamic_neighbors {
        let of = |nonsense| (Some(range.range.to_string()), nonsense);
        if range.limit == 0 {
            return Err(of(Nonsense::NoPlaces));
        }
        heard("dynamicNeighbors", &range.template, &settings.listen).map_err(of)?;
        if let Some(name) = range
            .template
            .interface
            .as_deref()
            .filter(|name| !place::is_name(name))
        {
            return Err(of(Nonsense::Interface(name.to_owned())));
        }
        each(&range.template, settings).map_err(of)?;
    }
    Ok(())
}

/// Where a neighbor is.
fn address(neighbor: &Neighbor, listen: &[SocketAddr]) -> Result<(), Nonsense> {
    if let Some(Address { ip, port, .. }) = neighbor.address {
        router("address", ip)?;
        if port == 0 {
            return Err(Nonsense::Port);
        }
        if listen.contains(&SocketAddr::new(ip, port)) {
            return Err(Nonsense::Ourselves(ip, "listen"));
        }
    }
    if neighbor.passive {
        heard("passive", neighbor, listen)?;
    }
    Ok(())
}

/// Whether we listen where the neighbor can connect.
fn heard(field: &'static str, neighbor: &Neighbor, listen: &[SocketAddr]) -> Result<(), Nonsense> {
    // Who is found on a link has a link-local address.
    let v4 = neighbor.address.as_ref().is_some_and(|it| it.ip.is_ipv4());
    let same = |at: &SocketAddr| at.is_ipv4() == v4;
    if listen.iter().any(same) {
        Ok(())
    } else {
        Err(Nonsense::Unheard(field))
    }
}

/// What single neighbors and those of a range have in common.
fn each(neighbor: &Neighbor, settings: &Settings) -> Result<(), Nonsense> {
    if let Some(local) = neighbor.local_address {
        router("localAddress", local)?;
        if let Some(remote) = neighbor.address.as_ref().map(|it| it.ip) {
            if local == remote {
                return Err(Nonsense::Ourselves(remote, "localAddress"));
            }
            if local.is_ipv4() != remote.is_ipv4() {
                return Err(Nonsense::LocalFamily { local, remote });
            }
        }
    }
    relation(neighbor, settings.asn)?;
    families(neighbor)?;
    distance(neighbor)?;
    let (hold_time, least) = (neighbor.hold_time, neighbor.min_hold_time);
    if hold_time != 0 && hold_time < least {
        return Err(Nonsense::HoldTime { hold_time, least });
    }
    for (field, policy) in [("import", &neighbor.import), ("export", &neighbor.export)] {
        if let Some(PolicySetting::Filters(names)) = policy {
            listed(field, names)?;
        }
    }
    Ok(())
}

/// Whether an address can be a router's.
fn router(field: &'static str, address: IpAddr) -> Result<(), Nonsense> {
    if address.to_canonical() != address {
        return Err(Nonsense::Mapped { field, address });
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(Nonsense::Address { field, address });
    }
    Ok(())
}

/// Settings for one side of an AS's border.
fn relation(neighbor: &Neighbor, our_asn: u32) -> Result<(), Nonsense> {
    let external_only = [
        ("localAs", neighbor.local_as.is_some()),
        ("enforceFirstAs", neighbor.enforce_first_as),
        ("prepend", neighbor.prepend > 0),
        ("asOverride", neighbor.as_override),
        ("removePrivateAs", neighbor.remove_private_as),
    ];
    let within = matches!(neighbor.asn, PeerAs::Internal) || neighbor.asn == PeerAs::Number(our_asn);
    if within {
        let given = external_only.into_iter().find(|(_, given)| *given);
        return given.map_or(Ok(()), |(field, _)| Err(Nonsense::WithinAs(field)));
    }
    if neighbor.route_reflector_client {
        return Err(Nonsense::ClientOfAnotherAs);
    }
    match neighbor.local_as {
        Some(asn) if asn == our_asn => Err(Nonsense::SameLocalAs(asn)),
        Some(_) | None => Ok(()),
    }
}

/// Settings of families: the session carries those that others speak of.
fn families(neighbor: &Neighbor) -> Result<(), Nonsense> {
    listed("families", &neighbor.families)?;
    let add_path = &neighbor.add_path;
    if let Some(families) = &add_path.families {
        listed("addPath.families", families)?;
        if !add_path.receive && add_path.send == 0 {
            return Err(Nonsense::NoPaths);
        }
    }
    if let Some(address) = neighbor.next_hop_v4 {
        router("nextHopV4", address.into())?;
    }
    if let Some(address) = neighbor.next_hop_v6 {
        router("nextHopV6", address.into())?;
    }
    let limit = |of: fn(&MaxPrefix) -> Option<u32>| neighbor.max_prefix.as_ref().and_then(of).is_some();
    let spoken = [
        ("nextHopV4", FamilyName::Ipv4, neighbor.next_hop_v4.is_some()),
        (
            "extendedNextHop",
            FamilyName::Ipv4,
            neighbor.extended_next_hop == Some(true),
        ),
    ];
    // A number for both limits what there is.
    let limited = [
        (
            "maxPrefix.ipv4",
            FamilyName::Ipv4,
            limit(|max| max.ipv4.filter(|_| max.ipv6.is_none())),
        ),
        (
            "maxPrefix.ipv6",
            FamilyName::Ipv6,
            limit(|max| max.ipv6.filter(|_| max.ipv4.is_none())),
        ),
    ];
    for (field, family, given) in spoken.into_iter().chain(limited) {
        if given && !neighbor.families.contains(&family) {
            return Err(Nonsense::Uncarried { field, family });
        }
    }
    match &neighbor.max_prefix {
        Some(MaxPrefix {
            ipv4: None,
            ipv6: None,
            ..
        }) => Err(Nonsense::NoLimit),
        Some(MaxPrefix {
            action: ActionName::Restart,
            restart_after: 0,
            ..
        }) => Err(Nonsense::NoPause),
        Some(_) | None => Ok(()),
    }
}

/// BFD over one hop is for neighbors that are one hop away (RFC 5881 §1), that over several for others.
fn distance(neighbor: &Neighbor) -> Result<(), Nonsense> {
    let Some(BfdSettings { multihop, .. }) = neighbor.bfd else {
        return Ok(());
    };
    let said = [
        ("ttlSecurity", neighbor.ttl_security),
        ("multihop", neighbor.multihop),
    ];
    for (field, hops) in said {
        if let Some(hops) = hops.filter(|hops| (hops.get() > 1) != multihop) {
            return Err(Nonsense::Hops {
                field,
                hops: hops.get(),
                one_hop: !multihop,
            });
        }
    }
    Ok(())
}

/// A list that is there has items.
fn listed<T: Display + Ord>(field: &'static str, items: &[T]) -> Result<(), Nonsense> {
    if items.is_empty() {
        return Err(Nonsense::Empty(field));
    }
    repeated(field, items)
}

/// A list says nothing twice.
fn repeated<T: Display + Ord>(field: &'static str, items: &[T]) -> Result<(), Nonsense> {
    let mut seen = BTreeSet::new();
    match items.iter().find(|item| !seen.insert(*item)) {
        Some(again) => Err(Nonsense::Repeated(field, again.to_string())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these fields of its own, and of its one neighbor besides its AS.
    fn file(own: &str, neighbor: &str) -> String {
        format!("asn: 64512\nrouterId: 192.0.2.1\n{own}neighbors: [{{{neighbor}}}]\n")
    }

    fn wrong(text: &str) -> String {
        match Settings::parse(text) {
            Ok(_) => panic!("accepted:\n{text}"),
            Err(error) => error.to_string(),
        }
    }

    /// What an operator may write by mistake: each is refused, and the complaint names neighbor and field.
    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        // Of a neighbor of our AS.
        let internal = [
            ("localAs: 65001", "'localAs' is for neighbors of another AS"),
            (
                "enforceFirstAs: true",
                "'enforceFirstAs' is for neighbors of another AS",
            ),
            ("prepend: 1", "'prepend' is for neighbors of another AS"),
            ("asOverride: true", "'asOverride' is for neighbors of another AS"),
            (
                "removePrivateAs: true",
                "'removePrivateAs' is for neighbors of another AS",
            ),
            (
                "localAddress: 192.0.2.2",
                "'address' 192.0.2.2 is our own ('localAddress')",
            ),
            ("localAddress: \"2001:db8::1\"", "are of two families"),
            (
                "localAddress: 0.0.0.0",
                "'localAddress' 0.0.0.0 is no address of a single router",
            ),
            ("localAddress: \"::ffff:192.0.2.1\"", "write 192.0.2.1"),
            ("families: []", "'families' is an empty list"),
            ("families: [ipv4, ipv4]", "'families' has ipv4 twice"),
            (
                "families: [ipv6], nextHopV4: 192.0.2.1",
                "'nextHopV4' is for ipv4, which the session does not carry",
            ),
            (
                "families: [ipv6], extendedNextHop: true",
                "'extendedNextHop' is for ipv4",
            ),
            (
                "families: [ipv6], maxPrefix: {ipv4: 9}",
                "'maxPrefix.ipv4' is for ipv4",
            ),
            (
                "families: [ipv4], maxPrefix: {ipv6: 9}",
                "'maxPrefix.ipv6' is for ipv6",
            ),
            ("maxPrefix: {action: warn}", "'maxPrefix' limits no family"),
            (
                "maxPrefix: {ipv4: 9, action: restart, restartAfter: 0}",
                "'maxPrefix.restartAfter' is 0",
            ),
            (
                "addPath: {receive: true, families: []}",
                "'addPath.families' is an empty list",
            ),
            (
                "addPath: {receive: true, families: [ipv6, ipv6]}",
                "'addPath.families' has ipv6 twice",
            ),
            (
                "addPath: {families: [ipv4]}",
                "'addPath' neither receives nor sends",
            ),
            ("nextHopV4: 0.0.0.0", "'nextHopV4' 0.0.0.0 is no address"),
            ("nextHopV4: 224.0.0.5", "'nextHopV4' 224.0.0.5 is no address"),
            (
                "nextHopV4: 255.255.255.255",
                "'nextHopV4' 255.255.255.255 is no address",
            ),
            ("nextHopV6: \"::\"", "'nextHopV6' :: is no address"),
            (
                "nextHopV6: \"::ffff:10.0.0.1\"",
                "'nextHopV6' ::ffff:10.0.0.1 is an IPv4 address",
            ),
            (
                "holdTime: 9, minHoldTime: 10",
                "'holdTime' 9 is below 'minHoldTime' 10",
            ),
            ("import: []", "'import' is an empty list"),
            ("export: [a, a]", "'export' has a twice"),
            (
                "bfd: true, ttlSecurity: 2",
                "'bfd.multihop' is false, and 'ttlSecurity' says that the neighbor is 2 hops away",
            ),
            (
                "bfd: true, multihop: 3",
                "'bfd.multihop' is false, and 'multihop' says that the neighbor is 3 hops away",
            ),
            (
                "bfd: {multihop: true}, ttlSecurity: true",
                "'bfd.multihop' is true, and 'ttlSecurity' says that the neighbor is 1 hop",
            ),
        ];
        for (fields, complaint) in internal {
            let text = file(
                "filters: [{name: a}]\n",
                &format!("address: 192.0.2.2, asn: 64512, {fields}"),
            );
            let error = wrong(&text);
            assert!(
                error.contains(complaint) && error.starts_with("neighbor 192.0.2.2: "),
                "{fields}: {error}"
            );
        }
        // Of one of another AS, and where and who it is.
        for (fields, complaint) in [
            (
                "address: 192.0.2.2, asn: 65001, routeReflectorClient: true",
                "'routeReflectorClient' is for neighbors of our own AS",
            ),
            (
                "address: 192.0.2.2, asn: external, routeReflectorClient: true",
                "'routeReflectorClient' is for neighbors of our own AS",
            ),
            (
                "address: 192.0.2.2, asn: 65001, localAs: 64512",
                "'localAs' is our AS 64512 as it is",
            ),
            ("address: 192.0.2.2, asn: 23456", "AS 23456 is reserved"),
            ("address: 192.0.2.2, asn: 65535", "AS 65535 is reserved"),
            ("address: 192.0.2.2, asn: 4294967295", "AS 4294967295 is reserved"),
            (
                "address: 0.0.0.0, asn: 65001",
                "'address' 0.0.0.0 is no address of a single router",
            ),
            (
                "address: \"::\", asn: 65001",
                "'address' :: is no address of a single router",
            ),
            (
                "address: 224.0.0.1, asn: 65001",
                "'address' 224.0.0.1 is no address of a single router",
            ),
            (
                "address: \"ff02::1\", asn: 65001",
                "'address' ff02::1 is no address of a single router",
            ),
            (
                "address: 255.255.255.255, asn: 65001",
                "is no address of a single router",
            ),
            (
                "address: \"::ffff:192.0.2.2\", asn: 65001",
                "'address' ::ffff:192.0.2.2 is an IPv4 address: write 192.0.2.2",
            ),
            ("address: \"192.0.2.2:0\", asn: 65001", "'address' has port 0"),
        ] {
            let error = wrong(&file("", fields));
            assert!(error.contains(complaint), "{fields}: {error}");
        }
    }

    #[test]
    fn what_the_whole_file_contradicts_is_refused_by_name() {
        let passive = "address: 192.0.2.2, asn: 65001, passive: true";
        for (own, neighbor, complaint) in [
            (
                "listen: [\"192.0.2.2:179\"]\n",
                "address: 192.0.2.2, asn: 64512",
                "'address' 192.0.2.2 is our own ('listen')",
            ),
            (
                "listen: []\n",
                passive,
                "'passive' waits for the neighbor to connect, and 'listen' has no",
            ),
            (
                "listen: [\"[::]:179\"]\n",
                passive,
                "'listen' has no address of its family",
            ),
            (
                "listen: [\"0.0.0.0:179\", \"0.0.0.0:179\"]\n",
                passive,
                "'listen' has 0.0.0.0:179 twice",
            ),
            (
                "routes: [10.0.0.0/24, 10.0.0.0/24]\n",
                passive,
                "'routes' has 10.0.0.0/24 twice",
            ),
            (
                "listen: []\ndynamicNeighbors: [{range: 10.0.0.0/8, asn: 64512}]\n",
                "address: 192.0.2.2, asn: 64512",
                "neighbor 10.0.0.0/8: 'dynamicNeighbors' waits",
            ),
            (
                "dynamicNeighbors: [{range: 10.0.0.0/8, asn: 64512, limit: 0}]\n",
                passive,
                "neighbor 10.0.0.0/8: 'limit' is 0",
            ),
            (
                "dynamicNeighbors: [{range: 10.0.0.0/8, asn: 64512, interface: sixteen-octets-0}]\n",
                passive,
                "neighbor 10.0.0.0/8: 'interface' 'sixteen-octets-0' is no interface's name: use 1 to 15 octets",
            ),
            (
                "dynamicNeighbors: [{range: 10.0.0.0/8, asn: 64512, prepend: 2}]\n",
                passive,
                "neighbor 10.0.0.0/8: 'prepend' is for",
            ),
        ] {
            let error = wrong(&file(own, neighbor));
            assert!(error.contains(complaint), "{own}{neighbor}: {error}");
        }
    }

    #[test]
    fn settings_that_agree_are_taken() {
        for neighbor in [
            "address: 192.0.2.2, asn: 64512, routeReflectorClient: true, bfd: true, ttlSecurity: true",
            "address: 192.0.2.2, asn: external, bfd: {multihop: true}, ttlSecurity: 3",
            "address: 192.0.2.2, asn: 65001, families: [ipv6], nextHopV6: \"2001:db8::1\", maxPrefix: 100",
            "address: \"2001:db8::2\", asn: 65001, families: [ipv4], extendedNextHop: true, localAddress: \"2001:db8::1\"",
            "address: 192.0.2.2, asn: 65001, holdTime: 0, minHoldTime: 30, localAs: 65002, interface: eth0.100",
        ] {
            Settings::parse(&file("", neighbor)).unwrap_or_else(|error| panic!("{neighbor}: {error}"));
        }
    }
}
