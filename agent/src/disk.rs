//! What the address journal asks of a file system, and the machine's own.
//!
//! Each method is one thing that can fail or be the last that a process does, so that what a crash between any
//! two of them leaves behind can be tried out on a file system that crashes. Everything here blocks.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// A file system.
pub trait Disk: Debug + Send + Sync {
    /// A file's content; none where there is no file.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Opens a file that exists, to write at its end.
    ///
    /// # Errors
    /// It cannot be opened.
    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Makes a file, or empties the one that is there.
    ///
    /// # Errors
    /// It cannot be made.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;

    /// Gives a file another's name, in place of that other one: at once, and durably once the directory is synced.
    ///
    /// # Errors
    /// The names are as they were.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// They may or may not be.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file that is written at its end.
pub trait LogFile: Debug + Send {
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// Some of them, from the first on, may be there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// Some of it may be. Another attempt proves nothing: the kernel may have dropped what it could not write.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// It is as long as it was.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

impl Disk for FileSystem {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl LogFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of the data; the times of the file are not, and cost a write each.
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
