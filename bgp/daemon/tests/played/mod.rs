//! Peers that a test plays itself, over real sockets on loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use manx_bgp::Family;
use manx_bgp::wire::{self, Capability, Context, Message, Open};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For anything that should be quick.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What the kernel keeps for a played peer that does not read, in octets: the rest stays with the speaker.
const BUFFER: usize = 64 * 1024;

/// Everybody's AS.
pub(crate) const ASN: u32 = 64512;

/// A connection to the speaker from an address of our own.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind((from, 0).into())
        .expect("loopback addresses are free");
    socket.connect(to).await
}

/// The messages that arrive until the connection ends.
pub(crate) async fn messages_until_end(stream: &mut TcpStream) -> Vec<Message> {
    let mut buffer = BytesMut::new();
    let all = async { while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    timeout(SOON, all)
        .await
        .expect("the speaker closes the connection");
    messages(&mut buffer)
}

/// The whole messages at the front of a buffer.
pub(crate) fn messages(buffer: &mut BytesMut) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(frame) = wire::frame(buffer, wire::MAX_MESSAGE).expect("whole messages") {
        messages.push(wire::decode(&frame, &context()).expect("decodable messages"));
    }
    messages
}

/// How messages are coded on a session that was played up.
pub(crate) fn context() -> Context {
    Context {
        four_octet_as: true,
        families: vec![Family::Ipv4Unicast],
        ..Context::default()
    }
}

/// Sends a message.
pub(crate) async fn send(stream: &mut TcpStream, message: &Message) {
    let bytes = wire::encode(message, &context());
    stream.write_all(&bytes).await.expect("the speaker reads");
}

/// Opens a session as a peer would; returns with both KEEPALIVEs exchanged.
pub(crate) async fn play(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    play_with(from, to, 90).await
}

/// The same, with a hold time in seconds.
pub(crate) async fn play_with(from: Ipv4Addr, to: SocketAddr, hold_time: u16) -> TcpStream {
    let mut stream = connect(from, to).await.expect("the speaker listens");
    SockRef::from(&stream)
        .set_recv_buffer_size(BUFFER)
        .expect("settable");
    let capabilities = vec![
        Capability::Multiprotocol(Family::Ipv4Unicast),
        Capability::RouteRefresh,
        Capability::FourOctetAs(ASN),
    ];
    let open = Message::Open(Open {
        asn: ASN,
        hold_time,
        router_id: from,
        capabilities,
    });
    send(&mut stream, &open).await;
    send(&mut stream, &Message::Keepalive).await;
    let mut buffer = BytesMut::new();
    let keepalive = async {
        while !messages(&mut buffer).contains(&Message::Keepalive) {
            let read = stream.read_buf(&mut buffer).await.expect("the connection lives");
            assert_ne!(read, 0, "closed");
        }
    };
    timeout(SOON, keepalive).await.expect("the speaker answers");
    stream
}
