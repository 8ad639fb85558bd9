//! The journal: what an allocator did, in a file that survives the node.
//!
//! ```text
//! file   = header frame*
//! header = "manxipam" version:u32
//! frame  = length:u32 checksum:u32 payload          (little-endian; CRC-32 over length and payload)
//! ```
//!
//! A payload is a JSON list of [`Record`]s: one group commit. **A frame is appended only after the one before
//! it was synced**, so what a crash can damage is the last frame, whose records nobody was answered for:
//! that is a torn tail, to be cut off. A damaged frame with a good one behind it is damage of another kind
//! (the disk, a foreign writer), and an error: cutting there would free addresses that pods hold.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use manx_api::ipam::Allocation;
use serde::{Deserialize, Serialize};

use crate::{Allocator, ApplyError, Block};

/// What a journal file begins with.
pub const HEADER: [u8; 12] = *b"manxipam\x01\0\0\0";

/// Bytes of the header that name the format, before its version.
const MAGIC: usize = 8;

/// Bytes of a frame before its payload.
const FRAME_HEAD: usize = 8;

/// Records per frame of a compacted journal.
const COMPACT_GROUP: usize = 16;

/// One change of an allocator.
#[expect(
    clippy::large_enum_variant,
    reason = "a record lives until the next sync, and few of them are blocks"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    /// The node has the block, in this state.
    BlockAdded(Block),
    /// The node has let the block go.
    BlockRemoved {
        /// The block.
        cidr: IpNetwork,
    },
    /// The node has the block in another ownership than before, with all that is held and lent of it.
    BlockRenewed {
        /// The block.
        cidr: IpNetwork,
        /// The ownership, later than the one before.
        generation: u64,
    },
    /// One attachment got these addresses, all or none.
    Assigned(Vec<Allocation>),
    /// One attachment's addresses are free, all or none.
    Released(Vec<Freed>),
    /// A part of a block is another node's.
    Lent {
        /// The part.
        part: IpNetwork,
        /// The other node.
        to: String,
        /// The generation in which it has the part.
        generation: u64,
    },
    /// A part that was lent is this node's again.
    TakenBack {
        /// The part.
        part: IpNetwork,
        /// The last generation in which the other node had it.
        generation: u64,
        /// When, in seconds of UTC.
        at: u64,
    },
}

/// An allocation that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// The address.
    pub address: IpAddr,
    /// The allocation's sequence number.
    pub sequence: u64,
    /// When it ended, in seconds of UTC; none where that was not written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// Why records cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A record has no JSON form.
    #[error("a journal record cannot be encoded: {0}")]
    Json(#[from] serde_json::Error),
    /// The records exceed 4 GiB.
    #[error("{0} bytes of journal records do not fit into one frame")]
    TooLarge(usize),
}

/// Why a journal cannot be read. The file is left as it is: a person has to look.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file is something else.
    #[error("not an IPAM journal: the file does not begin with 'manxipam'")]
    NotAJournal,
    /// The file is of another version of the format.
    #[error("the IPAM journal has format version {0}; this program reads version 1")]
    Version(u32),
    /// A synced frame is damaged.
    #[error(
        "the IPAM journal is damaged at byte {offset}: {bytes} bytes there are no frame, yet frames follow"
    )]
    Damaged {
        /// Where.
        offset: usize,
        /// How far it is to the next good frame.
        bytes: usize,
    },
    /// A good frame holds something that is no list of records.
    #[error("the IPAM journal's frame at byte {offset} holds no records: {source}")]
    NoRecords {
        /// Where the frame begins.
        offset: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A record does not follow from those before it.
    #[error("the IPAM journal contradicts itself in the frame at byte {offset}: {source}")]
    Contradiction {
        /// Where the frame begins.
        offset: usize,
        /// What is wrong with it.
        source: ApplyError,
    },
}

/// The end of a journal that a crash cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where it begins: the length to cut the file to.
    pub offset: usize,
    /// How many bytes there are.
    pub bytes: usize,
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The allocator that wrote it, after its last synced frame.
    pub allocator: Allocator,
    /// How many records there are.
    pub records: usize,
    /// Bytes up to the end of the last good frame: cut the file here before appending. Zero for a file
    /// without a header: write [`HEADER`] first.
    pub valid_len: usize,
    /// What follows, if anything does.
    pub torn: Option<Torn>,
}

/// One frame: append it, sync, then answer those whose records are in it.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode(records: &[Record]) -> Result<Vec<u8>, EncodeError> {
    let payload = serde_json::to_vec(records)?;
    let length = u32::try_from(payload.len()).map_err(|_| EncodeError::TooLarge(payload.len()))?;
    let length = length.to_le_bytes();
    let checksum = checksum(length, &payload).to_le_bytes();
    Ok([&length, &checksum, payload.as_slice()].concat())
}

/// A whole journal that says what `allocator` is, and nothing of how it came to be: write it to a new file,
/// sync, and rename it over the old one.
///
/// # Errors
/// See [`EncodeError`].
pub fn compact(allocator: &Allocator) -> Result<Vec<u8>, EncodeError> {
    let blocks: Vec<_> = allocator.blocks().cloned().map(Record::BlockAdded).collect();
    let mut journal = HEADER.to_vec();
    for group in blocks.chunks(COMPACT_GROUP) {
        journal.extend(encode(group)?);
    }
    Ok(journal)
}

/// Reads a journal.
///
/// # Errors
/// See [`ReplayError`]; a torn tail is none.
pub fn replay(journal: &[u8]) -> Result<Replay, ReplayError> {
    let mut replay = Replay {
        allocator: Allocator::new(),
        records: 0,
        valid_len: 0,
        torn: None,
    };
    if HEADER.starts_with(journal) && journal.len() < HEADER.len() {
        replay.torn = torn(journal, 0);
        return Ok(replay);
    }
    check_header(journal)?;
    let mut offset = HEADER.len();
    while let Some((payload, end)) = frame(journal, offset) {
        let records: Vec<Record> =
            serde_json::from_slice(payload).map_err(|source| ReplayError::NoRecords { offset, source })?;
        for record in &records {
            let applied = replay.allocator.apply(record);
            applied.map_err(|source| ReplayError::Contradiction { offset, source })?;
        }
        replay.records = replay.records.saturating_add(records.len());
        offset = end;
    }
    if let Some(next) = (offset..journal.len()).find(|&at| frame(journal, at).is_some()) {
        return Err(ReplayError::Damaged {
            offset,
            bytes: next.saturating_sub(offset),
        });
    }
    replay.valid_len = offset;
    replay.torn = torn(journal, offset);
    Ok(replay)
}

fn check_header(journal: &[u8]) -> Result<(), ReplayError> {
    let rest = journal
        .strip_prefix(&HEADER[..MAGIC])
        .ok_or(ReplayError::NotAJournal)?;
    match rest.first_chunk().map(|version| u32::from_le_bytes(*version)) {
        Some(1) => Ok(()),
        Some(version) => Err(ReplayError::Version(version)),
        None => Err(ReplayError::NotAJournal),
    }
}

fn torn(journal: &[u8], offset: usize) -> Option<Torn> {
    let bytes = journal.len().checked_sub(offset).filter(|bytes| *bytes > 0)?;
    Some(Torn { offset, bytes })
}

/// The payload of the frame at `offset` and where the frame ends; none where there is no good frame.
fn frame(journal: &[u8], offset: usize) -> Option<(&[u8], usize)> {
    let bytes = journal.get(offset..)?;
    let (length, rest) = bytes.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let good = checksum(*length, payload) == u32::from_le_bytes(*expected);
    good.then_some((payload, offset + FRAME_HEAD + payload.len()))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}
