//! Recording verifications: after the response, in batches, without losing any.
//!
//! [`Recorder::record`] passes an event to a writer and returns; the writer writes the queued events, 32 at a time. When
//! the queue is full, `record` waits: a slow table delays responses rather than losing their events. Events that the
//! table finally rejects go to the log as one line of JSON each, under the target `keyward::audit`. A process that ends
//! calls [`Recorder::close`], a function that may be frozen calls [`Recorder::flush`] before it responds. Lifecycle
//! events do not come here: `store` writes them in the transaction of the change.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use keyward_core::audit::Outcome;
use keyward_core::metric::Metric;
use keyward_core::verified::Verification;
use keyward_store::Store;
use tokio::sync::{mpsc, oneshot};
use tracing::field;

/// The number of events that may wait for the writer.
const QUEUE_CAPACITY: usize = 10_000;
/// The number of events that are taken from the queue together.
const BATCH_SIZE: usize = 500;
/// The number of concurrent writes.
const CONCURRENCY: usize = 32;
/// A key's last use is written when the last one written is so long ago.
const LAST_USE_INTERVAL: TimeDelta = TimeDelta::minutes(1);

enum Message {
    Verification {
        verification: Box<Verification>,
        /// Whether the use of the key is to be noted: it has been long enough.
        due: bool,
    },
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// The way to the writer. Clones lead to the same one.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Message>);

impl Recorder {
    /// Starts a writer on the current Tokio runtime.
    pub fn start(store: Store) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(write(store, receiver));
        Self(sender)
    }

    /// Records a verification by a key that was last used at `last_used_at`, as far as that is written.
    pub async fn record(&self, verification: Verification, last_used_at: Option<DateTime<Utc>>) {
        let event = verification.event();
        let used = event.id.timestamp();
        let due = last_used_at.is_none_or(|last| used - last >= LAST_USE_INTERVAL)
            && event.outcome == Outcome::Allowed;
        let verification = Box::new(verification);
        if let Err(mpsc::error::SendError(Message::Verification { verification, .. })) =
            self.0.send(Message::Verification { verification, due }).await
        {
            log_unwritten(&verification, &"the writer has been closed");
        }
    }

    /// Returns when everything recorded before is written, or logged where it could not be, and nothing else is left that
    /// the store does after a response.
    pub async fn flush(&self) {
        self.call(Message::Flush).await;
    }

    /// Writes everything recorded before, then ends the writer.
    pub async fn close(&self) {
        self.call(Message::Close).await;
    }

    async fn call(&self, message: impl FnOnce(oneshot::Sender<()>) -> Message) {
        let (done, wait) = oneshot::channel();
        if self.0.send(message(done)).await.is_ok() {
            // An error says that the writer has ended, and it ends only when all is written.
            let _ended = wait.await;
        }
    }
}

async fn write(store: Store, mut queue: mpsc::Receiver<Message>) {
    let mut received = Vec::with_capacity(BATCH_SIZE);
    while queue.recv_many(&mut received, BATCH_SIZE).await > 0 {
        let (mut verifications, mut uses, mut waiting, mut close) =
            (Vec::new(), HashMap::new(), Vec::new(), false);
        for message in received.drain(..) {
            match message {
                Message::Verification { verification, due } => {
                    let verification = Arc::from(verification);
                    if due {
                        uses.insert(Verification::event(&verification).key_id, verification.clone());
                    }
                    verifications.push(verification);
                }
                Message::Flush(done) => waiting.push(done),
                Message::Close(done) => {
                    close = true;
                    waiting.push(done);
                }
            }
        }
        // After a close, what is already in the queue is still written, and nothing more is taken in.
        if close {
            queue.close();
        }
        stream::iter(verifications)
            .for_each_concurrent(CONCURRENCY, |verification| write_verification(&store, verification))
            .await;
        join_all(uses.into_values().map(|of_key| record_use(&store, of_key))).await;
        if !waiting.is_empty() {
            store.settled().await;
        }
        for done in waiting {
            // Whoever asked may have gone away.
            let _gone = done.send(());
        }
    }
}

async fn write_verification(store: &Store, verification: Arc<Verification>) {
    if let Err(cause) = store.write_verification(&verification).await {
        log_unwritten(&verification, &cause);
    }
}

async fn record_use(store: &Store, verification: Arc<Verification>) {
    if let Err(error) = store.record_use(&verification).await {
        let key = verification.event().key_id.map(field::display);
        tracing::warn!(%error, key, "the last use of a key was not recorded");
    }
}

fn log_unwritten(verification: &Verification, cause: &dyn std::fmt::Display) {
    let json = Store::verification_json(verification);
    let metric = Metric::RefusedWrites.name();
    tracing::error!(target: "keyward::audit", metric, %cause, event = json, "an audit event was not written");
}
