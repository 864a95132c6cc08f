//! The process of a Lambda function: it takes invocations, and after the response to each it writes what was decided.
//!
//! Lambda freezes a process when its runtime and each of its extensions have asked for what comes next. So the process is an
//! extension too, which asks for that when everything is written: meanwhile the caller has the response. Where it cannot be
//! registered as one, the runtime writes before it asks for the next event. A process of Lambda Managed Instances is never
//! frozen, and takes several invocations at once.
//!
//! - <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>
//! - <https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances-execution-environment.html>

use std::env;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join};
use keyward_audit::Recorder;
use keyward_store::system_clock;
use lambda_extension::{Extension, NextEvent};
use lambda_runtime::{Error, LambdaInvocation, Runtime, Service, service_fn};
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::layer::layer_fn;

use crate::ColdStart;

/// The name under which a process is registered as an extension.
const EXTENSION: &str = "keyward";
/// The time of an invocation that is left for the log, when not everything could be written.
const RESERVE: Duration = Duration::from_millis(200);
/// The time for that in a process that is told to end: Lambda kills it half a second after SIGTERM.
const SHUTDOWN_TIME: Duration = Duration::from_millis(300);

/// Writes what was decided, within this time.
type Flush = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// The step after the response to an invocation, by which nothing is frozen before it is written.
#[derive(Clone)]
enum Answered {
    /// Tell the extension which it was.
    Tell(watch::Sender<String>),
    /// Write before the next event is asked for.
    Write(Flush),
    /// Nothing: the process is not frozen.
    GoOn,
}

/// The number of invocations that the process may be given at once: 1, but on Managed Instances.
fn concurrency() -> u32 {
    env::var("AWS_LAMBDA_MAX_CONCURRENCY").ok().and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Runs a function's process: on one thread, or on all there are where it is given several invocations at once.
///
/// # Errors
/// Those of `process`; the threads cannot be started.
pub fn block_on(process: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let mut threads =
        if concurrency() > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    threads.enable_all().build()?.block_on(process)
}

impl<T: Send + Sync + 'static> ColdStart<T> {
    /// Begins the process ([`Self::begin`]) and serves the invocations that `runtime` handles, until it is told to end. What
    /// goes through the recorder of the state is written after each response, at the latest when the time of the invocation
    /// is over; what is not is in the log.
    ///
    /// # Errors
    /// The process cannot begin, or Lambda's APIs fail.
    pub async fn serve<S>(
        self,
        recorder: fn(&T) -> &Recorder,
        runtime: impl FnOnce(Arc<Self>) -> Runtime<S>,
    ) -> Result<(), Error>
    where
        S: Service<LambdaInvocation, Response = (), Error = Error> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let mut terminated = signal(SignalKind::terminate())?;
        let is_frozen = concurrency() == 1;
        let (answered, last_answered) = watch::channel(String::new());
        let function = Arc::new(self);
        let flush: Flush = {
            let function = function.clone();
            Arc::new(move |limit| {
                let function = function.clone();
                async move {
                    if let Some(state) = function.state() {
                        recorder(state).flush(limit).await;
                    }
                }
                .boxed()
            })
        };
        let after_invocation = {
            let flush = flush.clone();
            service_fn(move |event: lambda_extension::LambdaEvent| {
                let (flush, mut last_answered) = (flush.clone(), last_answered.clone());
                async move {
                    if let NextEvent::Invoke(invocation) = event.next {
                        let is_this = |last: &String| *last == invocation.request_id;
                        // One that is not answered in its time ends the process.
                        let _late =
                            timeout(time_left(invocation.deadline_ms), last_answered.wait_for(is_this)).await;
                        flush(time_left(invocation.deadline_ms)).await;
                    }
                    Ok::<(), Error>(())
                }
            })
        };
        // SIGTERM is sent to processes with an extension alone, so that one is registered for no events where none are needed.
        let extension = Extension::new()
            .with_extension_name(EXTENSION)
            .with_events(if is_frozen { &["INVOKE"] } else { &[] })
            .with_events_processor(after_invocation)
            .register();
        let (begun, extension) = join(function.begin(), extension).await;
        begun?;
        let extension = extension
            .inspect_err(
                |error| tracing::warn!(%error, "no extension: events are written before the next invocation"),
            )
            .ok();
        let answered = match &extension {
            _ if !is_frozen => Answered::GoOn,
            Some(_) => Answered::Tell(answered),
            None => Answered::Write(flush.clone()),
        };
        let runtime = runtime(function)
            .layer(layer_fn(|handler| AfterResponse { handler, answered: answered.clone() }))
            .run_concurrent();
        let extension = async {
            match extension {
                Some(extension) => extension.run().await,
                None => std::future::pending().await,
            }
        };
        select! {
            ended = runtime => ended,
            ended = extension => ended,
            _ = terminated.recv() => {
                flush(SHUTDOWN_TIME).await;
                Ok(())
            }
        }
    }
}

/// The time until an invocation's deadline in Unix milliseconds, but for the reserve.
fn time_left(deadline_ms: u64) -> Duration {
    let now = u64::try_from(system_clock().now().timestamp_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(deadline_ms.saturating_sub(now)).saturating_sub(RESERVE)
}

/// A handler of invocations, with what is to be done when its response is out.
#[derive(Clone)]
struct AfterResponse<S> {
    handler: S,
    answered: Answered,
}

impl<S> Service<LambdaInvocation> for AfterResponse<S>
where
    S: Service<LambdaInvocation, Response = (), Error = Error>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = Error;
    type Future = BoxFuture<'static, Result<(), Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handler.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let (id, deadline_ms) = (invocation.context.request_id.clone(), invocation.context.deadline);
        let (response, answered) = (self.handler.call(invocation), self.answered.clone());
        async move {
            let sent = response.await;
            match answered {
                Answered::Tell(extension) => {
                    extension.send_replace(id);
                }
                Answered::Write(flush) => flush(time_left(deadline_ms)).await,
                Answered::GoOn => {}
            }
            sent
        }
        .boxed()
    }
}
