//! Connections as the kernel tracks them: listed, and forgotten.
//!
//! Rules let the packets of established connections pass, so a connection lives on under the rules it began with
//! until the kernel forgets it. Then its next packet is a new connection's first, and meets today's rules.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel adds attributes; others' are passed over"
)]

use std::net::SocketAddr;

use manx_policy::Family;
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;
use rtnetlink::packet_core::Nla as _;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::{nl, sysctl};

/// The attribute that tells apart connections of the same addresses and ports in different zones (`CTA_ZONE`).
const ZONE: u16 = 18;

/// How many connections the namespace has; missing where nothing tracks any.
const COUNT: &str = "netfilter/nf_conntrack_count";

/// A connection, as its first packet made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol, by IANA's number.
    pub protocol: u8,
    /// Who began it: port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Whom it was sent to: a service's address, for one.
    pub destination: SocketAddr,
    /// Who answers: the pod behind the service. Rules for forwarded packets saw this one.
    pub answerer: SocketAddr,
    /// Whom the answers are sent to: the node, if it hides the source behind its address.
    pub answered: SocketAddr,
    identity: Vec<ConntrackAttribute>,
}

impl Connection {
    /// Both ends, before translation and after it.
    #[must_use]
    pub const fn ends(&self) -> [SocketAddr; 4] {
        [self.source, self.destination, self.answerer, self.answered]
    }
}

/// A socket for the connections of the namespace it was opened in.
#[derive(Debug)]
pub struct ConnectionSocket(nl::Socket<NetfilterMessage>);

impl ConnectionSocket {
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

    /// Whether any connection is tracked in the calling thread's namespace. Cheap, where listing walks a table that all
    /// namespaces share, however empty it is.
    #[must_use]
    pub fn any() -> bool {
        sysctl::get(COUNT).is_ok_and(|count| count != "0")
    }

    /// Hands over the connections of one family in turn. The table may be long, and is never held as a whole. The
    /// kernel keeps it going meanwhile: a connection that begins or ends may be among them or not.
    ///
    /// # Errors
    /// As [`nl::Socket::walk`].
    pub fn walk(&mut self, family: Family, mut each: impl FnMut(Connection)) -> Result<()> {
        let get = message(family, ConntrackMessage::Get(Vec::new()));
        let each = |answer| connection(answer).into_iter().for_each(&mut each);
        self.0.walk(&get, &format!("list {family} connections"), each)
    }

    /// All connections of one family, as [`Self::walk`] hands them over.
    ///
    /// # Errors
    /// As [`nl::Socket::walk`].
    pub fn list(&mut self, family: Family) -> Result<Vec<Connection>> {
        let mut all = Vec::new();
        self.walk(family, |connection| all.push(connection))?;
        Ok(all)
    }

    /// Has the kernel forget connections; those that have ended already are no news. One that began anew between
    /// the same ends is forgotten too: it loses nothing but a look at today's rules. Returns how many were forgotten.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's first answer of another kind; it has been asked about all of them then.
    pub fn forget<'a>(&mut self, connections: impl IntoIterator<Item = &'a Connection>) -> Result<usize> {
        let requests = connections.into_iter().map(|connection| {
            let family = match connection.source {
                SocketAddr::V4(_) => Family::V4,
                SocketAddr::V6(_) => Family::V6,
            };
            nl::Request {
                message: message(family, ConntrackMessage::Delete(connection.identity.clone())),
                flags: 0,
            }
        });
        let mut forgotten = 0;
        let mut failed = None;
        for outcome in self.0.batch(requests)? {
            match outcome {
                Ok(()) => forgotten += 1,
                Err(refusal) if refusal.errno == Errno::ENOENT => {}
                Err(refusal) => failed = failed.or(Some(refusal)),
            }
        }
        match failed {
            None => Ok(forgotten),
            Some(refusal) => Err(Error::Refused {
                doing: "forget connections".to_owned(),
                refusal,
            }),
        }
    }
}

fn message(family: Family, what: ConntrackMessage) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), what)
}

/// The connection that an answer describes.
fn connection(answer: NetfilterMessage) -> Option<Connection> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = answer.inner else {
        return None;
    };
    let (mut original, mut reply) = (None, None);
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuples) => original = ends(tuples),
            ConntrackAttribute::CtaTupleReply(tuples) => reply = ends(tuples),
            _ => {}
        }
    }
    let (protocol, source, destination) = original?;
    let (_, answerer, answered) = reply?;
    let mut identity = attributes;
    identity.retain(|attribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => other.kind() == ZONE,
        _ => false,
    });
    Some(Connection {
        protocol,
        source,
        destination,
        answerer,
        answered,
        identity,
    })
}

/// The protocol of one direction, who sends and who gets.
fn ends(tuples: &[Tuple]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (mut source, mut destination, mut protocol) = (None, None, None);
    let (mut from, mut to) = (0, 0);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => from = *port,
                        ProtoTuple::DestinationPort(port) => to = *port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((
        protocol?,
        SocketAddr::new(source?, from),
        SocketAddr::new(destination?, to),
    ))
}
