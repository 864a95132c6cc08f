//! The permissions that an app requires on its routes, however a request to them is checked.
//!
//! A route is a method and a pattern of paths. If several routes apply to a request, the permissions of each must hold; if
//! none does, they require nothing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::method::Method;
use crate::path::PathPattern;
use crate::requirement::Requirement;
use crate::target::Target;
use crate::text::InvalidField;

/// The maximum number of routes of an app.
const MAX_ROUTES: usize = 32;
/// The text that stands for every method.
const ANY: &str = "*";

/// The permissions that requests to a route need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RawRoute", try_from = "RawRoute")]
pub struct RoutePermission {
    /// Any where it is not given.
    method: Option<Method>,
    path: PathPattern,
    permissions: Vec<Requirement>,
}

/// The permissions that requests to a route need, as they are written.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = RoutePermission)]
pub struct RawRoute {
    /// A method, or `*` for any, which it is where none is given.
    #[serde(default = "any_method")]
    pub method: String,
    /// A path, in which `*` stands for any text.
    #[schema(min_length = 1, max_length = 128)]
    pub path: String,
    /// Permissions or expressions of them, all of which must hold.
    #[schema(min_items = 1)]
    pub permissions: Vec<String>,
}

fn any_method() -> String {
    ANY.to_owned()
}

impl RoutePermission {
    /// Parses the routes in the request's field `field`.
    ///
    /// # Errors
    /// There are more than 32, or one is wrong: says which member of it, and what it may hold. A route without
    /// permissions is none.
    pub fn parse_all(field: &str, routes: &[RawRoute]) -> Result<Vec<Self>, InvalidField> {
        if routes.len() > MAX_ROUTES {
            return Err(InvalidField::new(field, format!("must have at most {MAX_ROUTES} entries")));
        }
        let routes = routes.iter().enumerate();
        routes.map(|(index, route)| Self::parse(&format!("{field}[{index}]"), route)).collect()
    }

    fn parse(field: &str, route: &RawRoute) -> Result<Self, InvalidField> {
        let method = match route.method.trim() {
            ANY => None,
            method => Some(Method::parse(&format!("{field}.method"), method)?),
        };
        let path = PathPattern::parse(&format!("{field}.path"), &route.path)?;
        let permissions_field = format!("{field}.permissions");
        if route.permissions.is_empty() {
            return Err(InvalidField::new(&permissions_field, "must have at least one entry"));
        }
        let permissions = route.permissions.iter().enumerate();
        let permissions = permissions
            .map(|(index, text)| Requirement::parse(&format!("{permissions_field}[{index}]"), text))
            .collect::<Result<_, _>>()?;
        Ok(Self { method, path, permissions })
    }

    /// Whether it is about this request. A route of `GET` is one of `HEAD` too: see [`Method::covers`].
    pub fn applies_to(&self, target: &Target) -> bool {
        self.method.is_none_or(|method| method.covers(target.method())) && target.path().may_be(&self.path)
    }

    /// The requirements, all of which must hold.
    pub fn permissions(&self) -> &[Requirement] {
        &self.permissions
    }

    /// The texts that it takes to keep it, with the names of its members.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let method = self.method.map_or(ANY, Method::as_str);
        let members = ["method", method, "path", self.path.as_str(), "permissions"];
        members.into_iter().chain(self.permissions.iter().map(Requirement::as_str))
    }
}

impl From<RoutePermission> for RawRoute {
    fn from(route: RoutePermission) -> Self {
        Self {
            method: route.method.map_or(ANY, Method::as_str).to_owned(),
            path: route.path.into(),
            permissions: route.permissions.into_iter().map(String::from).collect(),
        }
    }
}

impl TryFrom<RawRoute> for RoutePermission {
    type Error = InvalidField;

    fn try_from(route: RawRoute) -> Result<Self, InvalidField> {
        Self::parse("route", &route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(method: &str, path: &str, permissions: &[&str]) -> RawRoute {
        let permissions = permissions.iter().map(|text| (*text).to_owned()).collect();
        RawRoute { method: method.to_owned(), path: path.to_owned(), permissions }
    }

    fn applies_to(route: (&str, &str), request: (&str, &str)) -> bool {
        let route = RoutePermission::parse("route", &written(route.0, route.1, &["a"])).unwrap();
        route.applies_to(&Target::parse(request.0, request.1).unwrap())
    }

    #[test]
    fn a_route_is_a_method_and_a_pattern_of_paths() {
        assert!(applies_to(("POST", "/users/*"), ("POST", "/users/1")));
        assert!(!applies_to(("POST", "/users/*"), ("GET", "/users/1")));
        assert!(!applies_to(("POST", "/users/*"), ("POST", "/orgs/1")));
        assert!(applies_to(("*", "/users/*"), ("DELETE", "/users/1")));
        assert!(applies_to(("post", "users/*"), ("POST", "/Users//%31?x")), "however either is written");
        assert!(applies_to(("GET", "*"), ("HEAD", "/users")), "a HEAD tells what a GET does");
        assert!(!applies_to(("HEAD", "*"), ("GET", "/users")));
    }

    #[test]
    fn errors_name_the_field() {
        let refused = |routes: &[RawRoute]| {
            RoutePermission::parse_all("route_permissions", routes).unwrap_err().to_string()
        };
        let good = written("*", "/a", &["a"]);
        assert_eq!(
            refused(&[good.clone(), written("TRACE", "/a", &["a"])]),
            "route_permissions[1].method must be one of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
        );
        assert!(refused(&[written("*", "", &["a"])]).starts_with("route_permissions[0].path must"));
        assert_eq!(
            refused(&[written("*", "/a", &[])]),
            "route_permissions[0].permissions must have at least one entry"
        );
        assert_eq!(
            refused(&[written("*", "/a", &["a", "b OR"])]),
            "route_permissions[0].permissions[1] is wrong at character 5: expected a permission or '('"
        );
        assert!(refused(&[written("*", "/a", &[" "])]).contains("permissions[0] is wrong at character"));
        assert_eq!(
            refused(&vec![good.clone(); MAX_ROUTES + 1]),
            "route_permissions must have at most 32 entries"
        );
        assert_eq!(RoutePermission::parse_all("routes", &vec![good; MAX_ROUTES]).unwrap().len(), MAX_ROUTES);
    }

    #[test]
    fn a_route_without_a_method_is_one_of_all_and_tells_all_its_texts() {
        let read = |json: &str| serde_json::from_str::<RoutePermission>(json).unwrap();
        let all = read(r#"{"path":"/a","permissions":["a","b OR c"]}"#);
        assert_eq!(all, read(r#"{"method":"*","path":"/a","permissions":["a","b OR c"]}"#));
        let texts: Vec<&str> = all.texts().collect();
        assert_eq!(texts, ["method", "*", "path", "/a", "permissions", "a", "b OR c"]);
    }
}
