//! Exchanges between ends, in which the receiver says whom it saw.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::icmp::{Echo, EchoSocket};
use super::{End, Exchange};
use crate::error::{LabError, Result};

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server sleeps before it looks whether to stop.
const QUIET: Duration = Duration::from_millis(20);
/// Where pods answer during a proof; above what the kernel gives out by itself.
const PORT: u16 = 61_179;

/// What a pod answers with.
struct Servers {
    tcp: Vec<TcpListener>,
    icmp: Vec<EchoSocket>,
}

/// An exchange that was tried, with the number that its echo request carried.
struct Tried {
    exchange: Exchange,
    number: u32,
    sender: Option<IpAddr>,
}

/// Every exchange between every two pods, and from every node to every pod.
pub(super) fn all(ends: &[End]) -> Result<Vec<Exchange>> {
    let pods = || ends.iter().filter(|end| end.is_pod);
    let servers: Vec<Servers> = pods().map(serve).collect::<Result<_>>()?;
    let (stop, numbers) = (AtomicBool::new(false), AtomicU32::new(1));
    let (tried, seen) = thread::scope(|scope| {
        let mut receivers = Vec::new();
        for server in &servers {
            for listener in &server.tcp {
                scope.spawn(|| answer(listener, &stop));
            }
            for socket in &server.icmp {
                receivers.push(scope.spawn(|| hear(socket, &stop)));
            }
        }
        let senders: Vec<_> = ends
            .iter()
            .map(|end| scope.spawn(|| probe_all(end, ends, &numbers)))
            .collect();
        let tried: Vec<Result<Vec<Tried>>> = senders.into_iter().map(join).collect();
        stop.store(true, Ordering::Relaxed);
        let seen: HashMap<u32, IpAddr> = receivers.into_iter().flat_map(join).collect();
        (tried, seen)
    });
    let tried: Vec<Vec<Tried>> = tried.into_iter().collect::<Result<_>>()?;
    let mut exchanges: Vec<Exchange> = tried
        .into_iter()
        .flatten()
        .map(|tried| tried.judged(&seen))
        .collect();
    exchanges.sort();
    Ok(exchanges)
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn failed(what: &str) -> impl Fn(io::Error) -> LabError {
    move |source| LabError::Probe {
        what: what.to_owned(),
        source,
    }
}

fn serve(pod: &End) -> Result<Servers> {
    let open = || -> io::Result<Servers> {
        let listen = |address: &IpAddr| {
            let listener = TcpListener::bind(SocketAddr::new(*address, PORT))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        Ok(Servers {
            tcp: pod.addresses.iter().map(listen).collect::<io::Result<_>>()?,
            icmp: pod
                .addresses
                .iter()
                .map(|address| EchoSocket::open(*address, QUIET))
                .collect::<io::Result<_>>()?,
        })
    };
    let what = format!("listen in pod {}", pod.name);
    pod.netns
        .run(open)
        .map_err(LabError::kernel(what.clone()))?
        .map_err(failed(&what))
}

/// Tells every client which address it has.
fn answer(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that goes away meanwhile tells of it itself.
            Ok((mut stream, peer)) => {
                let line = format!("{}\n", peer.ip());
                stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.write_all(line.as_bytes()))
                    .ok();
            }
            Err(_) => thread::sleep(QUIET / 10),
        }
    }
}

/// Notes whom echo requests came from; the kernel answers them.
fn hear(socket: &EchoSocket, stop: &AtomicBool) -> Vec<(u32, IpAddr)> {
    let mut seen = Vec::new();
    loop {
        match socket.receive() {
            Ok(Some((Echo::Request(number), from))) => seen.push((number, from)),
            Ok(_) => {}
            // Only when nothing is left to read: the kernel answers before this thread gets to run.
            Err(_) if stop.load(Ordering::Relaxed) => return seen,
            Err(_) => {}
        }
    }
}

fn probe_all(from: &End, ends: &[End], numbers: &AtomicU32) -> Result<Vec<Tried>> {
    let others: Vec<&End> = ends
        .iter()
        .filter(|to| to.is_pod && to.name != from.name)
        .collect();
    let work = || {
        let mut tried = Vec::new();
        for to in others {
            for address in &to.addresses {
                // A sender without the family has no way to speak to it.
                if from
                    .addresses
                    .iter()
                    .any(|own| own.is_ipv4() == address.is_ipv4())
                {
                    tried.push(tcp(from, to, *address));
                    tried.push(icmp(from, to, *address, numbers.fetch_add(1, Ordering::Relaxed)));
                }
            }
        }
        tried
    };
    from.netns
        .run(work)
        .map_err(LabError::kernel(format!("enter {}", from.name)))
}

/// A [`Tried`] without a verdict yet.
fn attempt(from: &End, to: &End, protocol: &'static str, address: IpAddr) -> Exchange {
    Exchange {
        from: from.name.clone(),
        to: to.name.clone(),
        protocol,
        address,
        seen: None,
        problem: None,
    }
}

fn tcp(from: &End, to: &End, address: IpAddr) -> Tried {
    let talk = || -> io::Result<(IpAddr, IpAddr)> {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let own = stream.local_addr()?.ip();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let seen = answer
            .trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("the answer is '{answer}'")))?;
        Ok((own, seen))
    };
    let mut exchange = attempt(from, to, "tcp", address);
    let mut sender = None;
    match talk() {
        Ok((own, seen)) => {
            sender = own_of(from, own);
            exchange.seen = Some(seen);
        }
        Err(error) => exchange.problem = Some(error.to_string()),
    }
    Tried {
        exchange,
        number: 0,
        sender,
    }
}

/// The address, if it is one of the end's own.
fn own_of(end: &End, address: IpAddr) -> Option<IpAddr> {
    end.addresses.contains(&address).then_some(address)
}

fn icmp(from: &End, to: &End, address: IpAddr, number: u32) -> Tried {
    let talk = || -> io::Result<IpAddr> {
        let own = source_towards(address)?;
        let socket = EchoSocket::open(address, TIMEOUT)?;
        socket.send(number, address)?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            match socket.receive() {
                Ok(Some((Echo::Reply(answered), who))) if answered == number && who == address => {
                    return Ok(own);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no echo reply"))
    };
    let mut exchange = attempt(from, to, "icmp", address);
    let mut sender = None;
    match talk() {
        Ok(own) => sender = own_of(from, own),
        Err(error) => exchange.problem = Some(error.to_string()),
    }
    Tried {
        exchange,
        number,
        sender,
    }
}

/// The address that the kernel speaks to `address` from; nothing is sent.
fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, PORT))?;
    Ok(socket.local_addr()?.ip())
}

impl Tried {
    /// The exchange with its verdict: the receiver must have seen the sender's own address.
    fn judged(mut self, heard: &HashMap<u32, IpAddr>) -> Exchange {
        if self.exchange.protocol == "icmp" {
            self.exchange.seen = heard.get(&self.number).copied();
        }
        if self.exchange.problem.is_none() {
            self.exchange.problem = match (self.sender, self.exchange.seen) {
                (Some(sender), Some(seen)) if sender == seen => None,
                (Some(sender), Some(seen)) => Some(format!("the receiver saw {seen} instead of {sender}")),
                (Some(_), None) => Some("the receiver saw nothing".to_owned()),
                (None, _) => Some("the sender spoke from an address that is not its own".to_owned()),
            };
        }
        self.exchange
    }
}
