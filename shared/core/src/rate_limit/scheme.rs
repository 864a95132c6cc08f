//! Schemes: sets of rules with a name, which apps and keys share.

use chrono::{DateTime, Utc};

use super::Rules;
use crate::id::{DeploymentId, SchemeId};
use crate::text::{Description, InvalidField, Name, Slug, check_total};

/// The most that callers may write into one scheme besides the numbers of its rules, in bytes, so that a strongly
/// consistent read of it takes one unit.
const MAX_BYTES: usize = 1_536;

/// A rate-limit scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme {
    /// Its id.
    pub id: SchemeId,
    /// Its deployment's id.
    pub deployment_id: DeploymentId,
    /// Its slug, unique in the deployment.
    pub slug: Slug,
    /// Its name.
    pub name: Name,
    /// Its description.
    pub description: Option<Description>,
    /// Its rules.
    pub rules: Rules,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// A count of the changes; a change is conditional on it being the same.
    pub revision: u64,
    /// The number of apps that use it and are not deleted.
    pub apps: u64,
    /// The number of keys that have it for their own and are not revoked. Those that can never work again all the same, since
    /// they have expired or their app was deleted, are taken out when that is all that keeps it.
    pub api_keys: u64,
}

/// A scheme to create.
#[derive(Debug, Clone)]
pub struct NewScheme {
    /// See [`Scheme::slug`].
    pub slug: Slug,
    /// See [`Scheme::name`].
    pub name: Name,
    /// See [`Scheme::description`].
    pub description: Option<Description>,
    /// See [`Scheme::rules`].
    pub rules: Rules,
}

/// Changes of a scheme; `None` leaves a member as it is.
#[derive(Debug, Clone, Default)]
pub struct SchemeChanges {
    /// See [`Scheme::name`].
    pub name: Option<Name>,
    /// See [`Scheme::description`].
    pub description: Option<Description>,
    /// See [`Scheme::rules`].
    pub rules: Option<Rules>,
}

impl Scheme {
    /// The scheme that a request creates at `now`.
    ///
    /// # Errors
    /// Its texts are too long together.
    pub fn create(
        new: NewScheme,
        id: SchemeId,
        deployment_id: DeploymentId,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidField> {
        let NewScheme { slug, name, description, rules } = new;
        let scheme = Self {
            id,
            deployment_id,
            slug,
            name,
            description,
            rules,
            created_at: now,
            updated_at: now,
            revision: 1,
            apps: 0,
            api_keys: 0,
        };
        scheme.within_size_limit()
    }

    /// The scheme with these changes, from `now` on.
    ///
    /// # Errors
    /// Its texts are too long together.
    pub fn change(&self, changes: SchemeChanges, now: DateTime<Utc>) -> Result<Self, InvalidField> {
        let before = self.clone();
        let changed = Self {
            name: changes.name.unwrap_or(before.name),
            description: changes.description.or(before.description),
            rules: changes.rules.unwrap_or(before.rules),
            updated_at: now,
            revision: before.revision + 1,
            ..before
        };
        changed.within_size_limit()
    }

    fn within_size_limit(self) -> Result<Self, InvalidField> {
        let rules = self.rules.limits().iter().map(|limit| limit.rule());
        let endpoints = rules.filter_map(|rule| rule.endpoints.as_ref()).flatten();
        let texts = [self.name.as_str(), self.slug.as_str()]
            .into_iter()
            .chain(self.description.as_ref().map(Description::as_str))
            .chain(endpoints.map(String::as_str));
        check_total("the scheme's name, description and endpoints", MAX_BYTES, texts)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::examples::NOW;
    use crate::rate_limit::Rule;

    fn rules(endpoints: &[String]) -> Rules {
        let rule = serde_json::json!({
            "unit": "day", "duration": 1, "max_requests": 1, "endpoints": endpoints,
        });
        Rules::try_from(vec![serde_json::from_value::<Rule>(rule).unwrap()]).unwrap()
    }

    fn scheme() -> Scheme {
        let new = NewScheme {
            slug: Slug::parse("slug", "standard").unwrap(),
            name: Name::parse("name", "Standard").unwrap(),
            description: None,
            rules: rules(&[]),
        };
        Scheme::create(new, SchemeId::new(1).unwrap(), DeploymentId::new(1).unwrap(), NOW).unwrap()
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let later = NOW + TimeDelta::seconds(1);
        let before = Scheme { apps: 3, api_keys: 4, ..scheme() };
        let description = Some(Description::parse("description", "For all").unwrap());
        let changes = SchemeChanges { description: description.clone(), ..SchemeChanges::default() };
        let changed = before.change(changes, later).unwrap();
        assert_eq!(changed, Scheme { description, updated_at: later, revision: 2, ..before });
        let name = Name::parse("name", "Other").unwrap();
        let all = SchemeChanges {
            name: Some(name.clone()),
            description: None,
            rules: Some(rules(&["/a".to_owned()])),
        };
        let again = changed.change(all, later).unwrap();
        let rules = rules(&["/a".to_owned()]);
        assert_eq!(again, Scheme { name, rules, revision: 3, ..changed });
    }

    #[test]
    fn the_texts_of_a_scheme_are_bounded_together() {
        let endpoints = |length: usize| {
            let endpoint = |n: usize| format!("/{n:02}{}", "a".repeat(length - 3));
            let changes = SchemeChanges {
                rules: Some(rules(&(0..15).map(endpoint).collect::<Vec<_>>())),
                ..SchemeChanges::default()
            };
            scheme().change(changes, NOW).map_err(|error| error.to_string())
        };
        assert!(endpoints(97).is_ok());
        let refused = endpoints(101).unwrap_err();
        let wanted = "the scheme's name, description and endpoints total 1582 bytes; the limit is 1536";
        assert_eq!(refused, wanted);
    }
}
