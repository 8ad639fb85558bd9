//! What peers and strangers can make a running speaker keep, and whom they can keep waiting.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use manx_bgp::wire::{
    self, Attributes, Message, NextHop, Nlri, Notification, Reach, RouteRefresh, UnknownAttribute, Update,
};
use manx_bgp::{Family, Prefix};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::played::{SOON, connect, messages, messages_until_end, play, play_with, send};
use crate::{Bgpd, Port, address};

/// Number 1, which reflects routes among whoever connects from its /24.
fn reflector(port: Port) -> (Bgpd, SocketAddr) {
    let range = address(0);
    let speaker = Bgpd::start(
        port,
        1,
        &format!(
            "dynamicNeighbors:\n- {{range: {range}/24, asn: 64512, limit: 250, routeReflectorClient: true, \
             nextHopV4: 198.18.0.1}}\n"
        ),
    );
    (speaker, (address(1), port.0).into())
}

/// An address of loopback that is nobody's peer.
fn stranger() -> Ipv4Addr {
    let [_, high, low, _] = address(0).octets();
    Ipv4Addr::new(127, high & 0x7f | 0x40, low, 1)
}

/// What `/proc` says of the speaker's process.
fn resident_kib(speaker: &Bgpd) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", speaker.process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("a size in kB")
}

/// How many files and sockets it has open.
fn descriptors(speaker: &Bgpd) -> usize {
    let folder = format!("/proc/{}/fd", speaker.process.id());
    fs::read_dir(folder).expect("it runs").count()
}

fn prefix(number: u32) -> Prefix {
    Prefix::v4(Ipv4Addr::from(0x1400_0000 + (number << 8)), 24).expect("24 bits")
}

/// An announcement of some prefixes with an attribute of so many octets.
fn announcement(numbers: std::ops::Range<u32>, octets: usize) -> Message {
    let mut value = numbers.start.to_be_bytes().to_vec();
    value.resize(octets, 0);
    let unknown = UnknownAttribute {
        flags: 0xc0,
        code: 99,
        value: value.into(),
    };
    let nlri = |number| Nlri {
        path_id: None,
        prefix: prefix(number),
    };
    Message::Update(Update {
        reach: vec![Reach {
            next_hop: NextHop::V4(Ipv4Addr::new(198, 18, 0, 2)),
            nlri: numbers.map(nlri).collect(),
        }],
        attributes: Attributes {
            local_pref: Some(100),
            unknown: [unknown].into(),
            ..Attributes::default()
        },
        ..Update::default()
    })
}

/// Reads until all of these prefixes have been announced.
async fn hear(stream: &mut TcpStream, mut wanted: BTreeSet<Prefix>) {
    let mut buffer = BytesMut::new();
    let all = async {
        while !wanted.is_empty() {
            assert_ne!(
                stream.read_buf(&mut buffer).await.expect("the session lives"),
                0,
                "closed"
            );
            for message in messages(&mut buffer) {
                let Message::Update(update) = message else {
                    continue;
                };
                for nlri in update.reach.iter().flat_map(|reach| &reach.nlri) {
                    wanted.remove(&nlri.prefix);
                }
            }
        }
    };
    timeout(SOON, all).await.expect("all prefixes come");
}

/// Each of the peers hears all of these prefixes.
async fn all_hear(readers: Vec<TcpStream>, numbers: std::ops::Range<u32>) -> Vec<TcpStream> {
    let wanted: BTreeSet<Prefix> = numbers.map(prefix).collect();
    let mut hearing = JoinSet::new();
    for mut reader in readers {
        let wanted = wanted.clone();
        hearing.spawn(async move {
            hear(&mut reader, wanted).await;
            reader
        });
    }
    hearing.join_all().await
}

/// nasty case 41: one reader that stalls among 200 peers, and asks for all routes again and again, neither keeps the others
/// waiting nor costs memory, and hears all once it reads.
#[tokio::test]
async fn one_stalled_reader_among_200_peers() {
    let (speaker, to) = reflector(Port(1781));
    let mut source = play(address(2), to).await;
    let mut stalled = play(address(3), to).await;
    let mut readers = Vec::new();
    for host in 4..=201 {
        readers.push(play(address(host), to).await);
    }
    sessions(&speaker, 200).await;
    // 800 KiB for each peer.
    for number in 0..400 {
        send(&mut source, &announcement(number..number + 1, 2_000)).await;
    }
    let readers = all_hear(readers, 0..400).await;
    let before = resident_kib(&speaker);

    let refresh = Message::RouteRefresh(RouteRefresh {
        family: Some(Family::Ipv4Unicast),
        subtype: 0,
    });
    for _ in 0..50 {
        for _ in 0..20 {
            send(&mut stalled, &refresh).await;
        }
        // Apart from each other, so that each batch is looked at by itself.
        sleep(Duration::from_millis(5)).await;
    }
    send(&mut source, &announcement(400..401, 2_000)).await;
    let readers = all_hear(readers, 400..401).await;
    let grown = resident_kib(&speaker).saturating_sub(before);
    assert!(
        grown < 16 * 1024,
        "{grown} KiB more than before, where 50 tables have 40 MiB"
    );
    hear(&mut stalled, (0..401).map(prefix).collect()).await;
    assert_eq!((speaker.established(), readers.len()), (200, 198));
}

/// Announces and withdraws as fast as the speaker reads, for a while.
async fn flood(stream: &mut TcpStream, time: Duration) -> usize {
    let (mut buffer, end, mut messages) = (Vec::new(), Instant::now() + time, 0);
    for round in 0_u32.. {
        for block in 0..100 {
            let first = block * 20;
            let update = announcement(first..first + 20, 4 + (round as usize % 2));
            buffer.extend(wire::encode(&update, &crate::played::context()));
        }
        if timeout(
            end.saturating_duration_since(Instant::now()),
            stream.write_all(&buffer),
        )
        .await
        .is_err()
        {
            break;
        }
        buffer.clear();
        messages += 100;
    }
    messages
}

/// Whether there is a KEEPALIVE among the whole messages at the front of a buffer, which others than it leave undecoded.
fn hears_keepalive(buffer: &mut BytesMut) -> bool {
    let mut heard = false;
    while let Some(frame) = wire::frame(buffer, wire::MAX_MESSAGE).expect("whole messages") {
        // The type, after marker and length (RFC 4271 §4.1).
        heard |= frame[18] == 4;
    }
    heard
}

/// A peer's session as it runs by itself: the longest silence of the speaker, in a while.
async fn keep_alive(mut stream: TcpStream, time: Duration) -> Duration {
    let (mut buffer, start) = (BytesMut::new(), Instant::now());
    let (mut last, mut longest) = (start, Duration::ZERO);
    while start.elapsed() < time {
        send(&mut stream, &Message::Keepalive).await;
        let second = sleep(Duration::from_secs(1));
        tokio::pin!(second);
        loop {
            tokio::select! {
                read = stream.read_buf(&mut buffer) => {
                    assert_ne!(read.expect("the session lives"), 0, "closed");
                    if hears_keepalive(&mut buffer) {
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                    }
                }
                () = &mut second => break,
            }
        }
    }
    longest.max(last.elapsed())
}

/// A peer that floods, and reads nothing of what it makes others say, delays neither the KEEPALIVEs of others nor ours
/// to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_peer_delays_nobodys_keepalives() {
    const HOLD_TIME: u16 = 9;
    const TIME: Duration = Duration::from_secs(12);
    let (speaker, to) = reflector(Port(1782));
    let mut flooding = play(address(2), to).await;
    let mut others = JoinSet::new();
    for host in 3..=7 {
        let other = play_with(address(host), to, HOLD_TIME).await;
        others.spawn(keep_alive(other, TIME));
    }
    let before = resident_kib(&speaker);
    let flooded = flood(&mut flooding, TIME).await;
    let longest = others.join_all().await.into_iter().max().expect("there are some");
    assert!(flooded > 100, "{flooded} messages");
    assert!(
        longest < Duration::from_secs(HOLD_TIME.into()),
        "silent for {longest:?}"
    );
    let grown = resident_kib(&speaker).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for 2,000 prefixes");
}

/// A peer that closes its half of the connection, and still reads, has ended its session: also where more waits for it
/// than it takes.
#[tokio::test]
async fn a_half_closed_connection_ends() {
    let (speaker, to) = reflector(Port(1783));
    let mut source = play(address(2), to).await;
    let mut quiet = play(address(3), to).await;
    let mut stalled = play(address(4), to).await;
    for number in 0..1_000 {
        send(&mut source, &announcement(number..number + 1, 2_000)).await;
    }
    hear(&mut quiet, (0..1_000).map(prefix).collect()).await;
    for half_closed in [&mut quiet, &mut stalled] {
        half_closed.shutdown().await.expect("open until now");
    }
    sessions(&speaker, 1).await;
    for half_closed in [&mut quiet, &mut stalled] {
        messages_until_end(half_closed).await;
    }
    assert_eq!(speaker.peers().len(), 1, "their places are free");
}

/// Waits until so many sessions are up: a peer has done its part before the speaker has read of it.
async fn sessions(speaker: &Bgpd, count: usize) {
    let start = Instant::now();
    while speaker.established() != count {
        assert!(start.elapsed() < SOON, "{}", speaker.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Strangers who keep their side open get as far as a fixed number of connections, and for two seconds; meanwhile peers
/// connect as ever. What one peer opens beyond its session is bounded likewise, and costs its session nothing.
#[tokio::test]
async fn floods_of_connections_take_a_fixed_number_of_sockets() {
    let (speaker, to) = reflector(Port(1784));
    let _peer = play(address(2), to).await;
    let before = descriptors(&speaker);
    let mut most = 0;
    let mut held = Vec::new();
    for from in [stranger(), address(2)] {
        for _ in 0..600 {
            // One too many may be reset before it is made.
            held.extend(connect(from, to).await.ok());
            most = most.max(descriptors(&speaker));
        }
    }
    // Two each for 128 strangers and 16 of the peer, and those that were accepted and not looked at yet.
    assert!(
        most <= before + 2 * (128 + 16) + 256,
        "{most} where there were {before}"
    );
    let _other = play(address(3), to).await;
    sessions(&speaker, 2).await;
    let start = Instant::now();
    // The other peer's, and the one among the flooding peer's that might still bring an OPEN.
    while descriptors(&speaker) > before + 4 {
        assert!(
            start.elapsed() < SOON,
            "{} where there were {before}",
            descriptors(&speaker)
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(speaker.unbroken(), [true, true]);
}

/// Of the connections on which a peer says nothing, the speaker keeps the last one; others end with a reason.
#[tokio::test]
async fn a_peer_that_connects_and_says_nothing_has_one_connection() {
    let (_speaker, to) = reflector(Port(1785));
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(connect(address(2), to).await.expect("it listens"));
    }
    let mut last = silent.pop().expect("five of them");
    for connection in &mut silent {
        let messages = messages_until_end(connection).await;
        let Some(Message::Notification(Notification {
            code: 6, subcode: 7, ..
        })) = messages.last()
        else {
            panic!("{messages:?}");
        };
    }
    let ended = timeout(Duration::from_secs(3), messages_until_end(&mut last)).await;
    assert!(ended.is_err(), "the last one is waited for: {ended:?}");
    play(address(2), to).await;
}
