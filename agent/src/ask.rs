//! Questions between tasks: a message with a way back.

use tokio::sync::{mpsc, oneshot};

/// The task that was asked has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is shutting down")]
pub struct Gone;

/// Asks a task and waits for its answer.
///
/// # Errors
/// The task has ended.
pub async fn ask<M, T>(
    door: &mpsc::Sender<M>,
    question: impl FnOnce(oneshot::Sender<T>) -> M,
) -> Result<T, Gone> {
    let (reply, answer) = oneshot::channel();
    door.send(question(reply)).await.map_err(|_| Gone)?;
    answer.await.map_err(|_| Gone)
}

/// Answers; whoever no longer listens does not need it.
pub fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("an answer that nobody waits for");
    }
}
