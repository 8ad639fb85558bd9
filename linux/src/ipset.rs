//! Sets of addresses that rules name: listed and changed over netlink, as `ipset` does it, and without a program.
//!
//! A pod that comes or goes is a member more or less, so that is all its ADD and DEL cost here: a few messages.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::mem::discriminant;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_policy::{Family, MAX_MEMBERS, Member, Protocol, Sense, Set, SetChange, SetKind, family_of_set};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader,
    NetlinkSerializable, NlasIterator,
};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::nl;

/// Changes that one [`SetSocket::advance`] makes at most: some 10 ms of work.
const AT_ONCE: usize = 4096;

/// `NFNL_SUBSYS_IPSET`, in the high octet of a message's type; the command is in the low one.
const SUBSYSTEM: u16 = 6 << 8;

/// The protocol's version since Linux 2.6.39; the next one adds commands that are of no use here.
const PROTOCOL: u8 = 6;

/// Bytes of a nfnetlink message in front of its attributes (`struct nfgenmsg`).
const FAMILY_HEADER: usize = 4;

/// Commands (`IPSET_CMD_*`).
mod command {
    pub(super) const CREATE: u8 = 2;
    pub(super) const DESTROY: u8 = 3;
    pub(super) const LIST: u8 = 7;
    pub(super) const ADD: u8 = 9;
    pub(super) const DEL: u8 = 10;
}

/// Attributes of a command, of a set and of a member (`IPSET_ATTR_*`).
mod attribute {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const TYPE_NAME: u16 = 3;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const DATA: u16 = 7;
    pub(super) const MEMBERS: u16 = 8;

    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PREFIX: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const PROTO: u16 = 7;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const MAX_MEMBERS: u16 = 19;
    pub(super) const INTERFACE: u16 = 23;

    pub(super) const IPV4: u16 = 1;
    pub(super) const IPV6: u16 = 2;
}

/// The flag of a member that is an exception (`IPSET_FLAG_NOMATCH`).
const EXCEPT: u32 = 1 << 2;

/// A socket for the sets of the namespace it was opened in.
#[derive(Debug)]
pub struct SetSocket(nl::Socket<Message>);

impl SetSocket {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`].
    pub fn open() -> Result<Self> {
        nl::Socket::open().map(Self)
    }

    /// Opens it in another namespace.
    ///
    /// # Errors
    /// As [`nl::Socket::open`], or if the namespace cannot be entered.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// The sets that have names of ours, each without content if it is not as we make them. A kernel that knows of
    /// no sets has none.
    ///
    /// # Errors
    /// As [`nl::Socket::dump`].
    pub fn list(&mut self) -> Result<BTreeMap<String, Option<Set>>> {
        let answers = match self.0.dump(&Message::new(command::LIST), "list sets") {
            // No such subsystem.
            Err(error) if error.errno() == Some(Errno::EINVAL) => return Ok(BTreeMap::new()),
            other => other?,
        };
        let mut sets = BTreeMap::new();
        for answer in answers {
            take_in(&answer.attributes.0, &mut sets)?;
        }
        Ok(sets)
    }

    /// Makes the first of the changes: one, or several by which the same set gains or loses members. So nothing is
    /// done behind one that fails, but for members of the same set. Returns how many.
    ///
    /// # Errors
    /// [`Error::Refused`] with the change, and the kernel's answer.
    pub fn advance(&mut self, changes: &[SetChange]) -> Result<usize> {
        let Some(first) = changes.first() else {
            return Ok(0);
        };
        let others = changes[1..].iter().take(AT_ONCE - 1);
        let alike = others.take_while(|other| may_go_together(first, other)).count();
        let group = &changes[..=alike];
        // Without "exclusive", a member that is there already is no failure, nor is one that is not.
        let requests = group.iter().map(|change| nl::Request {
            message: request(change),
            flags: 0,
        });
        for (change, outcome) in group.iter().zip(self.0.batch(requests)?) {
            let gone = |errno| errno == Errno::ENOENT && matches!(change, SetChange::Destroy { .. });
            match outcome {
                Err(refusal) if !gone(refusal.errno) => {
                    let doing = change.to_string();
                    return Err(Error::Refused { doing, refusal });
                }
                Err(_) | Ok(()) => {}
            }
        }
        Ok(group.len())
    }
}

fn may_go_together(one: &SetChange, other: &SetChange) -> bool {
    let members = |change: &SetChange| match change {
        SetChange::Put { .. } | SetChange::Remove { .. } => true,
        SetChange::Create { .. } | SetChange::Destroy { .. } => false,
    };
    members(one) && discriminant(one) == discriminant(other) && one.set() == other.set()
}

fn request(change: &SetChange) -> Message {
    match change {
        SetChange::Create { name, family, kind } => {
            let mut message = Message::about(command::CREATE, name);
            let attributes = &mut message.attributes;
            attributes.put_text(attribute::TYPE_NAME, kind.ipset_name());
            attributes.put(attribute::REVISION, &[revision(*kind)]);
            attributes.put(attribute::FAMILY, &[number_of(*family)]);
            attributes.nest(attribute::DATA, |data| {
                data.put_ordered(attribute::MAX_MEMBERS, &MAX_MEMBERS.to_be_bytes());
            });
            message
        }
        SetChange::Put { set, member, sense } => {
            let mut message = Message::about(command::ADD, set);
            message.attributes.nest(attribute::DATA, |data| {
                put_member(data, member);
                if *sense == Sense::Except {
                    data.put_ordered(attribute::FLAGS, &EXCEPT.to_be_bytes());
                }
            });
            message
        }
        SetChange::Remove { set, member } => {
            let mut message = Message::about(command::DEL, set);
            message
                .attributes
                .nest(attribute::DATA, |data| put_member(data, member));
            message
        }
        SetChange::Destroy { name } => Message::about(command::DESTROY, name),
    }
}

fn put_member(data: &mut Attributes, member: &Member) {
    match member {
        Member::Net(net) => put_net(data, *net),
        Member::NetBehind(net, interface) => {
            put_net(data, *net);
            data.put_text(attribute::INTERFACE, interface);
        }
        Member::Port(address, protocol, port) => {
            put_address(data, *address);
            data.put_ordered(attribute::PORT, &port.to_be_bytes());
            data.put(attribute::PROTO, &[protocol.0]);
        }
    }
}

fn put_net(data: &mut Attributes, net: IpNetwork) {
    put_address(data, net.ip());
    data.put(attribute::PREFIX, &[net.prefix()]);
}

fn put_address(data: &mut Attributes, address: IpAddr) {
    data.nest(attribute::ADDRESS, |nested| match address {
        IpAddr::V4(v4) => nested.put_ordered(attribute::IPV4, &v4.octets()),
        IpAddr::V6(v6) => nested.put_ordered(attribute::IPV6, &v6.octets()),
    });
}

/// The first revision of a type that has all that we use: exceptions, and every protocol with ports. A later one would
/// be hidden from an `ipset` that is older than the kernel.
const fn revision(kind: SetKind) -> u8 {
    match kind {
        SetKind::Nets | SetKind::NetsBehind => 2,
        SetKind::Ports => 1,
    }
}

fn number_of(family: Family) -> u8 {
    match family {
        Family::V4 => AddressFamily::Inet.into(),
        Family::V6 => AddressFamily::Inet6.into(),
    }
}

/// Takes in a part of a listing: a set's kind where it begins, and members.
fn take_in(answer: &[u8], sets: &mut BTreeMap<String, Option<Set>>) -> Result<()> {
    let malformed = || Error::Malformed("a set without a name".to_owned());
    let name = text(answer, attribute::SET_NAME).ok_or_else(malformed)?;
    let Some(family) = family_of_set(name) else {
        return Ok(());
    };
    if text(answer, attribute::TYPE_NAME).is_some() {
        let set = kind_of(answer, family).map(|kind| Set {
            family,
            kind,
            members: BTreeMap::new(),
        });
        sets.insert(name.to_owned(), set);
    }
    if let Some(entry @ Some(_)) = sets.get_mut(name) {
        let members = get(answer, attribute::MEMBERS).unwrap_or_default();
        for (_, data) in parts(members) {
            match entry.as_mut().map(|set| (read_member(set.kind, data), set)) {
                Some((Some((member, sense)), set)) => drop(set.members.insert(member, sense)),
                Some((None, _)) | None => *entry = None,
            }
        }
    }
    Ok(())
}

/// What a set of ours is made of; none if it is not as we make them.
fn kind_of(answer: &[u8], family: Family) -> Option<SetKind> {
    let name = text(answer, attribute::TYPE_NAME)?;
    let expires = get(get(answer, attribute::DATA)?, attribute::TIMEOUT).is_some();
    let ours = octet(answer, attribute::FAMILY) == Some(number_of(family)) && !expires;
    let kind = SetKind::ALL.into_iter().find(|kind| kind.ipset_name() == name);
    kind.filter(|_| ours)
}

/// A member of a kind of set; none if it is none that we make.
fn read_member(kind: SetKind, data: &[u8]) -> Option<(Member, Sense)> {
    let address = read_address(get(data, attribute::ADDRESS)?)?;
    let net = || IpNetwork::new(address, octet(data, attribute::PREFIX)?).ok();
    let member = match kind {
        SetKind::Nets => Member::Net(net()?),
        SetKind::NetsBehind => Member::NetBehind(net()?, text(data, attribute::INTERFACE)?.into()),
        SetKind::Ports => {
            let number = octet(data, attribute::PROTO)?;
            let protocol = Protocol::WITH_PORTS.into_iter().find(|known| known.0 == number)?;
            let port = get(data, attribute::PORT)?.try_into().ok()?;
            Member::Port(address, protocol, u16::from_be_bytes(port))
        }
    };
    let flags = get(data, attribute::FLAGS).unwrap_or(&[0; 4]).try_into().ok()?;
    match u32::from_be_bytes(flags) {
        0 => Some((member, Sense::Match)),
        EXCEPT => Some((member, Sense::Except)),
        _ => None,
    }
}

fn read_address(nested: &[u8]) -> Option<IpAddr> {
    match parts(nested).next()? {
        (attribute::IPV4, octets) => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        (attribute::IPV6, octets) => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        _ => None,
    }
}

/// A command with its attributes, and an answer with its own.
#[derive(Debug)]
struct Message {
    command: u8,
    attributes: Attributes,
}

impl Message {
    fn new(command: u8) -> Self {
        let mut attributes = Attributes::default();
        attributes.put(attribute::PROTOCOL, &[PROTOCOL]);
        Self { command, attributes }
    }

    fn about(command: u8, set: &str) -> Self {
        let mut message = Self::new(command);
        message.attributes.put_text(attribute::SET_NAME, set);
        message
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        SUBSYSTEM | u16::from(self.command)
    }

    fn buffer_len(&self) -> usize {
        FAMILY_HEADER + self.attributes.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..FAMILY_HEADER].copy_from_slice(&[AddressFamily::Inet.into(), 0, 0, 0]);
        buffer[FAMILY_HEADER..].copy_from_slice(&self.attributes.0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let [command, _] = header.message_type.to_le_bytes();
        let attributes = payload.get(FAMILY_HEADER..).unwrap_or_default();
        Ok(Self {
            command,
            attributes: Attributes(attributes.to_vec()),
        })
    }
}

impl nl::Message for Message {
    const PROTOCOL: isize = NETLINK_NETFILTER;

    fn words(code: i32) -> Option<String> {
        let words = match code {
            4097 => "the set does not take this",
            4098 => "the kernel has no sets of this kind",
            4099 => "there are as many sets as there may be",
            4100 => "the set is used, by a rule or another set",
            4102 => "there is a set of this name, of another kind",
            4104 => "the set takes no networks of this length",
            4106 => "the set is of the other family",
            4108 => "the set is a member of another set",
            4352 => "the set is full",
            4096.. => return Some(format!("ipset's error {code}")),
            _ => return None,
        };
        Some(words.to_owned())
    }
}

/// Attributes as they are on the wire.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let begin = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.close(begin);
    }

    /// Puts a number whose octets are in the network's order.
    fn put_ordered(&mut self, kind: u16, value: &[u8]) {
        self.put(kind | NLA_F_NET_BYTEORDER, value);
    }

    fn put_text(&mut self, kind: u16, text: &str) {
        self.put(kind, &[text.as_bytes(), b"\0"].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend((kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        self.close(begin);
    }

    /// Writes the length of the attribute that begins there, and pads it.
    fn close(&mut self, begin: usize) {
        let length = u16::try_from(self.0.len() - begin).unwrap_or(u16::MAX);
        self.0[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The attributes among some octets, each with its kind.
fn parts(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let whole = NlasIterator::new(octets).filter_map(std::result::Result::ok);
    whole.map(|nla| {
        (
            nla.kind(),
            &nla.into_inner()[NLA_HEADER_SIZE..nla.length().into()],
        )
    })
}

fn get(octets: &[u8], kind: u16) -> Option<&[u8]> {
    parts(octets).find_map(|(found, value)| (found == kind).then_some(value))
}

fn text(octets: &[u8], kind: u16) -> Option<&str> {
    let text = get(octets, kind)?.strip_suffix(b"\0")?;
    std::str::from_utf8(text).ok()
}

fn octet(octets: &[u8], kind: u16) -> Option<u8> {
    get(octets, kind)?.first().copied()
}
