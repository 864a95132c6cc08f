//! The progress of a re-peppering.

use chrono::{DateTime, Utc};
use keyward_core::hashing::PepperVersion;
use serde::{Deserialize, Serialize};

use super::Entity;
use crate::Repeppered;

/// A re-peppering that was begun and is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepepperJob {
    pub(crate) version: PepperVersion,
    /// When the pass that is not finished yet began.
    pub(crate) pass_began_at: DateTime<Utc>,
    /// Where each segment goes on.
    pub(crate) segments: Vec<Segment>,
    pub(crate) done: Repeppered,
}

/// Where a segment of the table goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Segment {
    Start,
    After { pk: String, sk: String },
    Done,
}

impl Entity for RepepperJob {
    const TYPE: &'static str = "repepper";
    type Record = Self;

    fn to_record(&self) -> Self {
        self.clone()
    }

    fn from_record(record: Self) -> Result<Self, String> {
        Ok(record)
    }
}
