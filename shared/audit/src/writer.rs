//! The writer of a recorder.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{join, pending};
use keyward_core::audit::Outcome;
use keyward_core::id::KeyId;
use keyward_core::metric::Metric;
use keyward_core::verified::Verification;
use keyward_store::{Error, Store};
use tokio::select;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::field;

/// The number of concurrent writes of events.
const CONCURRENCY: usize = 64;
/// A key's last use is written when the last one written is so long ago.
const LAST_USE_INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// The time for which an event is tried again that the table does not take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first wait before that is at most so long, and each next one twice as long, up to the last.
const FIRST_PAUSE_MS: u64 = 50;
const LAST_PAUSE_MS: u64 = 2_000;

/// A message to the writer.
pub(crate) enum Message {
    /// Write this.
    Record(Box<Recorded>),
    /// Say when all before is written or logged.
    Flush(oneshot::Sender<()>),
    /// Take nothing more, and say when all is written or logged.
    Close(oneshot::Sender<()>),
}

/// A verification to write.
pub(crate) struct Recorded {
    verification: Verification,
    /// The key, if its use is to be noted.
    used: Option<KeyId>,
    /// Whoever waits for it.
    written: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Recorded {
    pub(crate) fn new(
        verification: Verification,
        last_used_at: Option<DateTime<Utc>>,
        written: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Self {
        let event = verification.event();
        let is_due = last_used_at.is_none_or(|last| event.id.timestamp() - last >= LAST_USE_INTERVAL);
        let used = event.key_id.filter(|_| is_due && event.outcome == Outcome::Allowed);
        Self { verification, used, written }
    }

    /// Whether there is anything to write.
    pub(crate) fn is_due(&self) -> bool {
        self.verification.is_logged() || self.used.is_some()
    }

    /// Says what came of it.
    pub(crate) fn end(self, outcome: Result<(), Error>) {
        if let Err(cause) = &outcome {
            log_unwritten(&self.verification, cause);
        }
        tell(self.written, outcome);
    }
}

/// The writer of the events of a queue.
pub(crate) struct Writer {
    store: Store,
    /// The running writes, each with the key whose use it notes.
    writes: JoinSet<Option<KeyId>>,
    /// The keys whose use is being noted.
    noting: HashSet<KeyId>,
    /// When to give up, if there is no more time.
    deadline: Arc<watch::Sender<Option<Instant>>>,
    /// Ends the running writes, and those that begin.
    give_up: CancellationToken,
}

impl Writer {
    pub(crate) fn new(store: Store, deadline: Arc<watch::Sender<Option<Instant>>>) -> Self {
        let (writes, noting, give_up) = (JoinSet::new(), HashSet::new(), CancellationToken::new());
        Self { store, writes, noting, deadline, give_up }
    }

    /// Writes what comes until it is told to close, or nobody is left who could tell it anything.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closing = Vec::new();
        let mut deadline = self.deadline.subscribe();
        loop {
            select! {
                message = queue.recv(), if self.writes.len() < CONCURRENCY => match message {
                    Some(Message::Record(recorded)) => self.begin(*recorded),
                    Some(Message::Flush(done)) => {
                        self.finish().await;
                        // Whoever asked may have gone away.
                        let _gone = done.send(());
                    }
                    Some(Message::Close(done)) => {
                        // What is already in the queue is still written.
                        queue.close();
                        closing.push(done);
                    }
                    None => break,
                },
                Some(ended) = self.writes.join_next() => self.forget(ended),
                () = passed(&mut deadline), if !self.give_up.is_cancelled() => self.give_up.cancel(),
            }
        }
        self.finish().await;
        for done in closing {
            let _gone = done.send(());
        }
    }

    /// Starts to write an event and, beside it, the use of its key, if no other write is noting that.
    fn begin(&mut self, recorded: Recorded) {
        let (store, give_up) = (self.store.clone(), self.give_up.clone());
        let used = recorded.used.filter(|key| self.noting.insert(*key));
        self.writes.spawn(async move {
            let Recorded { verification, written, .. } = recorded;
            let event = async {
                let outcome = write(&store, &verification, &give_up).await;
                if let Err(cause) = &outcome {
                    log_unwritten(&verification, cause);
                }
                tell(written, outcome);
            };
            let last_use = async {
                if used.is_some() {
                    record_use(&store, &verification, &give_up).await;
                }
            };
            join(event, last_use).await;
            used
        });
    }

    /// Returns when everything that runs after a response is done, or given up because its time is over.
    async fn finish(&mut self) {
        let (store, mut deadline) = (self.store.clone(), self.deadline.subscribe());
        let is_done = select! {
            _ = join(self.end_writes(), store.settled()) => true,
            () = passed(&mut deadline) => false,
        };
        if !is_done {
            self.give_up.cancel();
            self.end_writes().await;
        }
        self.deadline.send_replace(None);
        self.give_up = CancellationToken::new();
    }

    async fn end_writes(&mut self) {
        while let Some(ended) = self.writes.join_next().await {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<Option<KeyId>, JoinError>) {
        match ended {
            Ok(None) => {}
            Ok(Some(key)) => {
                self.noting.remove(&key);
            }
            Err(error) => {
                self.noting.clear();
                let metric = Metric::InternalErrors.name();
                tracing::error!(metric, %error, "the write of an audit event ended early");
            }
        }
    }
}

/// Returns when the deadline has passed, if there is or comes one.
async fn passed(deadline: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *deadline.borrow_and_update();
        let over = async {
            match at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        select! {
            () = over => return,
            changed = deadline.changed() => if changed.is_err() {
                pending::<()>().await;
            },
        }
    }
}

/// Writes an event, and tries again while the table does not take it.
async fn write(store: &Store, verification: &Verification, give_up: &CancellationToken) -> Result<(), Error> {
    if !verification.is_logged() {
        return Ok(());
    }
    let patience = Instant::now() + PATIENCE;
    let attempts = async {
        let mut longest = FIRST_PAUSE_MS;
        loop {
            match store.write_verification(verification).await {
                Err(error) if error.is_unavailable() && Instant::now() < patience => {
                    let draw = u64::from_be_bytes(store.entropy().bytes()?);
                    sleep(Duration::from_millis(draw % longest)).await;
                    longest = (2 * longest).min(LAST_PAUSE_MS);
                }
                outcome => return outcome,
            }
        }
    };
    select! {
        biased;
        () = give_up.cancelled() => Err(Error::internal("there was no more time to write it")),
        outcome = attempts => outcome,
    }
}

async fn record_use(store: &Store, verification: &Verification, give_up: &CancellationToken) {
    let noted = select! {
        noted = store.record_use(verification) => noted,
        () = give_up.cancelled() => return,
    };
    if let Err(error) = noted {
        let key = verification.event().key_id.map(field::display);
        tracing::warn!(%error, key, "the last use of a key was not recorded");
    }
}

fn tell(written: Option<oneshot::Sender<Result<(), Error>>>, outcome: Result<(), Error>) {
    if let Some(written) = written {
        // Whoever waited may have gone away.
        let _gone = written.send(outcome);
    }
}

/// Writes an event to the log, in a form that `keyward audit replay` finds in it.
fn log_unwritten(verification: &Verification, cause: &Error) {
    if !verification.is_logged() {
        return;
    }
    let event = Store::verification_json(verification);
    let metric = Metric::RefusedWrites.name();
    tracing::error!(target: "keyward::audit", metric, %cause, %event, "an audit event was not written");
}
