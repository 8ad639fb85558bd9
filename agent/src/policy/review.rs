//! Connections under new policies: those that would not be let through today are ended.

use std::net::SocketAddr;

use manx_api::policy::Protocol;
use manx_linux::{Connection, ConnectionSocket, Netns, Result};
use manx_policy::{Engine, Family, Party, Traffic, explain};

use crate::blocking;
use crate::metrics::Metrics;

/// Has the kernel forget every connection that policies deny: rules let packets of established ones pass, whatever
/// has changed since.
pub(super) fn end_denied(netns: &Netns, engine: &Engine, metrics: &Metrics) {
    match blocking::in_place(|| try_end(netns, engine)) {
        Ok(0) => {}
        Ok(ended) => {
            tracing::info!(ended, "connections that policies deny now are ended");
            metrics.connections_forgotten.inc_by(ended as u64);
        }
        Err(error) => {
            tracing::warn!(%error, "connections that policies deny now go on until they end by themselves");
        }
    }
}

fn try_end(netns: &Netns, engine: &Engine) -> Result<usize> {
    let mut socket = ConnectionSocket::open_in(netns)?;
    let mut ended = 0;
    for family in Family::ALL {
        let connections = socket.list(family)?;
        ended += socket.forget(connections.iter().filter(|it| is_denied(it, engine)))?;
    }
    Ok(ended)
}

/// Whether policies deny the first packet of a connection, as the rules for forwarded packets saw it: on its way from
/// whoever began it to whoever answers.
fn is_denied(connection: &Connection, engine: &Engine) -> bool {
    let port = |end: SocketAddr| (end.port() != 0).then_some(end.port());
    let traffic = Traffic {
        protocol: Protocol(connection.protocol),
        source_port: port(connection.source),
        port: port(connection.answerer),
        icmp: None,
    };
    let [from, to] = [connection.source, connection.answerer].map(|end| Party::Address(end.ip()));
    explain(engine, &from, &to, traffic).is_ok_and(|explanation| !explanation.allowed())
}
