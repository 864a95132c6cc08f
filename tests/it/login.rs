//! Logins with the headers that browsers send: who can trigger one, and how an open page reacts to another one.

use chrono::TimeDelta;
use keyward_core::deployment::Mode;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use keyward_tests::{ApiResponse, Backend, Keyward, text};

const PAGE: &str = "https://app.example.com";
const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36";

type Headers = &'static [(&'static str, &'static str)];

/// A fetch of the hooks on an allowed page elsewhere, and one of the hosted page, which is the same in a frame.
const HOOKS: Headers = &[
    ("user-agent", BROWSER),
    ("origin", PAGE),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-dest", "empty"),
];
const HOSTED_PAGE: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-dest", "empty"),
];
/// The hooks in a browser that sends no Fetch Metadata.
const OLD_HOOKS: Headers = &[("user-agent", BROWSER), ("origin", PAGE)];
const PROGRAM: Headers = &[("user-agent", "curl/8.14.1")];

const NAVIGATION: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-user", "?1"),
];
const FRAME: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-dest", "iframe"),
];
const OWN_NAVIGATION: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-dest", "document"),
];
const IMAGE: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "no-cors"),
    ("sec-fetch-site", "same-site"),
    ("sec-fetch-dest", "image"),
];
const OPAQUE_FETCH: Headers = &[
    ("user-agent", BROWSER),
    ("sec-fetch-mode", "no-cors"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-dest", "empty"),
];
const OLD_NAVIGATION: Headers = &[("user-agent", BROWSER), ("accept", "text/html")];
const PREFETCH: Headers = &[
    ("user-agent", BROWSER),
    ("sec-purpose", "prefetch"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-dest", "empty"),
];
const OTHER_ORIGIN: Headers = &[
    ("user-agent", BROWSER),
    ("origin", "https://evil.example"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-dest", "empty"),
];
const OPAQUE_ORIGIN: Headers = &[("user-agent", BROWSER), ("origin", "null")];
const TWO_ORIGINS: Headers = &[("user-agent", BROWSER), ("origin", PAGE), ("origin", "https://evil.example")];

fn with(mut request: RequestBuilder, headers: Headers) -> RequestBuilder {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

async fn send(request: RequestBuilder) -> ApiResponse {
    ApiResponse::of(request.send().await.unwrap()).await
}

async fn exchange(keyward: &Keyward, ticket: &str, cookie: &str, headers: Headers) -> ApiResponse {
    let url = format!("{}/session/ticket/exchange?ticket={ticket}", keyward.url);
    send(with(keyward.http.get(url).header("cookie", cookie), headers)).await
}

/// The cookie that a response sets, as it is sent back.
fn cookie_of(response: &ApiResponse) -> String {
    response.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

async fn production(keyward: &Keyward) -> Backend {
    let (_, backend) = keyward.other_deployment(Mode::Production, &[PAGE]).await;
    backend.create_app("acme").await;
    backend.create_app("attackers").await;
    backend
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_elsewhere_has_a_browser_exchange_its_ticket() {
    let keyward = Keyward::start().await;
    let backend = production(&keyward).await;
    let own = exchange(&keyward, &backend.ticket("acme").await, "", HOOKS).await;
    let cookie = cookie_of(&own);
    let ticket = backend.ticket("attackers").await;
    for (headers, code) in [
        (NAVIGATION, "script_required"),
        (OWN_NAVIGATION, "script_required"),
        (OLD_NAVIGATION, "script_required"),
        (FRAME, "script_required"),
        (IMAGE, "script_required"),
        (OPAQUE_FETCH, "script_required"),
        (PREFETCH, "script_required"),
        (TWO_ORIGINS, "script_required"),
        (OTHER_ORIGIN, "origin_not_allowed"),
        (OPAQUE_ORIGIN, "origin_not_allowed"),
    ] {
        let refused = exchange(&keyward, &ticket, &cookie, headers).await;
        refused.is_error(403, code);
        assert_eq!(refused.body["session"]["id"], own.body["session"]["id"], "{headers:?}");
        assert_eq!(cookie_of(&refused), cookie, "{headers:?}");
        assert!(refused.header("access-control-allow-origin").is_none(), "{headers:?}");
    }
    // And the ticket is as good as ever.
    let won = exchange(&keyward, &ticket, &cookie, HOOKS).await;
    assert_ne!(cookie_of(&won), cookie);
    assert_eq!(won.ok()["data"]["api_auth_app"]["app_slug"], "attackers");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hooks_the_hosted_page_and_programs_exchange_theirs() {
    let keyward = Keyward::start().await;
    for backend in [production(&keyward).await, keyward.backend()] {
        backend.post("/api-auth/apps", json!({"app_slug": "acme", "name": "Acme"})).await;
        for headers in [HOOKS, HOSTED_PAGE, OLD_HOOKS, PROGRAM] {
            exchange(&keyward, &backend.ticket("acme").await, "", headers).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_options_and_prefetches_change_nothing() {
    let keyward = Keyward::start().await;
    let backend = keyward.backend();
    backend.create_app("acme").await;
    let key_id = text(&backend.create_key("acme", json!({})).await["id"]);
    let browser = backend.browser("acme").await;
    let ticket = backend.ticket("acme").await;
    let ask = |method: Method, path: &str| {
        let path = path.replace("{slug}", "acme").replace("{id}", &key_id);
        let query = format!("ticket={ticket}&__dev_session__={}", browser.session);
        keyward.http.request(method, format!("{}{path}?{query}", keyward.url)).bearer_auth(&backend.root_key)
    };
    // The session is to be kept alive by the next request that means it.
    keyward.pass(TimeDelta::minutes(1));
    keyward.settle().await;
    keyward.calls.take();
    let gets: Vec<_> =
        crate::tenancy::routes().into_iter().filter(|route| route.method == Method::GET).collect();
    for route in &gets {
        for request in [
            ask(Method::HEAD, &route.path),
            ask(Method::OPTIONS, &route.path).header("access-control-request-method", "GET"),
            with(ask(Method::GET, &route.path), PREFETCH),
            ask(Method::GET, &route.path).header("purpose", "prefetch"),
            ask(Method::GET, &route.path).header("x-moz", "prefetch"),
        ] {
            request.send().await.unwrap();
        }
    }
    keyward.settle().await;
    let writes = || {
        let calls = keyward.calls.take().into_iter().map(|call| call.operation);
        calls
            .filter(|call| !matches!(call.as_str(), "GetItem" | "BatchGetItem" | "Query"))
            .collect::<Vec<_>>()
    };
    assert_eq!(writes(), Vec::<String>::new());
    ask(Method::HEAD, "/session/ticket/exchange")
        .send()
        .await
        .map(|response| {
            assert_eq!(response.status(), 405);
            assert_eq!(response.headers()["allow"], "GET");
        })
        .unwrap();
    send(ask(Method::GET, "/api-auth/session")).await.ok();
    assert_eq!(writes(), ["UpdateItem"], "what is meant keeps the session alive");
    send(ask(Method::GET, "/session/ticket/exchange")).await.ok();
    assert_eq!(writes(), ["TransactWriteItems"], "and the ticket is as good as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_elsewhere_keeps_a_session_alive() {
    let keyward = Keyward::start().await;
    let backend = production(&keyward).await;
    let cookie = cookie_of(&exchange(&keyward, &backend.ticket("acme").await, "", HOOKS).await);
    let url = format!("{}/api-auth/session", keyward.url);
    let ask =
        async |headers: Headers| send(with(keyward.http.get(&url).header("cookie", &cookie), headers)).await;
    keyward.pass(TimeDelta::minutes(20));
    for headers in [NAVIGATION, IMAGE, OTHER_ORIGIN, OLD_NAVIGATION, TWO_ORIGINS] {
        let shown = ask(headers).await;
        let [created, updated] =
            ["created_at", "updated_at"].map(|member| shown.body["session"][member].clone());
        assert_eq!(created, updated, "{headers:?}");
    }
    keyward.pass(TimeDelta::minutes(11));
    ask(HOOKS).await.is_error(401, "no_session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_does_not_act_by_a_session_that_it_does_not_know() {
    let keyward = Keyward::start().await;
    let backend = production(&keyward).await;
    let first = exchange(&keyward, &backend.ticket("acme").await, "", HOOKS).await;
    let second = exchange(&keyward, &backend.ticket("attackers").await, &cookie_of(&first), HOOKS).await;
    let cookie = cookie_of(&second);
    let (first, second) = (text(&first.body["session"]["id"]), text(&second.body["session"]["id"]));
    let url = format!("{}/api-auth/keys", keyward.url);
    let create = |meant: Option<&str>| {
        let request =
            with(keyward.http.post(&url).header("cookie", &cookie), HOOKS).form(&[("name", "Mine")]);
        match meant {
            Some(id) => request.header("x-keyward-session", id),
            None => request,
        }
    };
    for meant in [first.as_str(), "", "0"] {
        send(create(Some(meant))).await.is_error(409, "session_changed");
    }
    let list = with(keyward.http.get(&url).header("cookie", &cookie), HOSTED_PAGE);
    let refused = send(list.header("x-keyward-session", &first)).await;
    assert_eq!(refused.is_error(409, "session_changed").body["session"]["id"], second.as_str());
    assert_eq!(backend.get("/api-auth/apps/attackers/keys").await.ok()["keys"], json!([]));
    send(create(Some(&second))).await.ok();
    // The hooks name none.
    send(create(None)).await.ok();
    let twice = create(Some(&second)).header("x-keyward-session", &first);
    send(twice).await.is_error(409, "session_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sibling_domain_gives_a_browser_its_session() {
    let keyward = Keyward::start().await;
    let backend = production(&keyward).await;
    let set = cookie_of(&exchange(&keyward, &backend.ticket("acme").await, "", HOOKS).await);
    let other = cookie_of(&exchange(&keyward, &backend.ticket("attackers").await, "", HOOKS).await);
    let url = format!("{}/api-auth/session", keyward.url);
    let ask = async |cookie: &str| send(with(keyward.http.get(&url).header("cookie", cookie), HOOKS)).await;
    ask(&set).await.ok();
    // A name without the prefix can be set for a whole domain.
    for cookie in [set.replace("__Host-", "__"), set.replace("__Host-", "")] {
        ask(&cookie).await.is_error(401, "no_session");
    }
    for two in [format!("{set}; {other}"), format!("{other}; {set}"), format!("__Host-session=; {set}")] {
        ask(&two).await.is_error(401, "no_session");
    }
}
