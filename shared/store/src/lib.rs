//! The single table: its items, their keys and the ways they are accessed. Nothing else knows DynamoDB.
//!
//! Every call takes who asks: a value that names the deployment and what the caller may do ([`RootAccess`],
//! [`SessionAccess`], [`AppAccess`], and [`PublicAccess`] for what anybody may know), handed out here only, against a
//! credential whose tag matched; a credential; a [`keyward_core::VerifiedKey`] or what was decided of one; or the
//! [`OperatorAccess`] of the command. Reads
//! that decide anything are strongly consistent. A change is conditional on the state it was decided from, and is
//! written in one transaction with its audit event. When DynamoDB fails, throttles or is slow, a call ends with
//! [`Error::Unavailable`] and has changed nothing, but for a request whose response was lost on the way.

mod access;
mod apps;
mod change;
mod client;
mod deadline;
mod deployments;
mod error;
mod events;
mod inspect;
mod item;
mod keys;
mod limits;
mod peppers;
mod recent;
mod record;
mod root_keys;
mod scheme_uses;
mod schemes;
mod sessions;
mod system;
mod table;
mod tickets;

use std::hash::RandomState;
use std::sync::Arc;

use keyward_core::id::{AppNumber, DeploymentId};
use keyward_core::{Clock, Entropy};
use keyward_pepper::KeyProvider;

pub use access::{AppAccess, OperatorAccess, PublicAccess, RootAccess, SessionAccess};
pub use apps::{AppPage, ListApps};
pub use client::dynamodb_client;
pub use deadline::Deadline;
pub use error::{Conflict, Error, Failure, Forbidden, Resource};
pub use events::{EventFilter, EventKinds, EventPage, MAX_ANALYZED};
pub use inspect::TableFault;
pub use keys::{Candidate, FoundKeys, KeyPage, KeyStatus, KeyToCheck};
pub use peppers::{OpenError, PROPAGATION_TIME, Progress, Repeppered, Sweep};
pub use system::{system_clock, system_entropy};
pub use table::{Table, TableShape};
pub use tickets::{AuthenticatedTicket, Exchange, NewTicket};

use deployments::ReadDeployment;
use item::Key;
use limits::FullCounters;
use peppers::{Background, Peppers};
use recent::Recent;

/// The table together with the peppers: all that is needed to issue and to recognise credentials.
#[derive(Debug, Clone)]
pub struct Store {
    table: Table,
    peppers: Peppers,
    background: Background,
    /// Where the rules of keys with a scheme of their own were last found.
    schemes_of_keys: Recent<u64, Key>,
    /// The hasher that tells the tokens of those keys apart.
    fingerprints: RandomState,
    /// Where the rules of the other keys of an app were last found.
    schemes_of_apps: Recent<AppNumber, Key>,
    full_counters: FullCounters,
    deployments: Recent<DeploymentId, ReadDeployment>,
}

impl Store {
    /// A store over this table that hashes with its peppers, which this reads and has unwrapped: each once.
    ///
    /// # Errors
    /// The table or the key provider fails: there is no going on without peppers.
    pub async fn open(table: Table, provider: Arc<dyn KeyProvider>) -> Result<Self, OpenError> {
        Ok(Self {
            peppers: Peppers::load(table.clone(), provider).await?,
            table,
            background: Background::default(),
            schemes_of_keys: Recent::default(),
            fingerprints: RandomState::new(),
            schemes_of_apps: Recent::default(),
            full_counters: limits::full_counters(),
            deployments: Recent::default(),
        })
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The number of HMACs computed to compare credentials.
    pub fn hmacs_compared(&self) -> u64 {
        self.peppers.ring().compared()
    }

    /// The clock that decides what has expired.
    pub fn clock(&self) -> &Clock {
        self.table.clock()
    }

    /// The source of random bytes that ids and secrets are drawn from.
    pub fn entropy(&self) -> &Entropy {
        self.table.entropy()
    }
}
