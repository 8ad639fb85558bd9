//! GTSM on a listener (RFC 5082): a packet filter that drops what has come from farther away than its sender may.
//!
//! The socket option that demands a minimum TTL holds for all peers of a listener alike. A classic BPF program asks
//! each packet where it comes from first, so that a SYN from too far away gets no answer, whoever else may be far.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use nix::libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use socket2::SockFilter;

/// Where the network header begins, as seen by a program that runs on the transport header (`SKF_NET_OFF`).
const NETWORK_HEADER: u32 = 0xfff0_0000;

/// Keep the whole packet.
const PASS: u32 = u32::MAX;
/// Drop it.
const DROP: u32 = 0;

/// Where a family's header has what the program looks at, in octets.
struct Header {
    ttl: u32,
    source: u32,
}

const V4: Header = Header { ttl: 8, source: 12 };
const V6: Header = Header { ttl: 7, source: 8 };

/// The program: the longest range that a packet's source lies in says which TTL it needs; outside of all, any will
/// do. Ranges of the other family are ignored.
pub(crate) fn program(v6: bool, least: &BTreeMap<IpNetwork, u8>) -> Vec<SockFilter> {
    let mut ranges: Vec<(&IpNetwork, &u8)> =
        least.iter().filter(|(range, _)| range.is_ipv6() == v6).collect();
    ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix()));
    let mut program: Vec<SockFilter> = ranges
        .into_iter()
        .flat_map(|(range, least)| rule(*range, *least))
        .collect();
    program.push(give(PASS));
    program
}

/// Decides on a packet from `range`, and lets any other through to the next instruction.
fn rule(range: IpNetwork, least: u8) -> Vec<SockFilter> {
    let (header, address) = match range {
        IpNetwork::V4(range) => (V4, range.network().octets().to_vec()),
        IpNetwork::V6(range) => (V6, range.network().octets().to_vec()),
    };
    let verdict = [
        load(BPF_B, header.ttl),
        // Far enough: the next one. Else the one after it.
        jump(BPF_JGE, least.into(), 0, 1),
        give(PASS),
        give(DROP),
    ];
    // From the last word to the first: each knows how far away the end of the rule is.
    let mut rule = Vec::from(verdict);
    for (word, octets) in address.chunks(4).enumerate().rev() {
        let Some(mask) = mask(range.prefix(), word) else {
            continue;
        };
        let value = octets
            .iter()
            .fold(0, |value, octet| value << 8 | u32::from(*octet));
        let position = header.source + 4 * u32::try_from(word).unwrap_or(0);
        let beyond = u8::try_from(rule.len()).unwrap_or(u8::MAX);
        let masked = (mask != u32::MAX).then(|| instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask));
        let compare = [load(BPF_W, position)]
            .into_iter()
            .chain(masked)
            .chain([jump(BPF_JEQ, value, 0, beyond)]);
        rule = compare.chain(rule).collect();
    }
    rule
}

/// The bits of the word that the prefix covers; none where it covers none.
fn mask(prefix: u8, word: usize) -> Option<u32> {
    let covered = usize::from(prefix).saturating_sub(32 * word).min(32);
    (covered > 0).then(|| u32::MAX << (32 - covered))
}

fn load(size: u32, position: u32) -> SockFilter {
    instruction(BPF_LD | size | BPF_ABS, 0, 0, NETWORK_HEADER + position)
}

/// Skips `yes` instructions where the comparison with `value` holds, `no` where it does not.
fn jump(comparison: u32, value: u32, yes: u8, no: u8) -> SockFilter {
    instruction(BPF_JMP | comparison | BPF_K, yes, no, value)
}

fn give(verdict: u32) -> SockFilter {
    instruction(BPF_RET | BPF_K, 0, 0, verdict)
}

fn instruction(code: u32, yes: u8, no: u8, value: u32) -> SockFilter {
    // All codes are below 256.
    SockFilter::new(u16::try_from(code).unwrap_or(0), yes, no, value)
}
