//! The functions' roles permit what the functions need, and no more.

use std::collections::BTreeSet;

use crate::authorizer;
use keyward_core::metric::Metric;
use keyward_core::root_key::Scope;
use keyward_runtime::VerifyAuth;
use keyward_store::PROPAGATION_TIME;
use keyward_tests::{Access, GRANTS, Grant, Keyward, check_body, operator, scenario, text};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_grant_is_needed() {
    let keyward = Keyward::start_with(VerifyAuth::Required).await;
    scenario::every_access(&keyward.backend(), async |time| keyward.pass(time)).await;
    authorizer::allows_a_key(&keyward).await;
    after_a_rotation(&keyward).await;
    keyward.settle().await;
    let calls = keyward.calls.take();
    let accesses: Vec<Access> =
        calls.iter().filter(|call| !call.function.is_empty()).flat_map(Access::of).collect();
    let idle: BTreeSet<_> =
        GRANTS.iter().filter(|grant| !accesses.iter().any(|access| grant.permits(access))).collect();
    assert!(idle.is_empty(), "{idle:#?}");
}

/// Each function that recognises root keys is shown one that was made before a rotation.
async fn after_a_rotation(keyward: &Keyward) {
    let mut backends = vec![];
    for _ in 0..4 {
        backends.push(keyward.backend_with(keyward.deployment(), &Scope::ALL).await);
    }
    let [issuing, managing, checking, reading] = &backends[..] else { panic!() };
    managing.create_app("rotated").await;
    let key = text(&managing.create_key("rotated", json!({})).await["secret"]);
    keyward.services.store.table().rotate_pepper(&operator(), &*keyward.provider()).await.unwrap();
    keyward.pass(PROPAGATION_TIME);
    // The first response of each process lets it read of the version, the second moves the root key's row.
    for _ in 0..2 {
        issuing.ticket("rotated").await;
        managing.get("/api-auth/apps").await.ok();
        checking.post("/v1/authz/check", check_body(&key)).await.ok();
        reading.get("/api-auth/apps/rotated/audit/logs").await.ok();
        keyward.settle().await;
    }
}

/// The template, with CloudFormation's functions as what they are applied to.
fn template() -> Value {
    serde_saphyr::from_str(include_str!("../../template.yaml")).unwrap()
}

/// The statements of a policy document about DynamoDB, as grants of this function.
fn grants_in(function: &str, document: &Value) -> BTreeSet<Grant> {
    let mut grants = BTreeSet::new();
    for statement in document["Statement"].as_array().unwrap() {
        let Some(action) = statement["Action"].as_str().and_then(|action| action.strip_prefix("dynamodb:"))
        else {
            assert!(!statement["Action"].to_string().contains("dynamodb"), "one action each: {statement}");
            continue;
        };
        assert_eq!(statement["Resource"], "TableInUse.Value");
        let condition = &statement["Condition"];
        assert_eq!(condition["Null"]["dynamodb:LeadingKeys"], "false", "a request must name its partitions");
        let only = &condition["ForAllValues:StringEquals"]["dynamodb:Attributes"];
        let writes_keys = action.ends_with("Item") && !action.contains("Get") && !action.contains("Check");
        for partitions in match &condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"] {
            Value::Array(several) => several.clone(),
            one => vec![one.clone()],
        } {
            let partitions = partitions.as_str().unwrap().to_owned();
            if partitions.starts_with("KEY#") && writes_keys && function != "key-lifecycle" {
                let few = json!(["pk", "sk", "last_used_at", "tag", "pepper", "peppers_beneath"]);
                assert_eq!(*only, few, "{function} must not write keys");
            } else if partitions.starts_with("ROOTKEY#") && writes_keys {
                let few = json!(["pk", "sk", "tag", "pepper", "peppers_beneath"]);
                assert_eq!(*only, few, "{function} must not write root keys");
            } else {
                assert!(only.is_null(), "{statement}");
            }
            grants.insert(Grant { function: function.to_owned(), action: action.to_owned(), partitions });
        }
    }
    grants
}

#[test]
fn the_roles_permit_what_the_data_model_says() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap();
    let mut permitted = BTreeSet::new();
    let mut roles = BTreeSet::new();
    for (name, resource) in resources {
        let properties = &resource["Properties"];
        match resource["Type"].as_str().unwrap() {
            "AWS::IAM::ManagedPolicy" => {
                permitted.extend(grants_in("every function", &properties["PolicyDocument"]));
            }
            "AWS::IAM::Role" => {
                for policy in properties["Policies"].as_array().unwrap() {
                    permitted
                        .extend(grants_in(policy["PolicyName"].as_str().unwrap(), &policy["PolicyDocument"]));
                }
                if name != "SampleRole" {
                    assert_eq!(properties["ManagedPolicyArns"][0], "StartPolicy", "{name}");
                    roles.insert(name.clone());
                }
            }
            _ => {}
        }
    }
    assert_eq!(permitted, *GRANTS);
    let functions = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
    let used: BTreeSet<String> = functions
        .map(|(name, function)| {
            let role = function["Properties"]["Role"].as_str().unwrap();
            assert_eq!(role, format!("{name}Role.Arn"));
            role.trim_end_matches(".Arn").to_owned()
        })
        .collect();
    assert_eq!(used, roles, "each function has a role of its own");
}

/// No condition of IAM keeps a `PutItem` from replacing an event. Only its id protects it, which cannot be guessed: so
/// no right to put an item reads what it replaces.
#[test]
fn no_function_may_delete_or_read_back_an_audit_event() {
    let writes = ["BatchWriteItem", "DeleteItem", "UpdateItem"];
    let on_events = |grant: &&Grant| grant.partitions.starts_with("AUDIT#") || grant.partitions == "*";
    let wrong: Vec<_> =
        GRANTS.iter().filter(on_events).filter(|of| writes.contains(&of.action.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let template = template();
    let roles =
        template["Resources"].as_object().unwrap().values().filter(|of| of["Type"] == "AWS::IAM::Role");
    let policies = roles.flat_map(|role| role["Properties"]["Policies"].as_array().unwrap());
    let statements = policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
    let puts: Vec<_> = statements.filter(|of| of["Action"] == "dynamodb:PutItem").collect();
    assert_eq!(puts.len(), 5);
    for put in puts {
        assert_eq!(put["Condition"]["StringEqualsIfExists"]["dynamodb:ReturnValues"], "NONE", "{put}");
    }
}

#[test]
fn the_api_has_every_route() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap();
    let mut served = BTreeSet::new();
    for (_, resource) in resources.iter().filter(|(_, of)| of["Type"] == "AWS::ApiGatewayV2::Route") {
        let properties = &resource["Properties"];
        let target = properties["Target"].as_str().unwrap();
        let integration = target.trim_start_matches("integrations/${").trim_end_matches('}');
        let function = resources[integration]["Properties"]["IntegrationUri"].as_str().unwrap();
        let function = function.split('.').next().unwrap();
        let name = resources[function]["Properties"]["FunctionName"].as_str().unwrap();
        let name = name.trim_start_matches("${AWS::StackName}-");
        served.insert(format!("{} {name}", properties["RouteKey"].as_str().unwrap()));
    }
    let mut wanted: BTreeSet<String> = crate::tenancy::routes()
        .iter()
        .flat_map(|route| {
            // A preflight is answered by the function that has the path.
            let preflight = format!("OPTIONS {} {}", route.path, route.function);
            [format!("{} {} {}", route.method, route.path, route.function), preflight]
        })
        .collect();
    wanted.extend(["$default ticket-exchange".to_owned(), "GET /sample sample".to_owned()]);
    assert_eq!(served, wanted);
}

#[test]
fn alarms_and_dashboard_know_every_metric() {
    let template = template();
    let resources = template["Resources"].as_object().unwrap();
    let alarms = resources.values().filter(|of| of["Type"] == "AWS::CloudWatch::Alarm");
    let alarms = alarms.map(|alarm| &alarm["Properties"]);
    let own: BTreeSet<&str> = alarms
        .clone()
        .filter(|alarm| alarm["Namespace"] == "Keyward" && !alarm["Dimensions"].is_null())
        .map(|alarm| alarm["MetricName"].as_str().unwrap())
        .collect();
    assert_eq!(own, Metric::ALL.iter().map(|metric| metric.name()).collect());
    let described = include_str!("../../docs/operations/README.md");
    for alarm in alarms {
        let name = alarm["AlarmName"].as_str().unwrap().trim_start_matches("${AWS::StackName}-");
        assert!(described.contains(&format!("`{name}`")), "docs/operations says nothing of {name}");
    }
    let dashboard = resources["Dashboard"]["Properties"]["DashboardBody"][0].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    assert_eq!(dashboard["widgets"].as_array().unwrap().len(), 10);
    assert!(own.iter().all(|metric| dashboard.to_string().contains(metric)));
    let shown = dashboard["widgets"][0]["properties"]["alarms"].as_array().unwrap();
    let alarms = resources.iter().filter(|(_, of)| of["Type"] == "AWS::CloudWatch::Alarm");
    let alarms: BTreeSet<String> = alarms.map(|(name, _)| format!("${{{name}.Arn}}")).collect();
    assert_eq!(alarms, shown.iter().map(|arn| arn.as_str().unwrap().to_owned()).collect());
}

#[test]
fn alarms_and_dashboard_name_the_table_in_use() {
    let template = template();
    let in_use = json!({"TableName": ["IsRestored", "RestoredTable", "Table"]});
    let resources = &template["Resources"];
    let [body, names] = resources["Dashboard"]["Properties"]["DashboardBody"].as_array().unwrap().as_slice()
    else {
        panic!("a text and its variables")
    };
    assert!(body.as_str().unwrap().contains(r#""TableName", "${TableName}""#) && *names == in_use);
    for alarm in ["StoreFailures", "TableReadThrottles", "TableWriteThrottles"] {
        let alarm = &resources[alarm]["Properties"];
        assert_eq!(alarm["AlarmDescription"][1], in_use, "{alarm}");
        let of_table = alarm["Namespace"] == "AWS/DynamoDB";
        assert!(!of_table || alarm["Dimensions"][0]["Value"] == in_use["TableName"], "{alarm}");
    }
}

#[test]
fn a_first_deployment_that_fails_leaves_nothing_that_costs_and_nothing_drifts_by_itself() {
    let template = template();
    let resources = &template["Resources"];
    for kept in ["Table", "Key"] {
        assert_eq!(resources[kept]["DeletionPolicy"], "RetainExceptOnCreate", "{kept}");
        assert_eq!(resources[kept]["UpdateReplacePolicy"], "Retain", "{kept}");
    }
    let log = resources["ApiStage"]["Properties"]["AccessLogSettings"]["DestinationArn"].as_str().unwrap();
    assert!(log.ends_with(":log-group:${ApiLogs}"), "{log}");
    let group = resources["ApiLogs"]["Properties"]["LogGroupName"].as_str().unwrap();
    assert!(group.starts_with("/aws/vendedlogs/"), "{group}");
}

#[test]
fn no_partition_is_presumed() {
    let template = include_str!("../../template.yaml");
    for line in template.lines().filter(|line| !line.trim_start().starts_with(['#', 'A', 'C'])) {
        assert!(!line.contains("arn:aws:") && !line.contains("console."), "{line}");
    }
}

#[test]
fn incoming_requests_are_throttled_and_concurrency_is_bounded() {
    let template = template();
    let stage = &template["Resources"]["ApiStage"];
    let bounds =
        |rate: &str, burst: &str| json!({"ThrottlingRateLimit": rate, "ThrottlingBurstLimit": burst});
    let settings = &stage["Properties"];
    assert_eq!(settings["DefaultRouteSettings"], bounds("ThrottlingRate", "ThrottlingBurst"));
    let of_checks = bounds("CheckThrottlingRate", "CheckThrottlingBurst");
    let routes = settings["RouteSettings"].as_object().unwrap();
    assert!(routes.len() == 2 && routes.values().all(|of| *of == of_checks), "{routes:?}");
    for (route, resource) in routes.keys().zip(stage["DependsOn"].as_array().unwrap()) {
        let resource = &template["Resources"][resource.as_str().unwrap()];
        assert_eq!(
            resource["Properties"]["RouteKey"],
            route.as_str(),
            "a route must be there before its settings"
        );
    }
    let table = &template["Resources"]["Table"]["Properties"]["OnDemandThroughput"];
    let of_table =
        json!({"MaxReadRequestUnits": "MaxReadRequestUnits", "MaxWriteRequestUnits": "MaxWriteRequestUnits"});
    assert_eq!(*table, of_table);
    let default = |name: &str| template["Parameters"][name]["Default"].as_u64().unwrap();
    // What API Gateway's smaller regions let an account through, and half of what DynamoDB lets a table take.
    assert!(default("CheckThrottlingRate") <= 2_500 && default("CheckThrottlingBurst") <= 1_250);
    assert!(default("ThrottlingRate") <= 2_500 && default("ThrottlingBurst") <= 1_250);
    assert!(default("MaxReadRequestUnits") <= 20_000 && default("MaxWriteRequestUnits") <= 20_000);
    let public = &template["Rules"]["APublicFunctionUrlIsBounded"];
    assert_eq!(public["RuleCondition"], json!(["VerifyFunctionUrl", "public"]));
    let api = &template["Rules"]["TheApiHasAnAddress"];
    assert_eq!(api["RuleCondition"], json!(["DisableExecuteApiEndpoint", "true"]));
}
