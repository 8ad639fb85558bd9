//! What goes wrong in a network: processes, machines, links, connections, readers.

use std::time::Duration;

use bytes::Bytes;

use super::{ConnId, End, Event, Host, Input, Network, Node};

impl Network {
    /// The process dies: its connections close, and what the kernel was told stays.
    pub(crate) fn kill(&mut self, node: Node) {
        let conns: Vec<ConnId> = self.hosts[node].sockets.keys().copied().collect();
        for conn in conns {
            self.close(node, conn);
        }
        self.stop_clock(node);
        self.hosts[node].dialling.clear();
        self.hosts[node].speaker = None;
    }

    /// The host loses power: nobody hears of it.
    pub(crate) fn lose_power(&mut self, node: Node) {
        self.stop_clock(node);
        self.hosts[node] = Host {
            powered: false,
            accepted: self.hosts[node].accepted,
            ..Host::new()
        };
    }

    /// Two hosts cannot reach each other any more; open connections hang.
    pub(crate) fn cut(&mut self, a: Node, b: Node) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Whether two hosts can reach each other.
    pub(crate) fn connected(&self, a: Node, b: Node) -> bool {
        !self.cuts.contains(&(a, b))
    }

    /// They can again.
    pub(crate) fn mend(&mut self, a: Node, b: Node) {
        self.cuts.remove(&(a, b));
        self.cuts.remove(&(b, a));
    }

    /// Both ends of every connection between two hosts are reset.
    pub(crate) fn reset(&mut self, a: Node, b: Node) {
        let broken: Vec<(ConnId, End)> = self.hosts[a]
            .sockets
            .iter()
            .filter(|(_, socket)| socket.other.0 == b)
            .map(|(conn, socket)| (*conn, socket.other))
            .collect();
        for (conn, other) in broken {
            self.hosts[a].sockets.remove(&conn);
            self.hosts[b].sockets.remove(&other.1);
            self.input(a, Input::Closed { conn });
            self.input(b, Input::Closed { conn: other.1 });
        }
    }

    /// The octets that wait to be read by a slow host.
    pub(crate) fn queued_for(&self, node: Node) -> usize {
        let sockets = self.hosts.iter().flat_map(|host| host.sockets.values());
        sockets
            .filter(|socket| socket.other.0 == node)
            .map(|socket| socket.queued)
            .sum()
    }

    /// A slow host is slow no longer, and has read what was waiting.
    pub(crate) fn catch_up(&mut self, node: Node) {
        self.hosts[node].slow = false;
        for from in 0..self.hosts.len() {
            let sockets = self.hosts[from]
                .sockets
                .iter_mut()
                .filter(|(_, socket)| socket.other.0 == node);
            let drained: Vec<ConnId> = sockets
                .map(|(&conn, socket)| (socket.queued = 0, conn).1)
                .collect();
            for conn in drained {
                self.input(from, Input::Drained { conn });
            }
        }
    }

    /// Time passes that the speakers do not notice: what was due meanwhile comes late, all at once.
    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// Flips bits of an octet on its way, in one of the next deliveries.
    pub(crate) fn corrupt(&mut self, delivery: usize, place: usize, bits: u8) {
        let on_the_way = self.events.values_mut().filter_map(|event| match event {
            Event::Octets { bytes, .. } => Some(bytes),
            Event::Syn { .. } | Event::Answer { .. } | Event::Fin { .. } => None,
        });
        if let Some(bytes) = on_the_way
            .take(delivery + 1)
            .last()
            .filter(|bytes| !bytes.is_empty())
        {
            let mut octets = bytes.to_vec();
            let length = octets.len();
            octets[place % length] ^= bits;
            *bytes = octets.into();
        }
    }

    /// Octets that `from` did not send arrive at `to` on each connection between them, after all that it did send.
    pub(crate) fn inject(&mut self, from: Node, to: Node, bytes: &Bytes) {
        let sockets = self.hosts[from].sockets.iter();
        let conns: Vec<ConnId> = sockets
            .filter(|(_, socket)| socket.other.0 == to)
            .map(|(&conn, _)| conn)
            .collect();
        for conn in conns {
            self.send((from, conn), bytes.clone());
        }
    }

    /// Whether a number means a connection of a host, or a dial that is under way.
    pub(crate) fn knows(&self, node: Node, conn: ConnId) -> bool {
        let host = &self.hosts[node];
        host.sockets.contains_key(&conn) || host.dialling.contains(&conn)
    }
}
