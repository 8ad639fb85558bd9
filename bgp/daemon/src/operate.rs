//! What operators ask of a running speaker: whom it concerns, and whether it can be done.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use manx_api::operation::{DrainCall, Operated, ResetCall, UndrainCall};
use manx_api::rpc::RpcError;
use manx_bgp::{DrainPhase, Input, PeerSnapshot, State};

use crate::Handle;
use crate::control::{INVALID_PARAMS, error};

/// The longest words for a peer, in octets (RFC 9003 §2).
const MAX_WORDS: usize = 255;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Empty a session, or all, before it ends.
    Drain(DrainCall),
    /// Have it back.
    Undrain(UndrainCall),
    /// End it and begin anew, or only exchange all routes again.
    Reset(ResetCall),
}

/// Why it cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Nobody has the address.
    #[error("there is no peer {address} here: there is {known}")]
    NoPeer {
        /// Which.
        address: IpAddr,
        /// Whom there is.
        known: String,
    },
    /// A reset of what an operator wants down.
    #[error("{0} is drained and stays away: 'manxctl bgp undrain {0}' has it back")]
    Drained(IpAddr),
    /// A soft reset without a session.
    #[error("the session with {address} is {state}: there are no routes to exchange again")]
    NotEstablished {
        /// With whom.
        address: IpAddr,
        /// How far it is.
        state: State,
    },
    /// More words than a NOTIFICATION has room for.
    #[error("{0} octets are more than the 255 that peers can be told (RFC 9003): shorten the message")]
    TooLong(usize),
}

impl From<Impossible> for RpcError {
    fn from(impossible: Impossible) -> Self {
        error(INVALID_PARAMS, impossible.to_string())
    }
}

/// Does what is asked, to every peer that has the address.
///
/// # Errors
/// It cannot be done; nothing has changed then.
pub async fn operate(handle: &Handle, operation: Operation) -> Result<Operated, Impossible> {
    tracing::info!(?operation, "an operator asks");
    let peers = handle.peers().await;
    match operation {
        Operation::Drain(DrainCall {
            peer,
            seconds,
            message,
        }) => {
            check(&message)?;
            let drain = |peer| Input::Drain {
                peer,
                time: Duration::from_secs(seconds.into()),
                words: message.clone(),
            };
            each_or_all(handle, &peers, peer, drain).await
        }
        Operation::Undrain(UndrainCall { peer }) => each_or_all(handle, &peers, peer, Input::Undrain).await,
        Operation::Reset(ResetCall { peer, soft, message }) => {
            check(&message)?;
            let concerned = of(&peers, peer)?;
            for snapshot in &concerned {
                refusal(snapshot, soft).map_or(Ok(()), Err)?;
            }
            for PeerSnapshot { key, .. } in &concerned {
                let input = if soft {
                    Input::Refresh(*key)
                } else {
                    Input::Reset {
                        peer: *key,
                        words: message.clone(),
                    }
                };
                handle.input(input).await;
            }
            Ok(operated(concerned))
        }
    }
}

/// Hands the speaker an input per peer of the address, or one for all peers.
async fn each_or_all(
    handle: &Handle,
    peers: &[PeerSnapshot],
    address: Option<IpAddr>,
    input: impl Fn(Option<manx_bgp::PeerKey>) -> Input,
) -> Result<Operated, Impossible> {
    let Some(address) = address else {
        handle.input(input(None)).await;
        return Ok(operated(peers));
    };
    let concerned = of(peers, address)?;
    for snapshot in &concerned {
        handle.input(input(Some(snapshot.key))).await;
    }
    Ok(operated(concerned))
}

/// The peers that have an address: several where it is link-local on several interfaces.
fn of(peers: &[PeerSnapshot], address: IpAddr) -> Result<Vec<&PeerSnapshot>, Impossible> {
    let found: Vec<_> = peers.iter().filter(|peer| peer.key.address == address).collect();
    if found.is_empty() {
        let known: BTreeSet<_> = peers.iter().map(|peer| peer.key.address).collect();
        let known: Vec<_> = known.iter().map(IpAddr::to_string).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        return Err(Impossible::NoPeer { address, known });
    }
    Ok(found)
}

/// Why a session cannot be reset.
fn refusal(peer: &PeerSnapshot, soft: bool) -> Option<Impossible> {
    let address = peer.key.address;
    if peer.drain == Some(DrainPhase::Down) {
        return Some(Impossible::Drained(address));
    }
    let state = peer.state;
    (soft && state != State::Established).then_some(Impossible::NotEstablished { address, state })
}

fn check(message: &str) -> Result<(), Impossible> {
    if message.len() > MAX_WORDS {
        return Err(Impossible::TooLong(message.len()));
    }
    Ok(())
}

fn operated<'a>(peers: impl IntoIterator<Item = &'a PeerSnapshot>) -> Operated {
    let peers = peers.into_iter().map(|peer| peer.key.address);
    Operated {
        peers: peers.collect(),
    }
}
