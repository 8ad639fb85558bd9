//! The wire to the kernel: netlink.
//!
//! A [`Socket`] speaks one protocol, rtnetlink where nothing else is said. It sends [`Request`]s and reads what comes back, in the calling thread. The kernel works
//! through a message before `send` returns, so nothing here waits for anything but the kernel itself.
//!
//! [`Socket::batch`] packs requests into datagrams of [`DATAGRAM`] bytes and asks for an acknowledgement of
//! the last of each only: the kernel reports every failure by its sequence number anyhow, so no word means
//! success, and hundreds of messages cost two system calls.

use std::fmt;
use std::io;
use std::iter::Peekable;
use std::marker::PhantomData;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_netfilter::NetfilterMessage;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{self, SocketAddr};
use socket2::SockRef;

use crate::error::{Error, Refusal, Result};

/// Bytes that one `send` carries at most: some 500 routes. Larger ones gain nothing.
const DATAGRAM: usize = 32 * 1024;

/// Bytes of the kernel's queue towards us. Every failure in a batch waits there as a message of its own.
const RECEIVE_QUEUE: usize = 4 * 1024 * 1024;

/// The kernel's largest dump datagram is 32 KiB; single messages are smaller.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// How often a dump is started over because the table changed meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// Bytes of a netlink message's header.
const HEADER: usize = 16;

/// The attribute of an acknowledgement that holds the kernel's own words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The messages of a netlink protocol.
pub trait Message: NetlinkSerializable + NetlinkDeserializable + fmt::Debug {
    /// Its number.
    const PROTOCOL: isize;

    /// What an error means that is no error number of the system's.
    #[must_use]
    fn words(_code: i32) -> Option<String> {
        None
    }
}

impl Message for RouteNetlinkMessage {
    const PROTOCOL: isize = NETLINK_ROUTE;
}

impl Message for NetfilterMessage {
    const PROTOCOL: isize = NETLINK_NETFILTER;
}

/// A message to the kernel.
#[derive(Clone, Debug)]
pub struct Request<M = RouteNetlinkMessage> {
    /// What.
    pub message: M,
    /// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_REPLACE` and the like; the socket adds what transport needs.
    pub flags: u16,
}

/// A blocking netlink socket, for life in the namespace it was opened in.
#[derive(Debug)]
pub struct Socket<M = RouteNetlinkMessage> {
    inner: sys::Socket,
    port: u32,
    sequence: u32,
    received: Vec<u8>,
    speaks: PhantomData<M>,
}

impl<M: Message> Socket<M> {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Os`] where the process may not have sockets or no more files.
    pub fn open() -> Result<Self> {
        let (inner, port) = open(M::PROTOCOL, RECEIVE_QUEUE).map_err(Error::os("open a netlink socket"))?;
        let timeout = Some(Duration::from_secs(10));
        SockRef::from(&inner)
            .set_read_timeout(timeout)
            .map_err(Error::os("set a netlink socket's timeout"))?;
        Ok(Self {
            inner,
            port,
            sequence: 0,
            received: Vec::with_capacity(RECEIVE_BUFFER),
            speaks: PhantomData,
        })
    }

    /// The socket's address: the kernel marks what it announces of this socket's doing with it.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// The bare socket, for whoever waits for what the kernel sends by itself.
    pub(crate) fn into_inner(self) -> sys::Socket {
        self.inner
    }

    /// Sends a message and waits for its acknowledgement. `doing` completes "cannot …" in the error.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn request(&mut self, request: Request<M>, doing: &str) -> Result<()> {
        self.batch([request])?
            .pop()
            .unwrap_or(Ok(()))
            .map_err(|refusal| Error::Refused {
                doing: doing.to_owned(),
                refusal,
            })
    }

    /// Sends messages in order, each after the one before it was worked through, failed or not; returns
    /// what became of each.
    ///
    /// # Errors
    /// [`Error::Overrun`] or [`Error::Os`] when it is not known what became of them.
    pub fn batch(
        &mut self,
        requests: impl IntoIterator<Item = Request<M>>,
    ) -> Result<Vec<Result<(), Refusal>>> {
        let mut requests = requests.into_iter().peekable();
        let mut outcomes = Vec::with_capacity(requests.size_hint().0);
        let mut datagram = Vec::with_capacity(DATAGRAM);
        while requests.peek().is_some() {
            datagram.clear();
            let first = self.sequence.wrapping_add(1);
            let taken = self.pack(&mut requests, &mut datagram);
            self.send(&datagram)?;
            outcomes.extend(self.acknowledged(first, taken)?);
        }
        Ok(outcomes)
    }

    /// Sends a message that asks for one answer, and returns that.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn get(&mut self, message: M, doing: &str) -> Result<M> {
        let mut answer = None;
        self.exchange(&message, 0, doing, |message| answer = Some(message))?;
        answer.ok_or_else(|| Error::Malformed(format!("no answer to: {doing}")))
    }

    /// Reads a table: `message` holds the filter.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer; [`Error::Interrupted`] when the table never held still.
    pub fn dump(&mut self, message: &M, doing: &str) -> Result<Vec<M>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut answers = Vec::new();
            let whole = self.exchange(message, NLM_F_DUMP, doing, |message| answers.push(message))?;
            if whole {
                return Ok(answers);
            }
        }
        Err(Error::Interrupted)
    }

    /// Reads a table that need not hold still, and hands over each entry as it comes: the kernel goes on when they are
    /// taken. `message` holds the filter.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's answer.
    pub fn walk(&mut self, message: &M, doing: &str, each: impl FnMut(M)) -> Result<()> {
        self.exchange(message, NLM_F_DUMP, doing, each).map(drop)
    }

    /// Appends as many requests as fit, one at least, the last with an acknowledgement; returns how many.
    fn pack(
        &mut self,
        requests: &mut Peekable<impl Iterator<Item = Request<M>>>,
        datagram: &mut Vec<u8>,
    ) -> usize {
        let (mut taken, mut last) = (0, 0);
        let fits = |request: &Request<M>, filled: usize| {
            filled == 0 || filled + HEADER + request.message.buffer_len() <= DATAGRAM
        };
        while let Some(request) = requests.next_if(|request| fits(request, datagram.len())) {
            last = datagram.len();
            self.encode(&request.message, request.flags, datagram);
            taken += 1;
        }
        let flags = u16::from_ne_bytes([datagram[last + 6], datagram[last + 7]]) | NLM_F_ACK;
        datagram[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        taken
    }

    /// Appends one message with the next sequence number, padded to the alignment.
    fn encode(&mut self, message: &M, flags: u16, datagram: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let start = datagram.len();
        let length = HEADER + message.buffer_len();
        datagram.resize(start + length.next_multiple_of(4), 0);
        let bytes = &mut datagram[start..start + length];
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&message.message_type().to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        message.serialize(&mut bytes[HEADER..]);
    }

    fn send(&self, datagram: &[u8]) -> Result<()> {
        self.inner
            .send(datagram, 0)
            .map(drop)
            .map_err(Error::os("send a netlink message"))
    }

    /// Reads until the last of `count` messages from `first` on is acknowledged.
    fn acknowledged(&mut self, first: u32, count: usize) -> Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = vec![Ok(()); count];
        loop {
            self.receive()?;
            for message in messages(&self.received) {
                let (header, payload) = message?;
                let index = header.sequence_number.wrapping_sub(first) as usize;
                if header.message_type != NLMSG_ERROR || index >= count {
                    continue;
                }
                if let Some(refusal) = refusal::<M>(&header, payload)? {
                    outcomes[index] = Err(refusal);
                }
                if index + 1 == count {
                    return Ok(outcomes);
                }
            }
        }
    }

    /// Sends one request and hands over its answers; returns whether they are one consistent picture.
    fn exchange(&mut self, message: &M, flags: u16, doing: &str, mut each: impl FnMut(M)) -> Result<bool> {
        let mut datagram = Vec::new();
        self.encode(
            message,
            flags | if flags == 0 { NLM_F_ACK } else { 0 },
            &mut datagram,
        );
        self.send(&datagram)?;
        let mut whole = true;
        loop {
            self.receive()?;
            for message in messages(&self.received) {
                let (header, payload) = message?;
                if header.sequence_number != self.sequence {
                    continue;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => match refusal::<M>(&header, payload)? {
                        Some(refusal) => {
                            return Err(Error::Refused {
                                doing: doing.to_owned(),
                                refusal,
                            });
                        }
                        None => return Ok(whole),
                    },
                    _ => each(decode(&header, payload)?),
                }
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        receive(&self.inner, &mut self.received).map_err(|error| match Errno::try_from(error) {
            Ok(Errno::ENOBUFS) => Error::Overrun,
            Ok(errno) => Error::os("read the kernel's answer")(errno.into()),
            Err(error) => Error::os("read the kernel's answer")(error),
        })
    }
}

impl<M> AsFd for Socket<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Opens a bound socket with every option that tells more; returns it with its address.
pub(crate) fn open(protocol: isize, receive_queue: usize) -> io::Result<(sys::Socket, u32)> {
    let mut socket = sys::Socket::new(protocol)?;
    let port = socket.bind_auto()?.port_number();
    socket.connect(&SocketAddr::new(0, 0))?;
    // Answers carry the kernel's words, and not our message once more; dumps honour their filters.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.set_netlink_get_strict_chk(true)?;
    // Beyond the system's limit where we may, up to it where not.
    if setsockopt(&socket, sockopt::RcvBufForce, &receive_queue).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &receive_queue)?;
    }
    Ok((socket, port))
}

/// Reads one datagram into the emptied buffer.
pub(crate) fn receive(socket: &sys::Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(RECEIVE_BUFFER);
    loop {
        match socket.recv(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// The messages of a datagram: header and payload.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Result<(NetlinkHeader, &[u8])>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Some(header) = header(datagram) else {
            datagram = &[];
            return Some(Err(Error::Malformed("a message longer than its datagram".into())));
        };
        let length = header.length as usize;
        let payload = &datagram[HEADER..length];
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((header, payload)))
    })
}

/// The header at the start of a datagram, if it describes a message that is all there.
fn header(datagram: &[u8]) -> Option<NetlinkHeader> {
    let word = |at: usize| Some(u32::from_ne_bytes(datagram.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
    let mut header = NetlinkHeader::default();
    header.length = word(0)?;
    header.message_type = half(4)?;
    header.flags = half(6)?;
    header.sequence_number = word(8)?;
    header.port_number = word(12)?;
    (HEADER..=datagram.len())
        .contains(&(header.length as usize))
        .then_some(header)
}

/// A message's meaning.
pub(crate) fn decode<M: Message>(header: &NetlinkHeader, payload: &[u8]) -> Result<M> {
    M::deserialize(header, payload).map_err(|error| Error::Malformed(error.to_string()))
}

/// What an `NLMSG_ERROR` says; none if it acknowledges.
fn refusal<M: Message>(header: &NetlinkHeader, payload: &[u8]) -> Result<Option<Refusal>> {
    let error = ErrorBuffer::new_checked(payload).map_err(|error| Error::Malformed(error.to_string()))?;
    let Some(code) = error.code().map(NonZeroI32::get) else {
        return Ok(None);
    };
    let echoed = if header.flags & NLM_F_CAPPED == 0 {
        self::header(error.payload())
    } else {
        None
    };
    let attributes_at = echoed.map_or(HEADER, |echo| (echo.length as usize).next_multiple_of(4));
    let attributes = error.payload().get(attributes_at..).unwrap_or_default();
    let words = (header.flags & NLM_F_ACK_TLVS != 0).then(|| {
        NlasIterator::new(attributes)
            .filter_map(std::result::Result::ok)
            .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
    });
    let message = words.flatten().map(|nla| {
        String::from_utf8_lossy(nla.value())
            .trim_end_matches('\0')
            .to_owned()
    });
    let code = code.wrapping_neg();
    Ok(Some(Refusal {
        errno: Errno::from_raw(code),
        message: message.or_else(|| M::words(code)),
    }))
}
