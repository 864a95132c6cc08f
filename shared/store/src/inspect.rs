//! Faults of a table, for whoever operates it. No function calls this: `keyward doctor` does.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{PointInTimeRecoveryStatus, TableStatus};

use crate::{Error, OperatorAccess, Table, TableShape};

/// A way in which a table is not as its installation needs it: a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// There is none of this name.
    #[error(
        "there is no table {0}: correct the parameter RestoredTable, or restore the table as docs/operations/restore.md says"
    )]
    Missing(String),
    /// It cannot be used at the moment.
    #[error("the table {0} is {1}: wait for it with 'aws dynamodb wait table-exists --table-name {0}'")]
    NotActive(String, TableStatus),
    /// It is some other table.
    #[error(
        "the table {0} does not have Keyward's key schema: set the parameter RestoredTable to a table that was restored from Keyward's"
    )]
    Keys(String),
    /// Expired items stay forever.
    #[error(
        "items of the table {0} do not expire: enable TTL with 'aws dynamodb update-time-to-live --table-name {0} --time-to-live-specification Enabled=true,AttributeName={1}'"
    )]
    TimeToLive(String, String),
    /// There is no going back in time.
    #[error(
        "the table {0} has no point-in-time recovery: enable it with 'aws dynamodb update-continuous-backups --table-name {0} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true'"
    )]
    PointInTimeRecovery(String),
    /// One call deletes it.
    #[error(
        "the table {0} is not protected from deletion: enable it with 'aws dynamodb update-table --table-name {0} --deletion-protection-enabled'"
    )]
    DeletionProtection(String),
    /// Its changes are not told.
    #[error(
        "the table {0} has no stream of {1}: enable it with 'aws dynamodb update-table --table-name {0} --stream-specification StreamEnabled=true,StreamViewType={1}'"
    )]
    Stream(String, String),
}

impl Table {
    /// In what ways the table is not as `shape` says.
    ///
    /// # Errors
    /// The table cannot be described, for any reason but that there is none.
    pub async fn faults(
        &self,
        _operator: &OperatorAccess,
        shape: &TableShape,
    ) -> Result<Vec<TableFault>, Error> {
        let name = || self.name().to_owned();
        let described = self.client().describe_table().table_name(self.name()).send().await;
        let table = match described {
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                return Ok(vec![TableFault::Missing(name())]);
            }
            described => described?.table.ok_or_else(|| Error::internal("no table is described"))?,
        };
        let mut faults = Vec::new();
        if let Some(status) = table.table_status()
            && !matches!(status, TableStatus::Active | TableStatus::Updating)
        {
            faults.push(TableFault::NotActive(name(), status.clone()));
        }
        if !shape.has_keys(table.key_schema(), table.attribute_definitions()) {
            // Nothing else about some other table matters.
            faults.push(TableFault::Keys(name()));
            return Ok(faults);
        }
        if !self.expires_by(shape.ttl_attribute()).await? {
            faults.push(TableFault::TimeToLive(name(), shape.ttl_attribute().to_owned()));
        }
        let backups = self.client().describe_continuous_backups().table_name(self.name()).send().await?;
        let recovery =
            backups.continuous_backups_description.and_then(|of| of.point_in_time_recovery_description);
        let recovery = recovery.and_then(|of| of.point_in_time_recovery_status);
        if recovery != Some(PointInTimeRecoveryStatus::Enabled) {
            faults.push(TableFault::PointInTimeRecovery(name()));
        }
        if table.deletion_protection_enabled() != Some(true) {
            faults.push(TableFault::DeletionProtection(name()));
        }
        let stream = table.stream_specification().and_then(|stream| stream.stream_view_type());
        if stream.is_none_or(|kind| kind.as_str() != shape.stream()) {
            faults.push(TableFault::Stream(name(), shape.stream().to_owned()));
        }
        Ok(faults)
    }
}
