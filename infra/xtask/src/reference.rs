//! Tables of the routes and the errors.

use std::collections::BTreeSet;
use std::fmt::Write;

use keyward_core::ErrorCode;
use keyward_http::Audience;
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::{OpenApi, RefOr, Schema};

use crate::document::Endpoint;

/// The tables of docs/api.md, by their names.
pub(crate) fn tables(endpoints: &[Endpoint], api: &OpenApi) -> Vec<(&'static str, String)> {
    let is_check = |endpoint: &Endpoint| endpoint.route.tags.contains(&"Checks");
    let table = |last: &str, wanted: &dyn Fn(&Endpoint) -> bool| {
        let rows = endpoints.iter().filter(|endpoint| wanted(endpoint)).map(|endpoint| row(endpoint, api));
        format!("| route | does | {last} |\n|---|---|---|\n{}", rows.collect::<String>())
    };
    let is_of = |audience: Audience| move |endpoint: &Endpoint| endpoint.route.audience == audience;
    vec![
        ("backends", table("scope", &|e| is_of(Audience::Backend)(e) && !is_check(e))),
        ("browsers", table("capability", &is_of(Audience::Browser))),
        ("public", table("scope", &is_of(Audience::Public))),
        ("checks", table("scope", &is_check)),
    ]
}

fn row(endpoint: &Endpoint, api: &OpenApi) -> String {
    let operation = &endpoint.route.operation;
    let texts = [&operation.summary, &operation.description];
    let text: Vec<&str> = texts.into_iter().flatten().map(String::as_str).collect();
    let mut does = text.join(" ").replace('\n', " ");
    let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    let query = parameters.filter(|parameter| parameter.parameter_in == ParameterIn::Query);
    let query: Vec<&str> = query.map(|parameter| parameter.name.as_str()).collect();
    let body = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.values().next(),
        _ => None,
    };
    let body = match body {
        Some(RefOr::T(content)) => content.schema.as_ref().map(|schema| members(api, schema)),
        _ => None,
    };
    for (name, members) in [("Query", query), ("Body", body.unwrap_or_default())] {
        if !members.is_empty() {
            does += &format!(" {name}: `{}`.", members.join("`, `"));
        }
    }
    let last = match endpoint.security() {
        Some((_, scopes)) if !scopes.is_empty() => format!("`{}`", scopes.join("`, `")),
        Some(_) => "any".to_owned(),
        None => "none".to_owned(),
    };
    format!("| `{} {}` | {does} | {last} |\n", endpoint.method(), endpoint.route.path)
}

/// The names of an object's members, through references and what it is made of.
fn members<'d>(api: &'d OpenApi, schema: &'d RefOr<Schema>) -> Vec<&'d str> {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
            let schema = api.components.as_ref().and_then(|components| components.schemas.get(name));
            schema.map(|schema| members(api, schema)).unwrap_or_default()
        }
        RefOr::T(Schema::Object(object)) => object.properties.keys().map(String::as_str).collect(),
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter().flat_map(|part| members(api, part)).collect(),
        RefOr::T(Schema::OneOf(parts)) => parts.items.iter().flat_map(|part| members(api, part)).collect(),
        RefOr::T(_) => vec![],
    }
}

/// The table of docs/errors/README.md.
pub(crate) fn errors() -> String {
    let mut text = "| code | usual status | what it says, and what to do |\n|---|---|---|\n".to_owned();
    for code in ErrorCode::ALL {
        let (status, meaning) = (code.status(), code.meaning());
        let _infallible = writeln!(text, "| [`{code}`]({code}.md) | {status} | {meaning} |");
    }
    text
}

/// The routes of the HTTP API in template.yaml: each path has one of `OPTIONS` too.
pub(crate) fn template(endpoints: &[Endpoint]) -> String {
    let mut text = String::new();
    let mut add = |method: &str, endpoint: &Endpoint| {
        let (path, integration) = (&endpoint.route.path, pascal_case(endpoint.function));
        let name = format!("{}{}Route", pascal_case(&method.to_lowercase()), pascal_case(path));
        let _infallible = write!(
            text,
            "  {name}:\n    Type: AWS::ApiGatewayV2::Route\n    Properties: {{ApiId: !Ref Api, RouteKey: \"{method} \
             {path}\", Target: !Sub \"integrations/${{{integration}Integration}}\"}}\n"
        );
    };
    for endpoint in endpoints {
        add(endpoint.method(), endpoint);
    }
    for endpoint in paths(endpoints) {
        add("OPTIONS", endpoint);
    }
    text
}

/// The router of `cargo lambda watch` in Cargo.toml.
pub(crate) fn router(endpoints: &[Endpoint]) -> String {
    let mut text = String::new();
    for path in paths(endpoints).map(|endpoint| &endpoint.route.path) {
        let entries: Vec<String> = endpoints
            .iter()
            .filter(|endpoint| endpoint.route.path == *path)
            .map(|e| format!("{{ method = \"{}\", function = \"{}\" }}", e.method(), e.function))
            .collect();
        let _infallible = match entries.as_slice() {
            [only] => writeln!(text, "\"{path}\" = [{only}]"),
            several => writeln!(text, "\"{path}\" = [\n    {},\n]", several.join(",\n    ")),
        };
    }
    text
}

/// The first endpoint of each path.
fn paths(endpoints: &[Endpoint]) -> impl Iterator<Item = &Endpoint> {
    let mut seen = BTreeSet::new();
    endpoints.iter().filter(move |endpoint| seen.insert(&endpoint.route.path))
}

/// `/api-auth/apps/{slug}` as `ApiAuthAppsSlug`.
fn pascal_case(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
