//! The wire level, by its public functions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod capabilities;
mod cases;
mod corpora;
mod edges;
mod errors;
mod exactness;
mod roundtrip;
mod strategies;

/// The bodies of the fuzz targets.
#[path = "../../../tests/fuzz/src/wire.rs"]
#[expect(unreachable_pub, reason = "the fuzz package publishes them")]
mod fuzz;

use bytes::{BufMut, Bytes, BytesMut};
use manx_bgp::Family;
use manx_bgp::wire::{Context, MAX_MESSAGE, Nlri};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

/// The same cases in every run.
fn proptest_config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(179),
        ..ProptestConfig::default()
    }
}

/// A session with both families and four-octet AS numbers.
fn context(external: bool) -> Context {
    Context {
        four_octet_as: true,
        external,
        families: Family::ALL.to_vec(),
        add_path_receive: Vec::new(),
        add_path_send: Vec::new(),
        extended_next_hop: Vec::new(),
        max_message: MAX_MESSAGE,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let octet = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(octet).collect()
}

fn nlri(prefix: &str) -> Nlri {
    Nlri {
        path_id: None,
        prefix: prefix.parse().unwrap(),
    }
}

/// A whole message with a right header.
fn framed(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_bytes(0xff, 16);
    out.put_u16(u16::try_from(19 + body.len()).unwrap());
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

/// An UPDATE of three raw fields.
fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    for field in [withdrawn, attributes] {
        body.put_u16(u16::try_from(field.len()).unwrap());
        body.put_slice(field);
    }
    body.put_slice(nlri);
    framed(2, &body)
}

/// An attribute with a right header.
fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    let mut out = vec![flags, code];
    match u8::try_from(length) {
        Ok(short) => out.push(short),
        Err(_) => {
            out[0] |= 0x10;
            out.put_u16(length);
        }
    }
    out.put_slice(value);
    out
}

/// ORIGIN, AS_PATH (of AS 65001) and NEXT_HOP, with `replacement` for one of its type, or added.
fn attributes(replacement: &[u8]) -> Vec<u8> {
    let mandatory = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[2, 1, 0, 0, 0xfd, 0xe9]),
        attribute(0x40, 3, &[192, 0, 2, 1]),
    ];
    let kept = mandatory
        .into_iter()
        .filter(|own| Some(&own[1]) != replacement.get(1));
    kept.chain([replacement.to_vec()]).flatten().collect()
}
