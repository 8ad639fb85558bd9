//! A disk that fails, and that loses what was not synced when the power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use manx_agent::disk::{Disk, LogFile};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::chance::{Fate, Life};

/// What a node's disk holds; it outlives the agent. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platter(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    files: Vec<File>,
    /// The names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// The names as they are after a power loss, at least.
    durable: BTreeMap<PathBuf, usize>,
}

#[derive(Debug, Default)]
struct File {
    /// The bytes as programs see them.
    seen: Vec<u8>,
    /// The bytes that are there after a power loss, at least.
    durable: Vec<u8>,
    /// A sync failed: what was dirty then is never written.
    dropped: bool,
}

impl Platter {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    /// A file's bytes.
    pub(crate) fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.lock();
        let file = *content.names.get(path)?;
        Some(content.files[file].seen.clone())
    }

    /// Everything on it is gone.
    pub(crate) fn wipe(&self) {
        *self.lock() = Content::default();
    }

    /// The power goes: what was not synced is there, or is not, or in part.
    pub(crate) fn lose_power(&self, mut rng: StdRng) {
        let mut content = self.lock();
        if rng.random() {
            content.names = content.durable.clone();
        } else {
            content.durable = content.names.clone();
        }
        for file in &mut content.files {
            file.lose_power(&mut rng);
        }
    }
}

impl File {
    fn lose_power(&mut self, rng: &mut StdRng) {
        if let Some(dirty) = self.seen.strip_prefix(self.durable.as_slice()) {
            let kept = rng.random_range(0..=dirty.len());
            let mut tail = dirty[..kept].to_vec();
            // A sector in the middle that was not written, as blocks reach the disk in any order.
            if kept > 0 && rng.random() {
                let hole = rng.random_range(0..kept);
                tail[hole..].fill(0);
            }
            self.durable.extend(tail);
        } else if rng.random() {
            self.durable.clone_from(&self.seen);
        }
        self.seen.clone_from(&self.durable);
        self.dropped = false;
    }
}

/// A disk as one life of an agent sees it.
#[derive(Debug)]
pub(crate) struct CrashingDisk {
    pub(crate) platter: Platter,
    pub(crate) life: Life,
}

impl CrashingDisk {
    /// Does what is done at once or not at all.
    fn attempt<T>(&self, what: &str, effect: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let (fate, _) = self.life.fate(what);
        match fate {
            Fate::Done => effect(&mut self.platter.lock()),
            Fate::Refused | Fate::DoneButRefused => Err(refusal(what)),
            Fate::DiedBefore => self.life.die(),
            Fate::DiedAfter => {
                drop(effect(&mut self.platter.lock()));
                self.life.die()
            }
        }
    }

    fn open(&self, file: usize) -> Box<dyn LogFile> {
        Box::new(OpenFile {
            platter: self.platter.clone(),
            life: self.life.clone(),
            file,
        })
    }
}

impl Disk for CrashingDisk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.attempt("read", |content| {
            let file = content.names.get(path);
            Ok(file.map(|file| content.files[*file].seen.clone()))
        })
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = self.attempt("open", |content| {
            let file = content.names.get(path).copied();
            file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        })?;
        Ok(self.open(file))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = self.attempt("create", |content| {
            content.files.push(File::default());
            let file = content.files.len() - 1;
            content.names.insert(path.to_owned(), file);
            Ok(file)
        })?;
        Ok(self.open(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt("rename", |content| {
            let file = content.names.remove(from);
            let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            content.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        self.attempt("sync directory", |content| {
            content.durable = content.names.clone();
            Ok(())
        })
    }
}

/// An open file, in one life of an agent.
#[derive(Debug)]
struct OpenFile {
    platter: Platter,
    life: Life,
    file: usize,
}

impl OpenFile {
    fn change<T>(&self, effect: impl FnOnce(&mut File) -> T) -> T {
        effect(&mut self.platter.lock().files[self.file])
    }
}

impl LogFile for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (fate, mut rng) = self.life.fate("write");
        let written = match fate {
            Fate::Done | Fate::DoneButRefused => bytes.len(),
            Fate::DiedBefore => 0,
            Fate::Refused | Fate::DiedAfter => rng.random_range(0..=bytes.len()),
        };
        self.change(|file| file.seen.extend(&bytes[..written]));
        match fate {
            Fate::Done => Ok(()),
            Fate::Refused | Fate::DoneButRefused => Err(refusal("write")),
            Fate::DiedBefore | Fate::DiedAfter => self.life.die(),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let (fate, _) = self.life.fate("sync");
        match fate {
            Fate::Done | Fate::DoneButRefused | Fate::DiedAfter => self.change(|file| {
                if !file.dropped {
                    file.durable.clone_from(&file.seen);
                }
            }),
            Fate::Refused => self.change(|file| file.dropped = true),
            Fate::DiedBefore => {}
        }
        match fate {
            Fate::Done => Ok(()),
            Fate::Refused | Fate::DoneButRefused => Err(refusal("sync")),
            Fate::DiedBefore | Fate::DiedAfter => self.life.die(),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let (fate, _) = self.life.fate("cut");
        let length = usize::try_from(length).map_err(io::Error::other)?;
        match fate {
            Fate::Done => self.change(|file| file.seen.truncate(length)),
            Fate::Refused | Fate::DoneButRefused => return Err(refusal("cut")),
            Fate::DiedBefore => self.life.die(),
            Fate::DiedAfter => {
                self.change(|file| file.seen.truncate(length));
                self.life.die()
            }
        }
        Ok(())
    }
}

fn refusal(what: &str) -> io::Error {
    io::Error::other(format!("the disk fails to {what}"))
}
