//! The OpenAPI document: the declarations of the handlers, and what is common to every route of their audience.

use std::collections::BTreeMap;

use keyward_cli::FUNCTIONS;
use keyward_core::ErrorCode;
use keyward_core::audit::EventId;
use keyward_core::instant::Bound;
use keyward_http::{
    Audience, EnvelopeSession, ErrorBody, ErrorEnvelope, MAX_BODY, PageLimit, Route, Undecided,
};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, Header, HeaderBuilder, InfoBuilder, LicenseBuilder,
    OneOfBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Response, ResponseBuilder, Schema,
    ServerBuilder,
};

/// A route, and its function.
pub(crate) struct Endpoint {
    pub(crate) function: &'static str,
    pub(crate) route: Route,
}

impl Endpoint {
    /// All routes, in the order in which their functions list them.
    pub(crate) fn all() -> Vec<Self> {
        let of = |function: &keyward_cli::Function| {
            let name = function.name;
            (function.declared_routes)().into_iter().map(move |route| Self { function: name, route })
        };
        FUNCTIONS.iter().flat_map(of).collect()
    }

    pub(crate) fn method(&self) -> &'static str {
        match self.route.method {
            HttpMethod::Get => "GET",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Head => "HEAD",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Trace => "TRACE",
        }
    }

    /// The credential that it declares, and the scopes or capabilities.
    pub(crate) fn security(&self) -> Option<(String, Vec<String>)> {
        let declared = serde_json::to_value(&self.route.operation.security).unwrap_or_default();
        let requirements = declared.as_array()?.iter().filter_map(Value::as_object);
        let (scheme, scopes) = requirements.flatten().next()?;
        let scopes = scopes.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Some((scheme.clone(), scopes))
    }

    /// Whether it can be asked for without the credential.
    fn is_open(&self) -> bool {
        let declared = serde_json::to_value(&self.route.operation.security).unwrap_or_default();
        declared.as_array().is_none_or(|all| all.iter().any(|one| one == &Value::Object(Default::default())))
    }

    /// The errors that it can have, by their statuses.
    fn errors(&self) -> BTreeMap<u16, Vec<ErrorCode>> {
        use ErrorCode as Code;
        let mut all: Vec<(u16, ErrorCode)> = Vec::new();
        let mut add = |codes: &[ErrorCode]| all.extend(codes.iter().map(|code| (code.status(), *code)));
        add(&[Code::InternalError, Code::NotReady, Code::StoreUnavailable]);
        let operation = &self.route.operation;
        let secured = self.security();
        match (self.route.audience, &secured) {
            (Audience::Backend, Some(_)) => {
                add(&[Code::InvalidField, Code::MissingRootKey, Code::NotARootKey, Code::InvalidRootKey]);
                add(&[Code::Forbidden]);
            }
            (Audience::Browser, secured) => {
                add(&[Code::OriginNotAllowed, Code::ScriptRequired, Code::SessionChanged]);
                if secured.is_some() {
                    add(&[Code::NoSession, Code::Forbidden, Code::InvalidCredential]);
                }
            }
            _ => {}
        }
        if let Some(RefOr::T(_)) = &operation.request_body {
            add(&[Code::MalformedJson, Code::UnreadableBody, Code::BodyTooLarge, Code::InvalidBody]);
            add(&[Code::UnsupportedContentEncoding, Code::UnsupportedMediaType]);
        }
        let parameters = serde_json::to_value(&operation.parameters).unwrap_or_default();
        let parameters = parameters.as_array().map(Vec::as_slice).unwrap_or_default();
        if parameters.iter().any(|parameter| parameter["in"] == "query")
            && self.route.audience != Audience::Public
        {
            add(&[Code::InvalidQuery]);
        }
        if parameters.iter().any(|parameter| parameter["in"] == "path") {
            add(&[Code::NotFound]);
        }
        if self.route.path.contains("{id}") {
            add(&[Code::InvalidKeyId]);
        }
        let extensions = serde_json::to_value(&operation.extensions).unwrap_or_default();
        for own in extensions["x-errors"].as_array().into_iter().flatten() {
            let (status, name) = match own {
                Value::Array(pair) => (pair.first().and_then(Value::as_u64), pair.get(1)),
                name => (None, Some(name)),
            };
            let name = name.and_then(Value::as_str).unwrap_or_default();
            let code = ErrorCode::ALL.iter().find(|code| code.as_str() == name);
            let status = status.and_then(|status| status.try_into().ok());
            all.extend(code.map(|code| (status.unwrap_or(code.status()), *code)));
        }
        let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
        for (status, code) in all {
            let codes = by_status.entry(status).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        by_status.values_mut().for_each(|codes| codes.sort());
        by_status
    }
}

/// The document.
pub(crate) fn openapi(endpoints: &[Endpoint]) -> OpenApi {
    let mut components = security_schemes(ComponentsBuilder::new()).build();
    components.headers.insert(REQUEST_ID.to_owned(), request_id());
    let schemas = &mut components.schemas;
    let mut paths = PathsBuilder::new().build();
    for endpoint in endpoints {
        let route = &endpoint.route;
        schemas.extend(route.schemas.iter().cloned());
        let mut operation = route.operation.clone();
        operation.extensions = None;
        operation.tags = Some(route.tags.iter().map(ToString::to_string).collect());
        operation.security = Some(requirements(endpoint));
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            body.content.values_mut().for_each(without_null);
        }
        let mut responses = std::mem::take(&mut operation.responses.responses);
        for response in responses.values_mut() {
            if let RefOr::T(response) = response {
                succeeded(endpoint, response);
            }
        }
        for (status, codes) in endpoint.errors() {
            let name = failure_name(endpoint, status, &codes);
            let failure = || RefOr::T(failure(endpoint, status, &codes));
            components.responses.entry(name.clone()).or_insert_with(failure);
            responses.insert(status.to_string(), RefOr::Ref(Ref::from_response_name(name)));
        }
        operation.responses.responses = responses;
        paths.add_path_operation(&route.path, vec![route.method.clone()], operation);
    }
    register::<ErrorBody>(schemas);
    register::<ErrorEnvelope<'_>>(schemas);
    register::<EnvelopeSession>(schemas);
    register::<Undecided>(schemas);
    // Schemas of parameters are not among those of their routes.
    register::<PageLimit>(schemas);
    register::<Bound>(schemas);
    let info = InfoBuilder::new()
        .title("Keyward")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(format!(
            "API keys for your customers. Bodies are JSON of at most {} KiB; members that a route does not know are \
             ignored. Every error has a stable `code`, a `message` for people and the `request_id` under which the log \
             has it.",
            MAX_BODY / 1024
        )))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").description(Some("The installation.")).build()]))
        .paths(paths)
        .components(Some(components))
        .tags(Some(TAGS.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build())))
        .build()
}

const TAGS: [(&str, &str); 9] = [
    ("Apps", "Apps, each of which has keys of its own. For backends."),
    ("Keys", "The keys of apps. For backends."),
    ("Rate limits", "Schemes of rules that limit keys. For backends."),
    ("Tickets", "One-time tickets that lead a customer's browser to a session. For backends."),
    ("Checks", "Checks of requests that come with an API key. For the API that the keys open."),
    ("Audit log", "The audit log of an app. For backends."),
    ("Session", "One app, for the browser of a customer with a session."),
    ("Installation", "Public information about the installation."),
    ("Hosted page", "The page on which customers manage keys."),
];

fn register<T: ToSchema>(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    schemas.insert(T::name().into(), T::schema());
    let mut inner = Vec::new();
    T::schemas(&mut inner);
    schemas.extend(inner);
}

/// How a route can be authenticated for: each credential in each way in which it can be sent.
fn requirements(endpoint: &Endpoint) -> Vec<SecurityRequirement> {
    let Some((scheme, scopes)) = endpoint.security() else { return vec![] };
    let ways: &[&str] = match scheme.as_str() {
        "rootKey" => &["rootKey", "rootKeyHeader"],
        _ => &["sessionCookie", "developmentSession"],
    };
    let open = endpoint.is_open().then(SecurityRequirement::default);
    ways.iter().map(|way| SecurityRequirement::new(*way, &scopes)).chain(open).collect()
}

fn security_schemes(components: ComponentsBuilder) -> ComponentsBuilder {
    let described = |name: &str, text: &str| ApiKeyValue::with_description(name, text);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "A root key, with the scopes that it was created with: `manage`, `tickets`, `verify`, `audit`.",
    ));
    let header = described("X-Keyward-Root-Key", "A root key, where `Authorization` holds something else.");
    let cookie = described("__Host-session", "A session, of deployments in production mode.");
    let parameter = described("__dev_session__", "A session, of deployments in staging mode.");
    components
        .security_scheme("rootKey", SecurityScheme::Http(bearer.build()))
        .security_scheme("rootKeyHeader", SecurityScheme::ApiKey(ApiKey::Header(header)))
        .security_scheme("sessionCookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)))
        .security_scheme("developmentSession", SecurityScheme::ApiKey(ApiKey::Query(parameter)))
}

/// Takes null from what a body may be: one that may be absent may not be null.
fn without_null(content: &mut RefOr<Content>) {
    let RefOr::T(content) = content else { return };
    if let Some(RefOr::T(Schema::OneOf(one_of))) = &content.schema {
        content.schema = one_of.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
    }
}

/// Adds to a response what each has that is no error.
fn succeeded(endpoint: &Endpoint, response: &mut Response) {
    if endpoint.route.audience == Audience::Browser {
        envelop(response);
    }
    if response.description.is_empty() {
        response.description = "Done.".to_owned();
    }
    response.headers.insert(REQUEST_ID.to_owned(), header_reference());
}

/// Puts the value of a response into the envelope that pages read.
fn envelop(response: &mut Response) {
    let Some(RefOr::T(content)) = response.content.get_mut("application/json") else { return };
    let Some(data) = content.schema.take() else { return };
    let null = || ObjectBuilder::new().schema_type(SchemaType::new(Type::Null));
    let session = OneOfBuilder::new().item(null()).item(Ref::from_schema_name(EnvelopeSession::name()));
    let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).enum_values(Some([200]));
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some([""]));
    let mut envelope = ObjectBuilder::new()
        .property("status", number)
        .property("message", text)
        .property("data", data)
        .property("session", session)
        .property("errors", null());
    for name in ["status", "message", "data", "session", "errors"] {
        envelope = envelope.required(name);
    }
    content.schema = Some(envelope.into());
}

/// The schema of errors to these callers.
fn error_schema(audience: Audience) -> String {
    let name = match audience {
        Audience::Browser => ErrorEnvelope::name(),
        Audience::Backend | Audience::Public => ErrorBody::name(),
    };
    name.into_owned()
}

/// Whether an error has the members of a response to a check too.
fn is_undecided(endpoint: &Endpoint) -> bool {
    endpoint.route.path == "/v1/authz/check"
}

/// The name of [`failure`], the same for all that are the same.
fn failure_name(endpoint: &Endpoint, status: u16, codes: &[ErrorCode]) -> String {
    let undecided = if is_undecided(endpoint) { Undecided::name() } else { "".into() };
    let codes: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    format!("{undecided}{}.{status}.{}", error_schema(endpoint.route.audience), codes.join("."))
}

/// The response of errors with these codes.
fn failure(endpoint: &Endpoint, status: u16, codes: &[ErrorCode]) -> Response {
    let names = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .enum_values(Some(codes.iter().map(|code| code.as_str())));
    let mut schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(error_schema(endpoint.route.audience)))
        .item(ObjectBuilder::new().property("code", names));
    if is_undecided(endpoint) {
        schema = schema.item(Ref::from_schema_name(Undecided::name()));
    }
    let meanings = codes.iter().map(|code| format!("- `{code}`: {}", code.meaning()));
    let mut response = ResponseBuilder::new()
        .description(meanings.collect::<Vec<_>>().join("\n"))
        .content("application/json", ContentBuilder::new().schema(Some(schema)).build())
        .build();
    response.headers.insert(REQUEST_ID.to_owned(), header_reference());
    let mut header = |name: &str, described: &str| {
        let schema = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(described)).build();
        response.headers.insert(name.to_owned(), header.into());
    };
    match status {
        401 => header("WWW-Authenticate", "How to authenticate (RFC 6750, 3)."),
        503 => header("Retry-After", "The number of seconds after which to try again."),
        _ => {}
    }
    response
}

const REQUEST_ID: &str = "X-Request-Id";

fn request_id() -> RefOr<Header> {
    let id = Ref::from_schema_name(EventId::name());
    let described = "The id under which the log has the request.";
    HeaderBuilder::new().schema(Some(id)).description(Some(described)).build().into()
}

fn header_reference() -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{REQUEST_ID}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn references(value: &Value, all: &mut HashSet<String>) {
        match value {
            Value::Object(members) => {
                all.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, all));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, all)),
            _ => {}
        }
    }

    #[test]
    fn everything_is_there_and_described_in_words_of_the_api() {
        let endpoints = Endpoint::all();
        let document = serde_json::to_value(openapi(&endpoints)).unwrap();
        let mut all = HashSet::new();
        references(&document, &mut all);
        assert!(all.len() > 60, "{all:?}");
        let dangling: Vec<_> =
            all.iter().filter(|name| document.pointer(name.trim_start_matches('#')).is_none()).collect();
        assert!(dangling.is_empty(), "{dangling:?}");
        assert!(!document.to_string().contains("[`"), "a description links to code");
        let mut ids = HashSet::new();
        for Endpoint { route, .. } in &endpoints {
            let operation = &route.operation;
            assert!(
                operation.summary.is_some() && ids.insert(operation.operation_id.clone()),
                "{}",
                route.path
            );
            let [tag] = route.tags.as_slice() else { panic!("{}: {:?}", route.path, route.tags) };
            assert!(TAGS.iter().any(|(known, _)| known == tag), "{tag}");
        }
    }

    #[test]
    fn every_route_declares_its_caller() {
        for endpoint in Endpoint::all() {
            let scheme = endpoint.security().map(|(scheme, _)| scheme);
            let fits = match endpoint.route.audience {
                Audience::Backend => scheme.as_deref() == Some("rootKey"),
                Audience::Browser => scheme.as_deref().is_none_or(|scheme| scheme == "session"),
                Audience::Public => scheme.is_none(),
            };
            assert!(fits, "{} {}: {scheme:?}", endpoint.method(), endpoint.route.path);
        }
    }

    #[test]
    fn every_error_that_a_route_names_is_known() {
        for Endpoint { route, .. } in Endpoint::all() {
            let extensions = serde_json::to_value(&route.operation.extensions).unwrap();
            for own in extensions["x-errors"].as_array().into_iter().flatten() {
                let name = own.as_array().map_or(own, |pair| &pair[1]);
                assert!(ErrorCode::ALL.iter().any(|code| name == code.as_str()), "{}: {own}", route.path);
            }
        }
    }
}
