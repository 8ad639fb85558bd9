//! Making durable what was planned, and answering only then.

use manx_api::ipam::Allocation;
use manx_ipam::journal::Record;
use manx_store::Store;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Assigned, IpamError, Task};
use crate::ask::answer;
use crate::blocking;
use crate::journal::JournalError;

/// An answer that waits for the journal.
pub(super) enum Answer {
    Assigned {
        reply: oneshot::Sender<Result<Assigned, IpamError>>,
        assigned: Assigned,
        /// What to undo where the journal fails.
        new: Vec<Allocation>,
    },
    Released {
        reply: oneshot::Sender<Result<Vec<Allocation>, IpamError>>,
        allocations: Vec<Allocation>,
    },
}

impl<S: Store> Task<S> {
    /// Makes what was planned durable, then answers; what cannot be made durable is undone and refused.
    pub(super) fn commit(&mut self) {
        let records = std::mem::take(&mut self.staged);
        let answers = std::mem::take(&mut self.answers);
        if records.is_empty() && !self.journal.is_behind() {
            answers.into_iter().for_each(Answer::send);
            return self.announce_recovery();
        }
        let begun = Instant::now();
        let outcome = blocking::in_place(|| self.journal.commit(&records, &self.allocator));
        self.metrics.journal_commit.observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(()) => answers.into_iter().for_each(Answer::send),
            Err(error) => self.undo(answers, &error),
        }
        self.touch(&records);
        self.publish();
        self.announce_recovery();
    }

    /// Answers those who wait for the recovery, after its blocks were published.
    fn announce_recovery(&mut self) {
        if self.is_recovered() {
            if !self.owned.borrow().recovered {
                self.publish();
            }
            for reply in std::mem::take(&mut self.asked) {
                answer(reply, self.allocator.allocations().collect());
            }
        }
    }

    fn undo(&mut self, answers: Vec<Answer>, error: &JournalError) {
        tracing::error!(%error, "the address journal cannot be written; requests are refused");
        for answer in answers {
            for allocation in answer.new_allocations() {
                // The next commit writes the whole journal anew, without it: the record is not needed.
                let (address, sequence) = (allocation.address, allocation.sequence);
                drop(
                    self.allocator
                        .release_address(address, sequence, self.clock.now()),
                );
            }
            answer.refuse(&IpamError::Journal {
                reason: error.to_string(),
            });
        }
    }

    /// Marks the blocks that records changed for a checkpoint.
    fn touch(&mut self, records: &[Record]) {
        let addresses = records.iter().flat_map(|record| match record {
            Record::Assigned(allocations) => allocations.iter().map(|a| a.address).collect::<Vec<_>>(),
            Record::BlockRenewed { cidr, .. } => vec![cidr.network()],
            Record::Released(freed) => freed.iter().map(|f| f.address).collect(),
            Record::BlockAdded(_)
            | Record::BlockRemoved { .. }
            | Record::Lent { .. }
            | Record::TakenBack { .. } => Vec::new(),
        });
        for address in addresses {
            if let Some(block) = self.allocator.block_of(address).map(manx_ipam::Block::cidr) {
                self.dirty.changed(block);
            }
        }
    }
}

impl Answer {
    /// What an attachment is told that has these allocations, and had those before.
    pub(super) fn assigned(
        reply: oneshot::Sender<Result<Assigned, IpamError>>,
        allocations: Vec<Allocation>,
        before: &[Allocation],
    ) -> Self {
        let is_new = |allocation: &&Allocation| !before.contains(allocation);
        Self::Assigned {
            reply,
            new: allocations.iter().filter(is_new).cloned().collect(),
            assigned: Assigned {
                allocations,
                fresh: before.is_empty(),
            },
        }
    }

    fn send(self) {
        match self {
            Self::Assigned { reply, assigned, .. } => answer(reply, Ok(assigned)),
            Self::Released { reply, allocations } => answer(reply, Ok(allocations)),
        }
    }

    fn refuse(self, error: &IpamError) {
        match self {
            Self::Assigned { reply, .. } => answer(reply, Err(error.clone())),
            Self::Released { reply, .. } => answer(reply, Err(error.clone())),
        }
    }

    fn new_allocations(&self) -> &[Allocation] {
        match self {
            Self::Assigned { new, .. } => new,
            Self::Released { .. } => &[],
        }
    }
}
