//! The way to the driver, and how much may lie there.
//!
//! Whoever brings something waits until there is room, in order of arrival. A connection brings a portion of messages
//! at a time, and little of it lies here: one that floods is never far ahead of the others.

use std::sync::Arc;

use manx_bgp::Input;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::driver::Job;

/// Jobs that wait for the driver, at most.
pub(crate) const JOBS: usize = 256;

/// Octets of messages that are decoded and wait for the driver, at most. In memory they take up to 30 times as much, where
/// they are all short prefixes.
const OCTETS: u32 = 1024 * 1024;

/// The same, of one connection: enough to keep the driver busy, and no more than that is before another peer's KEEPALIVE.
const OCTETS_PER_CONNECTION: u32 = 64 * 1024;

/// Octets of messages that a connection decodes before it hands them on. The driver takes them one after another, and
/// meanwhile nobody else's.
pub(crate) const PORTION: usize = 16 * 1024;

/// Room for messages; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[expect(dead_code, reason = "held for its drop")] [OwnedSemaphorePermit; 2]);

/// The way in. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    jobs: mpsc::Sender<Job>,
    octets: Arc<Semaphore>,
}

/// Which part of the room is a connection's.
#[derive(Debug)]
pub(crate) struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OCTETS_PER_CONNECTION as usize)))
    }
}

impl Inbox {
    /// A way in, and where it leads.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(JOBS);
        let octets = Arc::new(Semaphore::new(OCTETS as usize));
        (Self { jobs, octets }, receiver)
    }

    /// Room for messages of `octets`, which are not decoded before.
    pub(crate) async fn room(&self, share: &Share, octets: usize) -> Option<Room> {
        let octets =
            u32::try_from(octets).map_or(OCTETS_PER_CONNECTION, |octets| octets.min(OCTETS_PER_CONNECTION));
        let own = share.0.clone().acquire_many_owned(octets).await.ok()?;
        let ours = self.octets.clone().acquire_many_owned(octets).await.ok()?;
        Some(Room([own, ours]))
    }

    /// Nobody waits for room any more: there will be no driver.
    pub(crate) fn close(&self) {
        self.octets.close();
    }

    /// Brings the driver an input.
    pub(crate) async fn tell(&self, input: Input) {
        self.hand(vec![input], None).await;
    }

    /// Brings the driver messages for which there is room.
    pub(crate) async fn hand(&self, inputs: Vec<Input>, room: Option<Room>) {
        self.send(Job::Inputs(inputs, room)).await;
    }

    /// Brings the driver a job. Whether there was one to bring it to.
    pub(crate) async fn send(&self, job: Job) -> bool {
        let sent = self.jobs.send(job).await.is_ok();
        if !sent {
            tracing::debug!("the speaker has stopped");
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// What is decoded is bounded in octets, for one connection and for all.
    #[tokio::test]
    async fn messages_wait_for_room_before_they_are_decoded() {
        const EXTENDED: usize = 65_535;
        let (inbox, mut jobs) = Inbox::new();
        let (flooding, other) = (Share::default(), Share::default());
        let first = inbox.room(&flooding, EXTENDED).await;
        inbox.hand(vec![Input::Tick], first).await;
        let second = inbox.room(&flooding, EXTENDED);
        tokio::pin!(second);
        timeout(Duration::from_millis(20), &mut second).await.unwrap_err();
        assert!(inbox.room(&other, 19).await.is_some(), "nobody else waits");
        // The driver takes one.
        drop(jobs.recv().await);
        assert!(timeout(Duration::from_secs(10), second).await.unwrap().is_some());

        let crowd: Vec<Share> = (0..20).map(|_| Share::default()).collect();
        let mut rooms = Vec::new();
        for share in crowd.iter().cycle() {
            match timeout(Duration::from_millis(20), inbox.room(share, EXTENDED)).await {
                Ok(room) => rooms.push(room.unwrap()),
                Err(_) => break,
            }
        }
        assert_eq!(rooms.len(), 16, "a MiB");
        inbox.close();
        assert!(
            inbox.room(&other, EXTENDED).await.is_none(),
            "and then nobody waits"
        );
    }
}
