use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use keyward_core::app::{AppSettings, OnStoreError};
use keyward_core::audit::{
    Action, Actor, BlockedBy, Event, EventId, MemberChange, MemberChanges, Origin, Outcome,
};
use keyward_core::audit_settings::{AuditClientIp, AuditDurability, AuditLevel, AuditSettings};
use keyward_core::deployment::{Mode, PublicKey};
use keyward_core::hashing::{PepperVersion, Tag};
use keyward_core::id::{AppNumber, DeploymentId, KeyId, RootKeyId, SchemeId, SessionId, TicketId};
use keyward_core::key::Owner;
use keyward_core::metadata::Metadata;
use keyward_core::path::PathPattern;
use keyward_core::pepper::{PepperRecord, RowCount, WrappedPepper};
use keyward_core::permission::Permission;
use keyward_core::rate_limit::{Rule, Rules, Scheme, Status};
use keyward_core::root_key::{RootKey, Scope};
use keyward_core::route::{RawRoute, RoutePermission};
use keyward_core::session::{Capability, Session, Ticket};
use keyward_core::text::{Description, KeyPrefix, Name, OwnerId, Reason, Slug};
use keyward_core::{ApiKey, App, Bounds, Deployment};

use super::*;
use crate::Repeppered;

const AT: DateTime<Utc> = match DateTime::from_timestamp_millis(1_800_000_000_123) {
    Some(at) => at,
    None => DateTime::UNIX_EPOCH,
};

fn later(seconds: i64) -> DateTime<Utc> {
    AT + TimeDelta::seconds(seconds)
}

fn name(text: &str) -> Name {
    Name::parse("name", text).unwrap()
}

fn slug(text: &str) -> Slug {
    Slug::parse("slug", text).unwrap()
}

fn owner(text: &str) -> Option<OwnerId> {
    Some(OwnerId::parse("owner", text).unwrap())
}

fn permissions(texts: &[&str]) -> Vec<Permission> {
    texts.iter().map(|text| Permission::parse("permissions", text).unwrap()).collect()
}

fn key_of_tests() -> Key {
    Key::new("PK".to_owned(), "SK")
}

/// An app that says as little as one can.
fn app() -> App {
    App {
        number: AppNumber::mint(7),
        deployment_id: DeploymentId::new(1).unwrap(),
        app_slug: slug("acme"),
        user_id: None,
        settings: AppSettings::new(name("Acme"), KeyPrefix::parse("key_prefix", "sk").unwrap()),
        created_at: AT,
        updated_at: AT,
        deleted_at: None,
        revision: 1,
    }
}

fn full_app() -> App {
    let routes = [("POST", "/users/*", "users:write OR admin"), ("*", "/users", "users:read")];
    let routes = routes.map(|(method, path, permission)| RawRoute {
        method: method.into(),
        path: path.into(),
        permissions: vec![permission.into()],
    });
    let settings = AppSettings {
        description: Some(Description::parse("description", "All that an app can say").unwrap()),
        is_active: false,
        permissions: Bounds::Within(permissions(&["users:read", "orgs:*"])),
        resources: Bounds::Within(vec![PathPattern::parse("resources", "/v1/Users/*").unwrap()]),
        route_permissions: RoutePermission::parse_all("route_permissions", &routes).unwrap(),
        rate_limit_scheme_slug: Some(slug("standard")),
        on_store_error: OnStoreError::Allow,
        audit: AuditSettings {
            durability: AuditDurability::BeforeAnswer,
            level: AuditLevel::Sampled,
            client_ip: AuditClientIp::Truncated,
            user_agent: false,
            ..AuditSettings::default()
        },
        organization_id: owner("o_1"),
        workspace_id: owner("w_1"),
        ..app().settings
    };
    App {
        user_id: owner("u_1"),
        settings,
        updated_at: later(1),
        deleted_at: Some(later(1)),
        revision: 2,
        ..app()
    }
}

/// That app with other settings.
fn app_with(change: impl FnOnce(&mut AppSettings)) -> App {
    let mut app = app();
    change(&mut app.settings);
    app
}

fn key() -> ApiKey {
    ApiKey {
        id: KeyId::new(11).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        app: AppNumber::mint(7),
        app_slug: slug("acme"),
        name: name("Key"),
        key_prefix: KeyPrefix::parse("key_prefix", "sk").unwrap(),
        key_suffix: "a1B2c3".into(),
        permissions: vec![],
        org_role_permissions: vec![],
        workspace_role_permissions: vec![],
        rate_limit_scheme_slug: None,
        metadata: Metadata::default(),
        owner: Owner::default(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_reason: None,
        created_at: AT,
        updated_at: AT,
        revision: 1,
    }
}

fn full_key() -> ApiKey {
    ApiKey {
        permissions: permissions(&["users:read"]),
        org_role_permissions: permissions(&["orgs:read"]),
        workspace_role_permissions: permissions(&["*"]),
        rate_limit_scheme_slug: Some(slug("own")),
        metadata: Metadata::try_from(r#"{"plan":"pro","ratio":1.50}"#.to_owned()).unwrap(),
        owner: Owner {
            owner_user_id: owner("u_1"),
            organization_id: owner("o_1"),
            workspace_id: owner("w_1"),
            organization_membership_id: owner("om_1"),
            workspace_membership_id: owner("wm_1"),
        },
        expires_at: Some(later(3)),
        last_used_at: Some(later(1)),
        revoked_at: Some(later(2)),
        revoked_reason: Some(Reason::parse("reason", "leaked").unwrap()),
        updated_at: later(2),
        revision: 3,
        ..key()
    }
}

fn deployment() -> Deployment {
    Deployment {
        id: DeploymentId::new(1).unwrap(),
        name: name("Acme"),
        mode: Mode::Production,
        allowed_origins: vec!["https://app.example.com".into()],
        public_key: PublicKey { x: "eA".into(), y: "eQ".into() },
        created_at: AT,
        updated_at: AT,
    }
}

fn root_key() -> RootKey {
    RootKey {
        id: RootKeyId::new(3).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        name: name("Backend"),
        scopes: Scope::ALL.to_vec(),
        created_at: AT,
    }
}

fn scheme() -> Scheme {
    let rules = serde_json::json!([
        {"unit": "minute", "duration": 1, "max_requests": 100},
        {"unit": "hour", "duration": 2, "max_requests": 5, "window": "fixed", "mode": "per_app",
            "endpoints": ["POST /v1/*", "/health"], "priority": -1},
        {"unit": "calendar_month", "duration": 1, "max_requests": 7, "mode": "per_ip", "priority": 2},
    ]);
    Scheme {
        id: SchemeId::new(5).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        slug: slug("standard"),
        name: name("Standard"),
        description: Some(Description::parse("description", "For all").unwrap()),
        rules: Rules::try_from(serde_json::from_value::<Vec<Rule>>(rules).unwrap()).unwrap(),
        created_at: AT,
        updated_at: AT,
        revision: 1,
        apps: 0,
        api_keys: 0,
    }
}

fn ticket() -> Ticket {
    Ticket {
        id: TicketId::new(21).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        app: AppNumber::mint(7),
        actor: None,
        capabilities: vec![Capability::KeysRead, Capability::AuditRead],
        created_at: AT,
        expires_at: later(120),
        session: None,
    }
}

fn session() -> Session {
    Session {
        id: SessionId::new(22).unwrap(),
        deployment_id: DeploymentId::new(1).unwrap(),
        app: AppNumber::mint(7),
        actor: None,
        capabilities: Capability::ALL.to_vec(),
        created_at: AT,
        updated_at: later(60),
    }
}

fn event() -> Event {
    Event {
        id: EventId::mint(AT, 9),
        deployment_id: DeploymentId::new(1).unwrap(),
        app: None,
        app_slug: None,
        action: Action::RootKeyCreated,
        outcome: Outcome::Allowed,
        blocked_by: None,
        key_id: None,
        key_name: None,
        root_key_id: None,
        scheme: None,
        actor: Some(Actor::Operator),
        reason: None,
        changes: MemberChanges::new(),
        rate_limits: vec![],
        origin: Origin::default(),
        weight: 1,
        purge_at: AuditSettings::default().change_days.after(AT),
    }
}

fn full_event() -> Event {
    let status = Status { rule: "100/60s".into(), remaining: 0, limit: 100, window_ms: 0, resets_in: 0 };
    Event {
        app: Some(AppNumber::mint(7)),
        app_slug: Some(slug("acme")),
        action: Action::Verification,
        outcome: Outcome::Blocked,
        blocked_by: Some(BlockedBy::RateLimit("100/60s".into())),
        key_id: Some(KeyId::new(11).unwrap()),
        key_name: Some(name("Key")),
        actor: Some(Actor::Session { id: SessionId::new(22).unwrap(), user_id: owner("u_1") }),
        reason: Some(Reason::parse("reason", "leaked").unwrap()),
        root_key_id: Some(RootKeyId::new(3).unwrap()),
        scheme: Some(slug("standard")),
        changes: MemberChanges::from([(
            "name".to_owned(),
            MemberChange { before: "Old".into(), after: Value::Null },
        )]),
        rate_limits: vec![status],
        origin: Origin::new("203.0.113.7".parse().ok(), "GET /v1/users", Some("curl/8")),
        weight: 100,
        ..event()
    }
}

fn pepper() -> PepperRecord {
    let wrapped =
        WrappedPepper { version: PepperVersion(1), provider: "local".into(), wrapped: vec![1, 2, 3] };
    PepperRecord::new(wrapped, AT)
}

fn full_pepper() -> PepperRecord {
    PepperRecord {
        activated_at: Some(later(1)),
        retired_at: Some(later(2)),
        counted: Some(RowCount { at: later(3), rows: 4, layered: 5 }),
        ..pepper()
    }
}

fn job() -> RepepperJob {
    let after = Segment::After { pk: "KEY#0".into(), sk: "KEY".into() };
    RepepperJob {
        version: PepperVersion(2),
        pass_began_at: AT,
        segments: vec![Segment::Start, after, Segment::Done],
        done: Repeppered { rows: 6, ended: 7 },
    }
}

/// An item in DynamoDB's JSON, by the names of its attributes.
fn json(item: &Item) -> Value {
    let sorted: BTreeMap<&String, serde_dynamo::AttributeValue> =
        item.iter().map(|(name, value)| (name, value.clone().into())).collect();
    serde_json::to_value(sorted).unwrap()
}

/// Attributes in DynamoDB's JSON as the SDK has them.
fn items(json: &str) -> Vec<Item> {
    serde_json::from_str::<Vec<serde_dynamo::Item>>(json).unwrap().into_iter().map(Item::from).collect()
}

#[track_caller]
fn comes_back<E: Entity + PartialEq + std::fmt::Debug>(entity: &E) -> Item {
    let written = item(&key_of_tests(), entity).unwrap();
    assert_eq!(super::entity::<E>(written.clone()).as_ref(), Ok(entity));
    written
}

/// Items as this release writes them. A change of one of these is a change of what is stored: see the rules in this
/// module's head.
#[test]
fn items_are_written_as_they_are() {
    let tag = Tag { version: PepperVersion(2), layers: vec![PepperVersion(1)], bytes: vec![9; 32] };
    let used = Ticket { session: SessionId::new(22).ok(), actor: owner("u_1"), ..ticket() };
    let by_root_key = Event {
        actor: Some(Actor::RootKey { id: RootKeyId::new(3).unwrap(), name: Some(name("Backend")) }),
        ..event()
    };
    let written = [
        ("app", comes_back(&app())),
        ("app_full", comes_back(&full_app())),
        ("app_bound_to_nothing", comes_back(&app_with(|app| app.permissions = Bounds::Within(vec![])))),
        ("app_by_slug", comes_back(&AppBySlug { number: AppNumber::mint(7) })),
        ("key", comes_back(&key())),
        ("key_full", comes_back(&full_key())),
        ("deployment", comes_back(&deployment())),
        ("first_deployment", comes_back(&FirstDeployment { deployment_id: DeploymentId::new(1).unwrap() })),
        ("root_key", comes_back(&root_key())),
        ("scheme", comes_back(&scheme())),
        ("scheme_without_description", comes_back(&Scheme { description: None, ..scheme() })),
        ("ticket", comes_back(&ticket())),
        ("ticket_used", comes_back(&used)),
        ("session", comes_back(&session())),
        ("session_of_a_user", comes_back(&Session { actor: owner("u_1"), ..session() })),
        ("event", comes_back(&event())),
        ("event_full", comes_back(&full_event())),
        ("event_by_a_root_key", comes_back(&by_root_key)),
        ("pepper", comes_back(&pepper())),
        ("pepper_full", comes_back(&full_pepper())),
        ("repepper", comes_back(&job())),
        ("tag", with_tag(Item::new(), &tag)),
        ("tag_of_a_secret", with_tag(Item::new(), &Tag { layers: vec![], ..tag })),
    ];
    for (name, item) in written {
        insta::assert_json_snapshot!(name, json(&item));
    }
}

/// Rows that earlier releases wrote, a file for each schema: what this one makes of each.
#[test]
fn rows_of_earlier_schemas_are_read() {
    for (schema, rows) in [(0, include_str!("fixtures/schema-0.json"))] {
        let (mut read, mut types) = (vec![], BTreeSet::new());
        for row in items(rows) {
            assert_eq!(schema_of(&row), Some(schema));
            let kind = row[TYPE].as_s().unwrap().clone();
            read.push(match kind.as_str() {
                "app" => as_now::<App>(row),
                "app_slug" => as_now::<AppBySlug>(row),
                "deployment" => as_now::<Deployment>(row),
                "event" => as_now::<Event>(row),
                "installation" => as_now::<FirstDeployment>(row),
                "key" => as_now::<ApiKey>(row),
                "pepper" => as_now::<PepperRecord>(row),
                "repepper" => as_now::<RepepperJob>(row),
                "root_key" => as_now::<RootKey>(row),
                "scheme" => as_now::<Scheme>(row),
                "session" => as_now::<Session>(row),
                "ticket" => as_now::<Ticket>(row),
                other => panic!("{other} is no type"),
            });
            types.insert(kind);
        }
        assert_eq!(types.len(), 12, "{types:?}");
        insta::assert_json_snapshot!(format!("schema_{schema}"), read);
    }
}

/// The row after a change by this release.
fn as_now<E: Entity + PartialEq + std::fmt::Debug>(mut row: Item) -> Value {
    let read: E = entity(row.clone()).unwrap();
    row.extend(item(&key_of(&row).unwrap(), &read).unwrap());
    assert_eq!(entity::<E>(row.clone()), Ok(read));
    json(&row)
}

/// Each attribute of these that may not be absent.
fn required(item: &Item, may_be_absent: &[&str]) -> Vec<String> {
    let beside = ["pk", "sk", SCHEMA];
    item.keys()
        .filter(|name| !may_be_absent.contains(&name.as_str()) && !beside.contains(&name.as_str()))
        .cloned()
        .collect()
}

#[track_caller]
fn closes<E: Entity + std::fmt::Debug>(entity: &E, may_be_absent: &[&str]) {
    let whole = item(&key_of_tests(), entity).unwrap();
    for name in required(&whole, &[may_be_absent, E::OPTIONAL].concat()) {
        let mut row = whole.clone();
        row.remove(&name);
        assert!(super::entity::<E>(row.clone()).is_err(), "{} without {name}", E::TYPE);
        // Nor under a name that another release may have given it.
        row.insert(format!("{name}_2"), whole[&name].clone());
        assert!(super::entity::<E>(row).is_err(), "{} with another name for {name}", E::TYPE);
    }
}

#[test]
fn a_row_without_an_attribute_that_decides_is_not_read() {
    let of_key = ["rate_limit_scheme_slug", "last_used_at"];
    closes(&app(), &[]);
    closes(&full_app(), &[]);
    closes(&key(), &of_key);
    closes(&full_key(), &of_key);
    closes(&deployment(), &[]);
    closes(&root_key(), &[]);
    closes(&scheme(), &[]);
    closes(&ticket(), &[]);
    closes(&session(), &[]);
    closes(&job(), &[]);
    closes(&pepper(), &["wrapped"]);
}

#[test]
fn a_row_of_another_type_and_one_of_a_later_release_are_not_read() {
    let row = item(&key_of_tests(), &app()).unwrap();
    let with = |name: &str, value: AttributeValue| {
        let mut row = row.clone();
        row.insert(name.to_owned(), value);
        entity::<App>(row).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(with(TYPE, string("key")), Err("PK / SK is not of the type 'app'".to_owned()));
    assert_eq!(
        with(SCHEMA, number(2)),
        Err("PK / SK is of schema 2, which a later release wrote; this one reads up to 1: upgrade to that release"
            .to_owned())
    );
    for schema in [string("1"), number(-1), number("1.5"), AttributeValue::Null(true)] {
        assert_eq!(with(SCHEMA, schema), Err("PK / SK is corrupt: its schema is no number".to_owned()));
    }
    assert_eq!(with("unknown", string("of a later release")), Ok(()));
    let mut untyped = row.clone();
    untyped.remove(TYPE);
    assert!(entity::<App>(untyped).is_err());
}

#[test]
fn bounds_that_contradict_themselves_and_members_that_are_not_known_are_not_read() {
    let full = item(&key_of_tests(), &full_app()).unwrap();
    let read_with = |name: &str, value: AttributeValue| {
        let mut row = full.clone();
        row.insert(name.to_owned(), value);
        entity::<App>(row)
    };
    assert!(read_with("any_permission", AttributeValue::Bool(true)).is_err());
    assert!(read_with("any_resource", AttributeValue::Bool(true)).is_err());
    let closed = read_with("permissions", AttributeValue::L(vec![])).unwrap();
    assert_eq!(closed.settings.permissions, Bounds::Within(vec![]), "an empty list alone opens nothing");

    let inner = |row: &Item, list: &str| {
        let mut row = row.clone();
        if let Some(AttributeValue::L(entries)) = row.get_mut(list)
            && let Some(AttributeValue::M(first)) = entries.first_mut()
        {
            first.insert("unknown".to_owned(), string("a bound of a later release"));
        }
        row
    };
    assert!(entity::<App>(inner(&full, "route_permissions")).is_err());
    assert!(entity::<Scheme>(inner(&item(&key_of_tests(), &scheme()).unwrap(), "rules")).is_err());
}

#[test]
fn an_update_sets_what_differs_and_nothing_else() {
    let mut stored = item(&key_of_tests(), &app()).unwrap();
    stored.insert("of_a_later_release".to_owned(), string("kept"));
    let changed = App { revision: 2, ..app_with(|app| app.name = name("Other")) };
    let change = update(&stored, &changed, Expression::unchanged(1)).unwrap();
    assert_eq!(change.update().as_deref(), Some("SET #name = :name, #revision = :revision"));
    assert_eq!(change.condition.as_deref(), Some("revision = :read"));
    assert_eq!(update(&stored, &app(), Expression::default()).unwrap().update(), None);

    // A row of an earlier schema becomes one of this.
    for name in ["any_permission", "any_resource", "permissions", "resources", SCHEMA] {
        stored.remove(name);
    }
    let change = update(&stored, &app(), Expression::default()).unwrap().update().unwrap();
    for name in ["any_permission", "any_resource", "permissions", "resources", SCHEMA] {
        assert!(change.contains(&format!("#{name} = :{name}")), "{change}");
    }
    assert_eq!(change.matches('=').count(), 5, "{change}");
}

#[test]
fn an_update_removes_what_described_and_has_no_value_any_more() {
    let stored = item(&key_of_tests(), &full_app()).unwrap();
    let mut cleared = full_app();
    cleared.settings.description = None;
    let change = update(&stored, &cleared, Expression::default()).unwrap();
    assert_eq!(change.update().as_deref(), Some("REMOVE #description"));
    // As it was written before such attributes were left out.
    let mut stored = item(&key_of_tests(), &cleared).unwrap();
    stored.insert("description".to_owned(), AttributeValue::Null(true));
    assert_eq!(entity::<App>(stored.clone()), Ok(cleared.clone()));
    assert_eq!(update(&stored, &cleared, Expression::default()).unwrap().update(), None);
}

#[test]
fn counts_of_a_scheme_are_read_and_never_written() {
    let counted = Scheme { apps: 3, api_keys: 4, ..scheme() };
    let mut row = item(&key_of_tests(), &counted).unwrap();
    assert!(!row.contains_key("apps") && !row.contains_key("api_keys"));
    row.extend([("apps".to_owned(), number(3)), ("api_keys".to_owned(), number(4))]);
    assert_eq!(entity::<Scheme>(row.clone()), Ok(counted.clone()));
    let change = update(&row, &Scheme { apps: 9, api_keys: 9, ..counted }, Expression::default()).unwrap();
    assert_eq!(change.update(), None);
}

#[test]
fn an_event_is_read_whatever_was_kept_as_its_address() {
    let mut row = item(&key_of_tests(), &full_event()).unwrap();
    for (kept, read) in [("203.0.113.7:1111", Some("203.0.113.7")), ("", None), ("here", None)] {
        row.insert("client_ip".to_owned(), string(kept));
        let address = entity::<Event>(row.clone()).unwrap().origin.client_ip;
        assert_eq!(address.map(|address| address.to_string()).as_deref(), read);
    }
}

#[test]
fn a_tag_is_read_as_it_was_written_or_not_at_all() {
    let tag = Tag {
        version: PepperVersion(3),
        layers: vec![PepperVersion(1), PepperVersion(2)],
        bytes: vec![9; 32],
    };
    let row = with_tag(Item::new(), &tag);
    assert_eq!(tag_of(&row).unwrap(), tag);
    let set = set_tag(Expression::default(), &tag).update();
    assert_eq!(
        set.as_deref(),
        Some("SET #tag = :tag, #pepper = :pepper, #peppers_beneath = :peppers_beneath")
    );
    let plain = Tag { layers: vec![], ..tag };
    assert_eq!(tag_of(&with_tag(Item::new(), &plain)).unwrap(), plain);
    let set = set_tag(Expression::default(), &plain).update();
    assert_eq!(set.as_deref(), Some("SET #tag = :tag, #pepper = :pepper REMOVE #peppers_beneath"));
    for name in ["tag", "pepper"] {
        let mut row = row.clone();
        row.remove(name);
        assert!(tag_of(&row).is_err(), "{name}");
        row.insert(name.to_owned(), AttributeValue::Null(true));
        assert!(tag_of(&row).is_err(), "{name}");
    }
    for wrong in [AttributeValue::Null(true), AttributeValue::L(vec![string("1")])] {
        let mut row = row.clone();
        row.insert("peppers_beneath".to_owned(), wrong);
        assert!(tag_of(&row).is_err());
    }
}

#[test]
fn an_event_tells_what_a_change_made_of_each_member() {
    let before = full_app();
    let mut settings = before.settings.clone();
    settings.is_active = !settings.is_active;
    settings.description = None;
    settings.permissions = Bounds::Unbounded;
    settings.audit = AuditSettings::default();
    let changed = changes(&before, &before.change(settings, later(1)).unwrap());
    let told: Vec<&str> = changed.keys().map(String::as_str).collect();
    let audit = ["audit_client_ip", "audit_durability", "audit_level", "audit_user_agent"];
    assert_eq!(told, [&audit[..], &["description", "is_active", "permissions"]].concat());
    assert_eq!(changed["audit_level"], MemberChange { before: "sampled".into(), after: "all".into() });
    assert_eq!(changed["description"].after, Value::Null);
    assert_eq!(changed["permissions"].after, serde_json::json!([]));
    assert!(changes(&before, &before).is_empty());
}
