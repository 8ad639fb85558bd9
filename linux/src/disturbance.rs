//! Somebody's hand on our rules, as nftables announces it.
//!
//! Whoever flushes a table announces each rule that goes, with the number of the process that did it: what our own
//! programs do is passed over. The kernel's old tables change without a word, and so do sets; there, only looking tells.

use std::io;

use manx_policy::CHAIN_PREFIX;
use nix::errno::Errno;
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::{self, protocols::NETLINK_NETFILTER};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::{nl, watch};

/// The multicast group of nftables (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;

/// Bytes of a nfnetlink message in front of its attributes (`struct nfgenmsg`).
const FAMILY_HEADER: usize = 4;

/// What a message is about: the subsystem in the high octet, the kind in the low one (`NFT_MSG_*`).
const TABLE_GONE: u16 = 0x0a02;
const CHAIN_GONE: u16 = 0x0a05;
const RULE_NEW: u16 = 0x0a06;
const RULE_GONE: u16 = 0x0a08;

/// The attributes that name a rule's and a chain's chain (`NFTA_RULE_CHAIN`, `NFTA_CHAIN_NAME`).
const RULE_CHAIN: u16 = 2;
const CHAIN_NAME: u16 = 3;

/// The chains that rules of ours lead out of.
const KERNEL_CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A socket that nftables' announcements come to.
#[derive(Debug)]
pub(crate) struct Watcher {
    socket: AsyncFd<sys::Socket>,
    buffer: Vec<u8>,
    /// Somebody's hand was seen, and nobody told of it yet.
    disturbed: bool,
}

impl Watcher {
    /// Watches a namespace from now on. Wants a tokio runtime.
    pub(crate) fn open_in(netns: &Netns) -> Result<Self> {
        let socket = netns.run(subscribe)?.map_err(Error::os("watch nftables"))?;
        Ok(Self {
            socket: watch::register(socket)?,
            buffer: Vec::new(),
            disturbed: false,
        })
    }

    /// Waits until a chain of ours, or what leads into one, may have been changed by somebody. Nothing is lost if the
    /// future is dropped.
    pub(crate) async fn disturbed(&mut self) -> Result<()> {
        while !std::mem::take(&mut self.disturbed) {
            let ready = self.socket.readable().await;
            let mut ready = ready.map_err(Error::os("watch nftables"))?;
            if let Ok(read) = ready.try_io(|socket| nl::receive(socket.get_ref(), &mut self.buffer)) {
                self.take_in(read, None)?;
            }
        }
        Ok(())
    }

    /// Passes over what a process of ours did, which has ended: all of it is announced by now.
    pub(crate) fn pass_over(&mut self, process: u32) -> Result<()> {
        loop {
            let read = nl::receive(self.socket.get_ref(), &mut self.buffer);
            if matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Ok(());
            }
            self.take_in(read, Some(process))?;
        }
    }

    /// Looks through what was read for others' hands. A netlink socket has the number of its process, where nobody has
    /// taken that; a number of the kernel's choice is nobody's of ours, and somebody looks in vain.
    fn take_in(&mut self, read: io::Result<()>, ours: Option<u32>) -> Result<()> {
        match read {
            // More happened than the socket holds.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.disturbed = true;
                return Ok(());
            }
            other => other.map_err(Error::os("read nftables' announcements"))?,
        }
        for message in nl::messages(&self.buffer) {
            let (header, payload) = message?;
            let others = Some(header.port_number) != ours;
            self.disturbed |= others && concerns_us(header.message_type, payload);
        }
        Ok(())
    }
}

fn subscribe() -> io::Result<sys::Socket> {
    let mut socket = sys::Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.add_membership(GROUP)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Whether our rules may be others after this: something of a chain of ours changed, or a chain of the kernel's lost
/// a rule, or a whole table went. Chains of others are named otherwise, and their changes are many.
fn concerns_us(kind: u16, payload: &[u8]) -> bool {
    let attribute = match kind {
        TABLE_GONE => return true,
        CHAIN_GONE => CHAIN_NAME,
        RULE_NEW | RULE_GONE => RULE_CHAIN,
        _ => return false,
    };
    let attributes = payload.get(FAMILY_HEADER..).unwrap_or_default();
    let mut attributes = NlasIterator::new(attributes).filter_map(std::result::Result::ok);
    let Some(name) = attributes.find(|nla| nla.kind() == attribute) else {
        return false;
    };
    let name = name.value().strip_suffix(b"\0").unwrap_or_default();
    let is_kernels = || KERNEL_CHAINS.iter().any(|chain| chain.as_bytes() == name);
    name.starts_with(CHAIN_PREFIX.as_bytes()) || kind == RULE_GONE && is_kernels()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(chain: &str, attribute: u16) -> Vec<u8> {
        let field = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let name = field(attribute, format!("{chain}\0").as_bytes());
        [vec![0; FAMILY_HEADER], field(1, b"nat\0"), name].concat()
    }

    #[test]
    fn only_what_may_change_our_rules_concerns_us() {
        for (kind, chain, concerns) in [
            (RULE_GONE, "manx-nat-out", true),
            (RULE_NEW, "manx-nat-out", true),
            (CHAIN_GONE, "manx-nat-out", true),
            (TABLE_GONE, "", true),
            (RULE_GONE, "POSTROUTING", true),
            (RULE_NEW, "POSTROUTING", false),
            (RULE_GONE, "KUBE-POSTROUTING", false),
            (RULE_NEW, "KUBE-SVC-ABC", false),
            (CHAIN_GONE, "KUBE-SVC-ABC", false),
            (RULE_GONE, "manx", false),
            // NFT_MSG_NEWGEN.
            (0x0a0f, "manx-nat-out", false),
        ] {
            let attribute = if kind == CHAIN_GONE {
                CHAIN_NAME
            } else {
                RULE_CHAIN
            };
            assert_eq!(
                concerns_us(kind, &about(chain, attribute)),
                concerns,
                "{kind:x} {chain}"
            );
        }
        for length in 0..12 {
            assert!(!concerns_us(
                RULE_GONE,
                &about("manx-nat-out", RULE_CHAIN)[..length]
            ));
        }
    }
}
