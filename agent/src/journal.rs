//! The address journal's file. Its format is [`manx_ipam::journal`]'s; here is the order of writes, syncs and
//! renames on a [`Disk`].
//!
//! Everything here blocks: callers keep it off the threads that others wait for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manx_ipam::Allocator;
use manx_ipam::journal::{self, EncodeError, Record, ReplayError};

use crate::disk::{Disk, LogFile};

/// Records after which the file is written anew, from the present state.
const COMPACT_AFTER: usize = 4096;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// None after a failed write: the next commit writes a new file.
    file: Option<Box<dyn LogFile>>,
    /// Records since the file was last written anew.
    records: usize,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says nothing that could be trusted.
    #[error(
        "{path}: {source}; move the file away to rebuild the allocations from the datastore's checkpoints and \
         the interfaces that exist"
    )]
    Replay {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReplayError,
    },
    /// The records have no written form.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Journal {
    /// Opens or creates the journal at `path`, cuts a torn tail off, and gives what it says.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged: it is left as it is then.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Allocator), JournalError> {
        let mut this = Self {
            disk,
            path: path.to_owned(),
            file: None,
            records: 0,
        };
        let bytes = this.disk.read(path).map_err(|source| this.io_error(source))?;
        let replay = journal::replay(&bytes.unwrap_or_default()).map_err(|source| JournalError::Replay {
            path: path.to_owned(),
            source,
        })?;
        if let Some(torn) = replay.torn {
            tracing::warn!(path = %path.display(), ?torn, "the journal's last write was cut short; nobody was answered for it");
        }
        if replay.valid_len < journal::HEADER.len() {
            this.rewrite(&replay.allocator)?;
        } else {
            this.records = replay.records;
            this.file = Some(
                this.cut(replay.valid_len)
                    .map_err(|source| this.io_error(source))?,
            );
        }
        Ok((this, replay.allocator))
    }

    /// Makes `records` durable, as one group; `allocator` has them applied already.
    ///
    /// # Errors
    /// The records may or may not be in the file: the caller undoes them in `allocator`, and the next commit
    /// writes the file anew from what `allocator` says then.
    pub fn commit(&mut self, records: &[Record], allocator: &Allocator) -> Result<(), JournalError> {
        let Some(mut file) = self.file.take().filter(|_| self.records < COMPACT_AFTER) else {
            return self.rewrite(allocator);
        };
        let frame = journal::encode(records)?;
        let written = file.write(&frame).and_then(|()| file.sync());
        written.map_err(|source| self.io_error(source))?;
        self.file = Some(file);
        self.records = self.records.saturating_add(records.len());
        Ok(())
    }

    /// A new file that says what `allocator` is takes the old one's place, at once and durably.
    fn rewrite(&mut self, allocator: &Allocator) -> Result<(), JournalError> {
        let text = journal::compact(allocator)?;
        let file = self.replace(&text).map_err(|source| self.io_error(source))?;
        self.file = Some(file);
        self.records = 0;
        Ok(())
    }

    /// The file, without what follows its first `length` bytes.
    fn cut(&self, length: usize) -> io::Result<Box<dyn LogFile>> {
        let mut file = self.disk.append(&self.path)?;
        file.cut(u64::try_from(length).map_err(io::Error::other)?)?;
        file.sync()?;
        Ok(file)
    }

    /// Writes `bytes` beside the file and renames it there, synced with its directory; open for appending.
    fn replace(&self, bytes: &[u8]) -> io::Result<Box<dyn LogFile>> {
        let new = self.path.with_extension("new");
        let mut file = self.disk.create(&new)?;
        file.write(bytes)?;
        file.sync()?;
        self.disk.rename(&new, &self.path)?;
        if let Some(directory) = self.path.parent() {
            self.disk.sync_directory(directory)?;
        }
        Ok(file)
    }

    fn io_error(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use manx_api::ipam::{AttachmentId, IpBlock};
    use manx_ipam::{Family, Request, Rest, Want};

    use super::*;
    use crate::disk::FileSystem;

    fn open(path: &Path) -> Result<(Journal, Allocator), JournalError> {
        Journal::open(Arc::new(FileSystem), path)
    }

    fn block() -> IpBlock {
        serde_json::from_str(
            r#"{"metadata": {"name": "10-0-0-0-26"},
                "spec": {"cidr": "10.0.0.0/26", "pool": "p", "node": "n1", "generation": 1}}"#,
        )
        .unwrap()
    }

    fn assign(allocator: &mut Allocator, container: &str) -> Record {
        let owner = AttachmentId {
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: container.to_owned(),
            network: None,
        };
        let request = Request {
            owner: &owner,
            wants: &[Want::Any {
                family: Family::V4,
                blocks: allocator.blocks().map(manx_ipam::Block::cidr).collect(),
                unrested: false,
            }],
            rest: Rest::default(),
        };
        allocator.assign(&request).unwrap().record.unwrap()
    }

    fn journal_with_block(path: &Path) -> (Journal, Allocator) {
        let (mut journal, mut allocator) = open(path).unwrap();
        let added = allocator.add_block(&block()).unwrap();
        journal.commit(&[added], &allocator).unwrap();
        (journal, allocator)
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.journal");
        let (mut journal, mut allocator) = journal_with_block(&path);
        for container in ["a", "b", "c"] {
            let record = assign(&mut allocator, container);
            journal.commit(&[record], &allocator).unwrap();
        }
        drop(journal);
        assert_eq!(open(&path).unwrap().1, allocator);
    }

    #[test]
    fn a_torn_tail_is_cut_and_appending_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.journal");
        let (journal, allocator) = journal_with_block(&path);
        drop(journal);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[9, 0, 0])
            .unwrap();

        let (mut journal, mut replayed) = open(&path).unwrap();
        assert_eq!(replayed, allocator);
        let record = assign(&mut replayed, "a");
        journal.commit(&[record], &replayed).unwrap();
        drop(journal);
        assert_eq!(open(&path).unwrap().1, replayed);
    }

    #[test]
    fn a_long_journal_is_written_anew_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.journal");
        let (mut journal, mut allocator) = journal_with_block(&path);
        journal.records = COMPACT_AFTER;
        let record = assign(&mut allocator, "a");
        journal.commit(&[record], &allocator).unwrap();
        assert_eq!(journal.records, 0);
        let record = assign(&mut allocator, "b");
        journal.commit(&[record], &allocator).unwrap();
        drop(journal);
        assert_eq!(open(&path).unwrap().1, allocator);
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipam.journal");
        std::fs::write(&path, "something else, and longer than a header").unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("move the file away"), "{error}");
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .starts_with("something else")
        );
    }
}
