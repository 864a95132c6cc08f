//! The apps whose keys open a guarded API.

use keyward_core::accepted::{Accepted, AcceptedApps, AcceptedDeployment};
use keyward_runtime::SettingsError;

use crate::Event;

/// The word for all apps, or all deployments. It is no slug.
const ANY: &str = "ANY";
/// The variables of a stage of the guarded API that say the same as `KEYWARD_APPS` and `KEYWARD_DEPLOYMENT`.
const STAGE_APPS: &str = "keyward_apps";
const STAGE_DEPLOYMENT: &str = "keyward_deployment";

/// The apps and the deployment whose keys open an API, as far as they are said.
#[derive(Debug, Clone, Default)]
pub struct Guarded {
    apps: Option<AcceptedApps>,
    deployment: Option<AcceptedDeployment>,
}

/// Why it is not known whose keys open an API: a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GuardedError {
    /// Nobody has said it.
    #[error(
        "no apps are configured for this API: set the parameter AuthorizerApps, or the stage variable keyward_apps of the API, to the slugs of the apps, separated by commas, or to ANY"
    )]
    Unsaid,
    /// A stage variable of the API is wrong.
    #[error("the stage variable {0} {1}")]
    StageVariable(&'static str, &'static str),
}

impl Guarded {
    /// Parses the values of `KEYWARD_APPS`, slugs separated by commas or `ANY`, and of `KEYWARD_DEPLOYMENT`, an id or `ANY`.
    /// An empty text says nothing; the deployment is then the installation's first one.
    ///
    /// # Errors
    /// Says which is wrong, and what it may hold.
    pub fn parse(apps: &str, deployment: &str) -> Result<Self, SettingsError> {
        Ok(Self {
            apps: parse_apps(apps).map_err(|wrong| SettingsError::Variable("KEYWARD_APPS", wrong))?,
            deployment: parse_deployment(deployment)
                .map_err(|wrong| SettingsError::Variable("KEYWARD_DEPLOYMENT", wrong))?,
        })
    }

    /// The apps whose keys open the API of this event: as its stage says and, where that says nothing, as this does.
    pub(crate) fn accepted(&self, event: &Event) -> Result<Accepted, GuardedError> {
        let said = |name| event.stage_variable(name).unwrap_or_default();
        let apps = parse_apps(said(STAGE_APPS))
            .map_err(|wrong| GuardedError::StageVariable(STAGE_APPS, wrong))?
            .or_else(|| self.apps.clone())
            .ok_or(GuardedError::Unsaid)?;
        let deployment = parse_deployment(said(STAGE_DEPLOYMENT))
            .map_err(|wrong| GuardedError::StageVariable(STAGE_DEPLOYMENT, wrong))?
            .or(self.deployment)
            .unwrap_or(AcceptedDeployment::First);
        Ok(Accepted { deployment, apps })
    }
}

fn parse_apps(text: &str) -> Result<Option<AcceptedApps>, &'static str> {
    match text.trim() {
        "" => Ok(None),
        ANY => Ok(Some(AcceptedApps::Any)),
        slugs => {
            let slugs: Vec<&str> = slugs.split(',').map(str::trim).collect();
            let named = AcceptedApps::named("apps", &slugs).ok();
            named.map(Some).ok_or("must be ANY or the slugs of 1 to 100 apps, separated by commas")
        }
    }
}

fn parse_deployment(text: &str) -> Result<Option<AcceptedDeployment>, &'static str> {
    match text.trim() {
        "" => Ok(None),
        ANY => Ok(Some(AcceptedDeployment::Any)),
        id => match id.parse() {
            Ok(id) => Ok(Some(AcceptedDeployment::Id(id))),
            Err(_) => Err("must be ANY or the id of a deployment, such as 250230518901972310"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        let refused = |apps, deployment| Guarded::parse(apps, deployment).unwrap_err().to_string();
        for wrong in ["Acme", "acme,", "acme;other", "*", "acme,ANY"] {
            let message = refused(wrong, "");
            assert!(message.starts_with("the environment variable KEYWARD_APPS must be ANY or"), "{wrong}");
        }
        for wrong in ["0", "acme", "1,2"] {
            let message = refused("ANY", wrong);
            assert!(
                message.starts_with("the environment variable KEYWARD_DEPLOYMENT must be ANY or"),
                "{wrong}"
            );
        }
        for right in ["", "ANY", "acme", " acme, other "] {
            assert!(Guarded::parse(right, "").is_ok(), "{right}");
        }
        assert!(Guarded::parse("", " 250230518901972310 ").is_ok());
    }
}
