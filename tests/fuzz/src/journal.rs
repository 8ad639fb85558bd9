//! The address journal: whatever its bytes are, reading it ends and never panics, and what it says can be written and read
//! again.

use std::collections::BTreeSet;

use manx_ipam::journal::{HEADER, Record, compact, encode, replay};
use manx_ipam::{Allocator, Block};

/// A file as it is; then an octet that says where the file is cut that has a frame for each line that follows.
pub fn journal(data: &[u8]) {
    agrees(data);
    let Some((&cut, lines)) = data.split_first() else {
        return;
    };
    let payloads = || lines.split(|octet| *octet == b'\n');
    let mut whole = HEADER.to_vec();
    payloads().for_each(|payload| whole.extend(frame(payload)));
    agrees(&whole);
    let Ok(all) = replay(&whole) else {
        return;
    };
    assert_eq!(
        (all.valid_len, all.torn),
        (whole.len(), None),
        "every frame is good"
    );
    let parsed =
        payloads().map(|payload| serde_json::from_slice::<Vec<Record>>(payload).expect("it was replayed"));
    let records: Vec<Record> = parsed.flatten().collect();
    let at_once = [
        &HEADER[..],
        &encode(&records).expect("what was read can be written"),
    ]
    .concat();
    assert_eq!(
        replay(&at_once).expect("the same records").allocator,
        all.allocator
    );
    // A torn tail is one frame at most, and the frames before it say what they did.
    let cut = whole.len() * usize::from(cut) / 256;
    let torn = replay(&whole[..cut]).expect("a torn end is no error");
    assert_eq!(torn.valid_len + torn.torn.map_or(0, |torn| torn.bytes), cut);
    let good = replay(&whole[..torn.valid_len]).expect("what is before it is good");
    assert_eq!((good.allocator, good.torn), (torn.allocator, None));
}

/// A frame around any payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("inputs are small")
        .to_le_bytes();
    let checksum = crc32fast::hash(&[&length, payload].concat()).to_le_bytes();
    [&length, &checksum, payload].concat()
}

/// What a file says is consistent, and said again as a compacted journal.
fn agrees(file: &[u8]) {
    let Ok(said) = replay(file) else {
        return;
    };
    let allocator = &said.allocator;
    let mut held = BTreeSet::new();
    for allocation in allocator.allocations() {
        assert!(
            held.insert(allocation.address),
            "{} is held twice",
            allocation.address
        );
        let owner = &allocation.owner;
        let mut of_owner = allocator.held_by(&owner.container_id, &owner.ifname);
        assert!(of_owner.any(|other| other == allocation));
    }
    for block in allocator.blocks() {
        accounts(block);
    }
    let again = compact(allocator).expect("what was read can be written");
    let again: Allocator = replay(&again).expect("what was written can be read").allocator;
    assert_eq!(again, *allocator);
}

/// Each address of a block is free, held or lent.
fn accounts(block: &Block) {
    let cidr = block.cidr();
    assert_eq!(block.capacity(), cidr.iter().count());
    assert_eq!(
        block.free() + block.reserved() + block.held() + block.lent(),
        block.capacity()
    );
    assert!(block.allocations().all(|held| cidr.contains(held.address)));
}
