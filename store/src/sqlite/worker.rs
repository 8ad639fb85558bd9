//! A thread that owns a blocking thing and runs jobs on it, one after the other.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::Error;

/// Jobs that wait at most; callers beyond that wait to hand theirs in.
const QUEUE: usize = 64;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle to the thread, which ends when the last handle is dropped and the queue is empty.
#[derive(Debug)]
pub(super) struct Worker<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T> Clone for Worker<T> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
        }
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread, which takes `thing` with it.
    pub(super) fn spawn(name: &str, mut thing: T) -> Result<Self, Error> {
        let (jobs, mut queue) = mpsc::channel::<Job<T>>(QUEUE);
        let run = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut thing);
            }
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
        match spawned {
            Ok(_detached) => Ok(Self { jobs }),
            Err(source) => Err(Error::unavailable("cannot start a thread", source)),
        }
    }

    /// Runs a job and returns what it returned. Once handed in, a job runs though its caller be dropped.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let (reply, result) = oneshot::channel();
        let job: Job<T> = Box::new(move |thing| {
            // The caller may be gone; the job was to be done all the same.
            drop(reply.send(job(thing)));
        });
        let ended = || Error::unavailable("cannot reach the store's thread", "it has ended");
        self.jobs.send(job).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

#[cfg(test)]
impl<T> Worker<T> {
    /// Whether no other handle is left.
    pub(super) fn is_last(&self) -> bool {
        self.jobs.strong_count() == 1
    }
}
