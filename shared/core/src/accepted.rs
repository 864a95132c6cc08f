//! The apps whose keys a guarded API accepts.

use crate::App;
use crate::id::DeploymentId;
use crate::text::{InvalidField, Slug};

/// The maximum number of named apps.
const MAX_APPS: usize = 100;

/// The apps whose keys a guarded API accepts. A working key of another one is refused as one that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Of which deployment.
    pub deployment: AcceptedDeployment,
    /// Which of its apps.
    pub apps: AcceptedApps,
}

/// The deployment whose apps are accepted. Slugs are unique within one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedDeployment {
    /// All.
    Any,
    /// The first one of the installation.
    First,
    /// This one.
    Id(DeploymentId),
}

/// Which apps of a deployment are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcceptedApps {
    /// All.
    Any,
    /// Those with these slugs.
    Named(Vec<Slug>),
}

impl Accepted {
    /// Every app of every deployment.
    pub const ANY: Self = Self { deployment: AcceptedDeployment::Any, apps: AcceptedApps::Any };

    /// Whether keys of this app are accepted, in an installation whose first deployment is `first`.
    pub fn includes(&self, app: &App, first: DeploymentId) -> bool {
        let in_deployment = match self.deployment {
            AcceptedDeployment::Any => true,
            AcceptedDeployment::First => app.deployment_id == first,
            AcceptedDeployment::Id(id) => app.deployment_id == id,
        };
        in_deployment
            && match &self.apps {
                AcceptedApps::Any => true,
                AcceptedApps::Named(slugs) => slugs.contains(&app.app_slug),
            }
    }
}

impl AcceptedApps {
    /// The apps with these slugs, from the request's field `field`.
    ///
    /// # Errors
    /// There are none or more than 100, or one is no slug.
    pub fn named<T: AsRef<str>>(field: &str, slugs: &[T]) -> Result<Self, InvalidField> {
        if !(1..=MAX_APPS).contains(&slugs.len()) {
            return Err(InvalidField::new(field, format!("must name 1 to {MAX_APPS} apps by their slugs")));
        }
        let slug = |(index, slug): (usize, &T)| Slug::parse(&format!("{field}[{index}]"), slug.as_ref());
        slugs.iter().enumerate().map(slug).collect::<Result<_, _>>().map(Self::Named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    fn id(number: i64) -> DeploymentId {
        DeploymentId::new(number).unwrap()
    }

    fn app(deployment: i64, slug: &str) -> App {
        let app_slug = Slug::parse("slug", slug).unwrap();
        App { deployment_id: id(deployment), app_slug, ..examples::app() }
    }

    #[test]
    fn a_slug_is_one_within_a_deployment() {
        use AcceptedDeployment::{Any, First, Id};
        let named = AcceptedApps::named("apps", &["acme", "other"]).unwrap();
        let apps = [app(1, "acme"), app(1, "third"), app(2, "acme"), app(2, "third")];
        for (deployment, of, includes) in [
            (Any, AcceptedApps::Any, [true, true, true, true]),
            (Any, named.clone(), [true, false, true, false]),
            (First, AcceptedApps::Any, [true, true, false, false]),
            (First, named.clone(), [true, false, false, false]),
            (Id(id(2)), AcceptedApps::Any, [false, false, true, true]),
            (Id(id(2)), named, [false, false, true, false]),
        ] {
            let accepted = Accepted { deployment, apps: of };
            assert_eq!(apps.each_ref().map(|app| accepted.includes(app, id(1))), includes, "{accepted:?}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        let refused = |slugs: &[&str]| AcceptedApps::named("apps", slugs).unwrap_err().to_string();
        assert_eq!(refused(&[]), "apps must name 1 to 100 apps by their slugs");
        assert_eq!(refused(&["a"; 101]), "apps must name 1 to 100 apps by their slugs");
        assert!(refused(&["acme", "A"]).starts_with("apps[1] must be 1 to 64 lower-case letters"));
        assert!(AcceptedApps::named("apps", &["a"; 100]).is_ok());
    }
}
