//! Packets that rules log (`-j NFLOG`): each with the rule's prefix, and what its headers say.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel adds attributes; others' are passed over"
)]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket};
use netlink_packet_netfilter::nflog::{
    ConfigCmd, ConfigMode, ConfigNla, CopyMode, PacketNla, Timeout, ULogMessage, config_request,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nix::errno::Errno;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::sys;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::{nl, watch};

/// Bytes of a packet that are asked for: every header up to the ports, with options and extensions.
const HEADERS: u32 = 256;

/// How long the kernel keeps packets back to send several at once. By itself it takes a second.
const BATCHED: Duration = Duration::from_millis(50);

/// Protocols whose packets begin with the sender's port and the receiver's.
const WITH_PORTS: [IpNumber; 5] = [
    IpNumber::TCP,
    IpNumber::UDP,
    IpNumber::SCTP,
    IpNumber::UDP_LITE,
    IpNumber::DCCP,
];

/// A packet that a rule logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The prefix of the rule.
    pub prefix: String,
    /// The index of the interface that it came by.
    pub from: Option<u32>,
    /// The index of the interface that it would leave by.
    pub to: Option<u32>,
    /// Its protocol, by IANA's number.
    pub protocol: u8,
    /// Who sent it: port 0 where the protocol has none, and in fragments but the first.
    pub source: SocketAddr,
    /// Whom to.
    pub destination: SocketAddr,
}

/// The packets of one group, from now on.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<sys::Socket>,
    buffer: Vec<u8>,
    waiting: VecDeque<Logged>,
}

impl Listener {
    /// Listens to a group of a namespace. Wants a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer: `EPERM` also if somebody else listens to the group.
    pub fn open_in(netns: &Netns, group: u16) -> Result<Self> {
        let socket = netns.run(|| subscribe(group))??;
        Ok(Self {
            socket: watch::register(socket)?,
            buffer: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    /// The next packet that could be read. Those that came while nobody asked, beyond what the socket holds, are
    /// lost. Nothing else is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::Os`] if the kernel cannot be heard any more.
    pub async fn next(&mut self) -> Result<Logged> {
        loop {
            if let Some(logged) = self.waiting.pop_front() {
                return Ok(logged);
            }
            let ready = self.socket.readable().await;
            let mut ready = ready.map_err(Error::os("listen to logged packets"))?;
            match ready.try_io(|socket| nl::receive(socket.get_ref(), &mut self.buffer)) {
                Err(_) => continue,
                Ok(Ok(())) => {}
                // Some were lost; those that follow are not.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => continue,
                Ok(Err(error)) => return Err(Error::os("listen to logged packets")(error)),
            }
            for message in nl::messages(&self.buffer) {
                let (header, payload) = message?;
                self.waiting
                    .extend(nl::decode(&header, payload).ok().and_then(logged));
            }
        }
    }
}

fn subscribe(group: u16) -> Result<sys::Socket> {
    let mut socket = nl::Socket::<NetfilterMessage>::open()?;
    let settings: [ConfigNla; 3] = [
        ConfigCmd::Bind.into(),
        ConfigMode::new(HEADERS, CopyMode::Packet).into(),
        Timeout::from(BATCHED).into(),
    ];
    for setting in settings {
        let request = config_request(NetfilterProtoFamily::Unspec, group, vec![setting]);
        let NetlinkPayload::InnerMessage(message) = request.payload else {
            continue;
        };
        let request = nl::Request { message, flags: 0 };
        socket.request(request, &format!("listen to packets logged to group {group}"))?;
    }
    let socket = socket.into_inner();
    let unblocked = socket.set_non_blocking(true);
    unblocked.map_err(Error::os("listen to logged packets"))?;
    Ok(socket)
}

/// What a message tells of a packet; none of what is no IP packet.
fn logged(message: NetfilterMessage) -> Option<Logged> {
    let NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) = message.inner else {
        return None;
    };
    let (mut prefix, mut from, mut to, mut packet) = (String::new(), None, None, Vec::new());
    for attribute in attributes {
        match attribute {
            PacketNla::Prefix(text) => prefix = text.to_string_lossy().into_owned(),
            PacketNla::IfIndexInDev(index) => from = Some(index),
            PacketNla::IfIndexOutDev(index) => to = Some(index),
            PacketNla::Payload(bytes) => packet = bytes,
            _ => {}
        }
    }
    let (protocol, source, destination) = headers(&packet)?;
    Some(Logged {
        prefix,
        from,
        to,
        protocol,
        source,
        destination,
    })
}

/// The protocol of a packet that may be cut short, who sent it and whom to.
fn headers(packet: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
    let (source, destination, rest): (IpAddr, IpAddr, _) = match sliced.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload(),
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let (from, to) = match rest.payload {
        &[a, b, c, d, ..] if WITH_PORTS.contains(&rest.ip_number) && !rest.fragmented => {
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        _ => (0, 0),
    };
    Some((
        rest.ip_number.0,
        SocketAddr::new(source, from),
        SocketAddr::new(destination, to),
    ))
}
