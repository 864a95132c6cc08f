//! The metrics that log events name, for operators.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// The metrics that were counted on this thread, while this lives.
pub struct Metrics {
    counted: Arc<Mutex<Vec<String>>>,
    _watching: DefaultGuard,
}

impl Metrics {
    pub fn watch() -> Self {
        let counted = Arc::<Mutex<Vec<String>>>::default();
        let watching = tracing_subscriber::registry().with(Watch(counted.clone()));
        Self { counted, _watching: tracing::subscriber::set_default(watching) }
    }

    /// The metrics that were counted since the last call of this.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.counted.lock().expect("a lock"))
    }
}

struct Watch(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        event.record(&mut Names(&self.0));
    }
}

struct Names<'w>(&'w Mutex<Vec<String>>);

impl Visit for Names<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "metric" {
            self.0.lock().expect("a lock").push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn Debug) {}
}
