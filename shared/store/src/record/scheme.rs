//! Rate-limit schemes.

use chrono::{DateTime, Utc};
use keyward_core::id::{DeploymentId, SchemeId};
use keyward_core::rate_limit::{Mode, Rule, Rules, Scheme, Unit, WindowKind};
use keyward_core::text::{Description, Name, Slug};
use serde::{Deserialize, Serialize};

use super::Entity;

/// A scheme. `apps` and `api_keys` move by `ADD` alone, without a new revision, so no change writes them: they are absent at
/// 0. Whoever takes a scheme that is in use for one that is not deletes it, and the keys that it limits are refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SchemeRecord {
    id: SchemeId,
    deployment_id: DeploymentId,
    slug: Slug,
    name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
    rules: Vec<RuleRecord>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    revision: u64,
    #[serde(default, skip_serializing)]
    apps: u64,
    #[serde(default, skip_serializing)]
    api_keys: u64,
}

/// A rule. What may be absent narrows it: without a `mode` it is one of each key, without `endpoints` it holds for all
/// requests, without a `window` for any stretch of its length.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRecord {
    unit: Unit,
    duration: i32,
    max_requests: i32,
    #[serde(default)]
    window: WindowKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<String>>,
    priority: i32,
}

impl From<Rule> for RuleRecord {
    fn from(rule: Rule) -> Self {
        let Rule { unit, duration, max_requests, window, mode, endpoints, priority } = rule;
        Self { unit, duration, max_requests, window, mode, endpoints, priority }
    }
}

impl From<RuleRecord> for Rule {
    fn from(record: RuleRecord) -> Self {
        let RuleRecord { unit, duration, max_requests, window, mode, endpoints, priority } = record;
        Self { unit, duration, max_requests, window, mode, endpoints, priority }
    }
}

impl Entity for Scheme {
    const TYPE: &'static str = "scheme";
    const OPTIONAL: &'static [&'static str] = &["description"];
    type Record = SchemeRecord;

    fn to_record(&self) -> SchemeRecord {
        SchemeRecord {
            id: self.id,
            deployment_id: self.deployment_id,
            slug: self.slug.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            rules: Vec::from(self.rules.clone()).into_iter().map(RuleRecord::from).collect(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            revision: self.revision,
            apps: self.apps,
            api_keys: self.api_keys,
        }
    }

    fn from_record(record: SchemeRecord) -> Result<Self, String> {
        let rules: Vec<Rule> = record.rules.into_iter().map(Rule::from).collect();
        Ok(Self {
            id: record.id,
            deployment_id: record.deployment_id,
            slug: record.slug,
            name: record.name,
            description: record.description,
            rules: Rules::try_from(rules).map_err(|error| error.to_string())?,
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
            apps: record.apps,
            api_keys: record.api_keys,
        })
    }
}
