//! Versions of the pepper.

use chrono::{DateTime, Utc};
use keyward_core::hashing::PepperVersion;
use keyward_core::pepper::{PepperRecord, RowCount};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Entity;

/// A version. What may be absent takes from what it can do: it makes no tags without `activated_at`, and nothing at all
/// without `wrapped`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: PepperVersion,
    provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapped: Option<ByteBuf>,
    created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activated_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<RowCountRecord>,
}

/// The number of rows that needed a version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowCountRecord {
    at: DateTime<Utc>,
    rows: u64,
    #[serde(rename = "beneath")]
    layered: u64,
}

impl From<RowCount> for RowCountRecord {
    fn from(RowCount { at, rows, layered }: RowCount) -> Self {
        Self { at, rows, layered }
    }
}

impl From<RowCountRecord> for RowCount {
    fn from(RowCountRecord { at, rows, layered }: RowCountRecord) -> Self {
        Self { at, rows, layered }
    }
}

impl Entity for PepperRecord {
    const TYPE: &'static str = "pepper";
    type Record = Record;

    fn to_record(&self) -> Record {
        Record {
            version: self.version,
            provider: self.provider.clone(),
            wrapped: self.wrapped.clone().map(ByteBuf::from),
            created_at: self.created_at,
            activated_at: self.activated_at,
            retired_at: self.retired_at,
            counted: self.counted.map(RowCountRecord::from),
        }
    }

    fn from_record(record: Record) -> Result<Self, String> {
        Ok(Self {
            version: record.version,
            provider: record.provider,
            wrapped: record.wrapped.map(ByteBuf::into_vec),
            created_at: record.created_at,
            activated_at: record.activated_at,
            retired_at: record.retired_at,
            counted: record.counted.map(RowCount::from),
        })
    }
}
