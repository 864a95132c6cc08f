//! The events that API Gateway sends to Lambda authorizers.

use std::collections::HashMap;

use keyward_core::authorization::bearer;
use keyward_core::path::NormalPath;
use keyward_core::target::Target;
use keyward_core::{ClientAddress, InvalidField};
use keyward_runtime::TrustedProxies;
use keyward_verifier::{presented, presented_in};
use lambda_http::aws_lambda_events::apigw::{
    ApiGatewayCustomAuthorizerRequest, ApiGatewayCustomAuthorizerRequestTypeRequest,
    ApiGatewayV2CustomAuthorizerV2Request,
};
use lambda_http::http::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Settings;

/// A request that API Gateway asks about, in the form of any of its events:
///
/// - of HTTP APIs, payload format 2.0 or 1.0
///   (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html>)
/// - of REST APIs, type `REQUEST` or `TOKEN`
///   (<https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-lambda-authorizer-input.html>)
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub struct Event {
    pub(crate) form: Form,
    /// `arn:aws:execute-api:region:account:api/stage/METHOD/path`.
    pub(crate) arn: String,
    method: Option<String>,
    /// May begin with the stage, or with what a custom domain maps to the API.
    path: Option<String>,
    stage: Option<String>,
    stage_variables: HashMap<String, String>,
    headers: HeaderMap,
    /// The value of the one header that API Gateway was told to look at.
    token: Option<String>,
    source_ip: Option<String>,
    user_agent: Option<String>,
}

/// The form of the response to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Yes or no.
    Simple,
    /// An IAM policy.
    Policy,
    /// An IAM policy, with the key by which usage plans count.
    MeteredPolicy,
}

/// An event of another kind. What it holds may be a secret, and is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("the event is not one that API Gateway sends to a Lambda authorizer")]
pub struct UnknownEvent;

impl TryFrom<Value> for Event {
    type Error = UnknownEvent;

    fn try_from(event: Value) -> Result<Self, UnknownEvent> {
        let member = |name: &str| event.get(name).and_then(Value::as_str);
        match (member("version"), member("type")) {
            (Some("2.0"), _) => read(event).map(Self::of_http_api),
            (Some("1.0"), _) => read(event).map(|event| Self::of_request(Form::Policy, event)),
            (None, Some("REQUEST")) => read(event).map(|event| Self::of_request(Form::MeteredPolicy, event)),
            (None, Some("TOKEN")) => read(event).map(Self::of_token),
            _ => Err(UnknownEvent),
        }
    }
}

fn read<T: DeserializeOwned>(event: Value) -> Result<T, UnknownEvent> {
    serde_json::from_value(event).map_err(|_| UnknownEvent)
}

impl Event {
    fn of_http_api(event: ApiGatewayV2CustomAuthorizerV2Request) -> Self {
        let context = event.request_context;
        Self {
            form: Form::Simple,
            arn: event.route_arn.unwrap_or_default(),
            method: Some(context.http.method.to_string()),
            path: event.raw_path.or(context.http.path),
            stage: context.stage,
            stage_variables: event.stage_variables,
            headers: event.headers,
            token: None,
            source_ip: context.http.source_ip,
            user_agent: context.http.user_agent,
        }
    }

    fn of_request(form: Form, event: ApiGatewayCustomAuthorizerRequestTypeRequest) -> Self {
        let context = event.request_context;
        // These have all values of a header, `headers` the last.
        let headers =
            if event.multi_value_headers.is_empty() { event.headers } else { event.multi_value_headers };
        let user_agent = text(&headers, "user-agent").map(str::to_owned);
        Self {
            form,
            arn: event.method_arn.unwrap_or_default(),
            method: event.http_method.map(|method| method.to_string()),
            path: event.path,
            stage: context.stage,
            stage_variables: event.stage_variables,
            headers,
            token: None,
            source_ip: context.identity.and_then(|identity| identity.source_ip),
            user_agent,
        }
    }

    fn of_token(event: ApiGatewayCustomAuthorizerRequest) -> Self {
        Self {
            form: Form::MeteredPolicy,
            arn: event.method_arn.unwrap_or_default(),
            method: None,
            path: None,
            stage: None,
            stage_variables: HashMap::new(),
            headers: HeaderMap::new(),
            token: event.authorization_token,
            source_ip: None,
            user_agent: None,
        }
    }

    /// The text that is presented as the key, if any is.
    ///
    /// # Errors
    /// A header that holds it was sent more than once, or is no text.
    pub(crate) fn presented(&self, settings: &Settings) -> Result<Option<&str>, InvalidField> {
        if let Some(token) = &self.token {
            return Ok(Some(bearer(token).unwrap_or(token)));
        }
        match &settings.key_header {
            Some(name) => presented_in(&self.headers, name.as_str()),
            None => presented(&self.headers),
        }
    }

    /// The target that is asked for.
    ///
    /// # Errors
    /// The method is unknown, or the path is none; or a policy about the path would be one about others.
    pub(crate) fn target(&self) -> Result<Target, InvalidField> {
        let arn = Arn::parse(&self.arn);
        let method = self.method.as_deref().or(arn.as_ref().map(|arn| arn.method));
        let of_arn = arn.map(|arn| arn.path);
        // In a policy these stand for other texts, and it may be kept for other requests.
        if self.form != Form::Simple
            && of_arn.is_some_and(|path| path.contains(['*', '?']) || path.contains("${"))
        {
            return Err(InvalidField::new("path", "must not contain '*', '?' or '${'"));
        }
        // API Gateway has taken the query away: these were encoded.
        let path = self.path(of_arn).replace('?', "%3f").replace('#', "%23");
        Target::parse(method.unwrap_or_default(), &path)
    }

    /// The path within the API: that of the ARN, if it is how the event's own ends.
    fn path<'a>(&'a self, of_arn: Option<&'a str>) -> &'a str {
        let Some(own) = self.path.as_deref() else { return of_arn.unwrap_or_default() };
        let normal = |path: &str| NormalPath::parse("path", path).ok();
        let ends_with = |path: &&str| {
            let (own, path) = (normal(own), normal(path));
            own.zip(path).is_some_and(|(own, path)| own.as_str().ends_with(path.as_str()))
        };
        // A '?' that API Gateway decoded would cut the path.
        let within = of_arn.filter(|path| !path.contains(['?', '#'])).filter(ends_with);
        within.unwrap_or_else(|| {
            let stage = self.stage.as_deref().unwrap_or_default();
            match own.strip_prefix('/').and_then(|path| path.strip_prefix(stage)) {
                Some("") => "/",
                Some(path) if path.starts_with('/') => path,
                _ => own,
            }
        })
    }

    /// The client's address, as far as API Gateway and trusted proxies tell.
    pub(crate) fn client_ip(&self, proxies: &TrustedProxies) -> Option<ClientAddress> {
        let source = self.source_ip.as_deref()?.parse().ok()?;
        Some(proxies.client(source, &self.headers))
    }

    /// The stage variable of this name.
    pub(crate) fn stage_variable(&self, name: &str) -> Option<&str> {
        self.stage_variables.get(name).map(String::as_str)
    }

    pub(crate) fn user_agent(&self) -> Option<&str> {
        self.user_agent.as_deref()
    }
}

/// The first value of a header.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The parts of a method's ARN that tell of a request:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/arn-format-reference.html>.
struct Arn<'a> {
    method: &'a str,
    path: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(arn: &'a str) -> Option<Self> {
        let resource = arn.splitn(6, ':').nth(5)?;
        let (_api, rest) = resource.split_once('/')?;
        let (_stage, rest) = rest.split_once('/')?;
        let slash = rest.find('/').unwrap_or(rest.len());
        let (method, path) = rest.split_at_checked(slash)?;
        Some(Self { method, path: if path.is_empty() { "/" } else { path } })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The path that is compared for an event of an HTTP API.
    fn path(stage: &str, raw: &str, of_arn: &str) -> String {
        let event = json!({
            "version": "2.0",
            "routeArn": format!("arn:aws:execute-api:us-east-1:123456789012:abcdef123/{stage}/GET{of_arn}"),
            "rawPath": raw,
            "headers": {},
            "requestContext": {"http": {"method": "GET", "path": raw}, "stage": stage},
        });
        Event::try_from(event).unwrap().target().unwrap().path().as_str().to_owned()
    }

    #[test]
    fn the_path_is_that_within_the_api() {
        for (stage, raw, of_arn, within) in [
            ("$default", "/users/1", "/users/1", "/users/1"),
            ("dev", "/dev/users/1", "/users/1", "/users/1"),
            ("users", "/users/1", "/users/1", "/users/1"),
            ("users", "/users/users/1", "/users/1", "/users/1"),
            ("dev", "/mapped/users/1", "/users/1", "/users/1"),
            ("dev", "/dev", "/", "/"),
            ("dev", "/dev/", "", "/"),
            ("$default", "/", "/", "/"),
            // The ARN tells of another path: what a route's may look like is not documented.
            ("$default", "/users/1", "/{proxy+}", "/users/1"),
            ("dev", "/dev/users/1", "/users/{id}", "/users/1"),
            ("dev", "/develop/users", "/elop/users/x", "/develop/users"),
            // A part of a segment is not the end of a path, and what a '?' cuts off is part of it.
            ("$default", "/admin/users", "users", "/admin/users"),
            ("$default", "/a%3Fsecret/a", "/a?secret/a", "/a?secret/a"),
            // However either is written.
            ("dev", "/dev/Users//%31", "/users/1/", "/users/1"),
        ] {
            assert_eq!(path(stage, raw, of_arn), within, "{stage} {raw} {of_arn}");
        }
    }
}
