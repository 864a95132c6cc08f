//! Recording verifications: after the response, without losing any.
//!
//! [`Recorder::record`] passes an event to a writer and returns; the writer puts each event as soon as it has it, 64 at a time,
//! and beside it the last use of its key. When the queue is full, `record` waits: a slow table delays responses rather than
//! losing their events. Where the app wants events before the answer, it returns when the event is written. An event that the
//! table does not take is tried again; one that it finally rejects goes to the log, under the target `keyward::audit` and in
//! a form that `keyward audit replay` restores. A process that ends calls [`Recorder::close`], a function that may be frozen
//! calls [`Recorder::flush`] before it is: either ends in time, whatever is queued. Lifecycle events do not come here: `store`
//! writes them in the transaction of the change.

mod writer;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyward_core::audit_settings::AuditDurability;
use keyward_core::verified::Verification;
use keyward_store::{Error, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use writer::{Message, Recorded, Writer};

/// The number of events that may wait for the writer.
const QUEUE_CAPACITY: usize = 10_000;

/// The time that a process which ends gives the table.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// The way to the writer. Clones lead to the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Message>,
    /// When the writer gives up what it was told before.
    deadline: Arc<watch::Sender<Option<Instant>>>,
}

impl Recorder {
    /// Starts a writer on the current Tokio runtime.
    pub fn start(store: Store) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let deadline = Arc::new(watch::Sender::new(None));
        tokio::spawn(Writer::new(store, deadline.clone()).run(receiver));
        Self { queue, deadline }
    }

    /// Records a verification by a key that was last used at `last_used_at`, as far as that is written. Returns when its event
    /// is queued or, where the app wants it before the answer, written.
    ///
    /// # Errors
    /// It was to be written, and was not: it is in the log.
    pub async fn record(
        &self,
        verification: Verification,
        last_used_at: Option<DateTime<Utc>>,
    ) -> Result<(), Error> {
        match verification.durability() {
            AuditDurability::AfterAnswer => {
                self.enqueue(Recorded::new(verification, last_used_at, None)).await;
                Ok(())
            }
            AuditDurability::BeforeAnswer => {
                let (written, wait) = oneshot::channel();
                self.enqueue(Recorded::new(verification, last_used_at, Some(written))).await;
                wait.await.unwrap_or_else(|_| Err(Error::internal("the writer of audit events has ended")))
            }
        }
    }

    /// Returns when everything recorded before is written, and nothing else is left that the store does after a response. What
    /// is not written when this time is over is in the log instead.
    pub async fn flush(&self, limit: Duration) {
        self.call(limit, Message::Flush).await;
    }

    /// As [`Self::flush`], with ten seconds, and ends the writer.
    pub async fn close(&self) {
        self.call(CLOSING_TIME, Message::Close).await;
    }

    async fn enqueue(&self, recorded: Recorded) {
        if !recorded.is_due() {
            return recorded.end(Ok(()));
        }
        let sent = self.queue.send(Message::Record(Box::new(recorded))).await;
        if let Err(mpsc::error::SendError(Message::Record(recorded))) = sent {
            recorded.end(Err(Error::internal("the writer of audit events has been closed")));
        }
    }

    async fn call(&self, limit: Duration, message: impl FnOnce(oneshot::Sender<()>) -> Message) {
        let (done, wait) = oneshot::channel();
        // It does not wait in the queue: what is before it there has no more time either.
        self.deadline.send_replace(Some(Instant::now() + limit));
        if self.queue.send(message(done)).await.is_ok() {
            // An error says that the writer has ended, and it ends only when all is written.
            let _ended = wait.await;
        }
    }
}
