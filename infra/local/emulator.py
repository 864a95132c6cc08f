"""MiniStack, with the condition keys that Keyward's roles name, updates that let requests end, and tables complete.

With AUTH=true MiniStack decides each request by the policies of its caller, but knows nothing of the keys that a request
to DynamoDB names, of the attributes that an update touches, or of the encryption context of a request to KMS: a
condition on those would be taken as met, or as never met. Here they are read from the request, as IAM reads them:

    dynamodb:LeadingKeys, dynamodb:Attributes (of UpdateItem), kms:EncryptionContext:<key>

So is what a request to simulate a policy says that they are.

When a function is updated, MiniStack ends the processes that run the old code at once; here those that have a request
end after it, as on Lambda: when they have answered it and asked for the next.

A table that is restored from point-in-time recovery is CREATING at first, and takes no change until it is ACTIVE.

With AUTH=true CloudFormation asks, for what a stack holds, whether its caller may do what the type's handlers do, as
AWS's own description of each type lists it (cfn-lint has those), and drift detection for what they read. What a user
was permitted is told on standard output.

A table that a stack makes gets its TTL and its point-in-time recovery, which MiniStack's CloudFormation leaves out.

All of this reaches into MiniStack, so it runs on the version that requirements.txt names, and on no other.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html
https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging.html
"""

import contextvars
import functools
import itertools
import json
import re
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
WRITTEN_FOR = re.search(r"^ministack==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE)[1]
if (installed := metadata.version("ministack")) != WRITTEN_FOR:
    sys.exit(
        f"infra/local/emulator.py is written for MiniStack {WRITTEN_FOR}, and {installed} is installed:"
        " pip install -r infra/local/requirements.txt"
    )

import cfnlint
from ministack import app
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.core.responses import error_response_json, get_account_id, get_region
from ministack.services import dynamodb, iam
from ministack.services.cloudformation import handlers as cloudformation
from ministack.services.cloudformation import changesets, engine, provisioners, stacks

# The partition key of Keyward's table.
PARTITION_KEY = "pk"

KEYWORDS = {"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN"}


def parsed(body):
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def partition(item):
    return [value for value in (item or {}).get(PARTITION_KEY, {}).values()]


def leading_keys(request):
    """The partitions that a request names, of whatever operation."""
    keys = partition(request.get("Key")) + partition(request.get("Item"))
    if "KeyConditionExpression" in request:
        found = re.search(rf"\b{PARTITION_KEY}\s*=\s*(:\w+)", request["KeyConditionExpression"])
        keys += [value for value in request["ExpressionAttributeValues"][found[1]].values()]
    for of_table in request.get("RequestItems", {}).values():
        if isinstance(of_table, dict):
            keys += [key for item in of_table["Keys"] for key in partition(item)]
        else:
            writes = [write for request in of_table for write in request.values()]
            keys += [key for write in writes for key in partition(write.get("Item") or write.get("Key"))]
    return keys


def attributes(request):
    """The attributes that an update names."""
    names = set(request.get("Key", {}))
    for expression in (request.get("UpdateExpression", ""), request.get("ConditionExpression", "")):
        words = re.findall(r"(?<![:\w])#?[A-Za-z_]\w*(?!\w*\s*\()", expression)
        names.update(request.get("ExpressionAttributeNames", {}).get(word, word) for word in words)
    return sorted(names - KEYWORDS)


def context_of(request):
    context = {}
    if keys := leading_keys(request):
        context["dynamodb:LeadingKeys"] = keys
    if "UpdateExpression" in request:
        context["dynamodb:Attributes"] = attributes(request)
    return context


# What is still to be checked of a transaction: each of its items is an action of its own.
transaction = contextvars.ContextVar("transaction", default=iter(()))

service_context, transaction_checks = iam_actions.dynamodb_service_context, iam_actions.dynamodb_transaction_checks
tag_context, enforce = iam_actions.request_tag_context, iam_evaluator.enforce


def dynamodb_service_context(body):
    return {**service_context(body), **context_of(parsed(body))}


def dynamodb_transaction_checks(iam_action, body, region, account_id):
    items = [item for write in parsed(body).get("TransactItems", []) for item in write.values()]
    transaction.set(iter(items))
    return transaction_checks(iam_action, body, region, account_id)


def request_tag_context(service, iam_action, body, *rest):
    context = tag_context(service, iam_action, body, *rest)
    if service == "kms":
        bound = parsed(body).get("EncryptionContext", {})
        context = {**context, **{f"kms:EncryptionContext:{name}": value for name, value in bound.items()}}
    return context


# Whose request CloudFormation carries out: their access key.
caller = contextvars.ContextVar("caller", default="")


def enforce_with_keys(access_key, action, service, *args, service_context=None, **named):
    if "dynamodb:EnclosingOperation" in (service_context or {}):
        service_context = {**service_context, **context_of(next(transaction.get()))}
    if service == "cloudformation":
        caller.set(access_key)
    denied = enforce(access_key, action, service, *args, service_context=service_context, **named)
    # Access keys of users begin so, those of roles and of the account do not.
    if denied is None and (access_key or "").startswith("AKIA"):
        print(f"permitted {access_key} {action}", flush=True)
    return denied


iam_actions.dynamodb_service_context = dynamodb_service_context
iam_actions.dynamodb_transaction_checks = dynamodb_transaction_checks
iam_actions.request_tag_context = request_tag_context
iam_evaluator.enforce = enforce_with_keys

simulate_params, simulate = iam._extract_simulate_params, iam._build_simulate_results_real
evaluate = iam_evaluator.evaluate
# The condition keys that a simulation names.
simulated = contextvars.ContextVar("simulated", default=None)


def extract_simulate_params(request):
    def values(prefix):
        numbers = itertools.takewhile(lambda n: f"{prefix}.{n}" in request, itertools.count(1))
        return [iam._p(request, f"{prefix}.{n}") for n in numbers]

    entries = itertools.takewhile(
        lambda entry: f"{entry}.ContextKeyName" in request,
        (f"ContextEntries.member.{n}" for n in itertools.count(1)),
    )
    context = {}
    for entry in entries:
        listed = values(f"{entry}.ContextKeyValues.member")
        is_list = iam._p(request, f"{entry}.ContextKeyType").endswith("List")
        context[iam._p(request, f"{entry}.ContextKeyName").lower()] = listed if is_list else listed[0]
    simulated.set(context)
    return simulate_params(request)


def simulate_with_keys(*args):
    try:
        return simulate(*args)
    finally:
        simulated.set(None)


def evaluate_with_keys(context, *policies):
    if simulated.get() is not None:
        context.service_context = simulated.get()
    return evaluate(context, *policies)


iam._extract_simulate_params = extract_simulate_params
iam._build_simulate_results_real = simulate_with_keys
iam_evaluator.evaluate = evaluate_with_keys

# No function runs longer, in seconds.
REQUEST_TIMEOUT = 30

kill_workers = lambda_runtime.kill_workers
record_result = lambda_runtime.ProvidedWorker._record_result
mark_poll = lambda_runtime.ProvidedWorker._mark_first_poll


def record_result_and_go_on(worker, *result):
    recorded = record_result(worker, *result)
    worker.goes_on = recorded or getattr(worker, "goes_on", False)
    return recorded


def mark_poll_and_end(worker, *poll):
    worker.goes_on = False
    return mark_poll(worker, *poll)


lambda_runtime.ProvidedWorker._record_result = record_result_and_go_on
lambda_runtime.ProvidedWorker._mark_first_poll = mark_poll_and_end


def has_request(worker):
    return worker.in_use or getattr(worker, "goes_on", False)


def kill_after_its_request(worker):
    end = time.monotonic() + REQUEST_TIMEOUT
    while has_request(worker) and time.monotonic() < end:
        time.sleep(0.05)
    kill_workers([worker])


def kill_when_free(workers):
    workers = [worker for worker in workers if worker is not None]
    kill_workers([worker for worker in workers if not has_request(worker)])
    for worker in (worker for worker in workers if has_request(worker)):
        threading.Thread(target=kill_after_its_request, args=(worker,), daemon=True).start()


lambda_runtime.kill_workers = kill_when_free

# Requests come over loopback, where AWS has TLS: the bucket that SAM makes refuses any other.
pin_request_origin = app.pin_request_origin
app.pin_request_origin = lambda source_ip, _secure: pin_request_origin(source_ip, True)

# Actions of handlers for what Keyward's template has nothing of: networks, file systems, code signing, layers, imports,
# replicas, Kinesis, tags that are taken away ... And of keys, which the key's own policy permits through DynamoDB.
UNUSED = re.compile(
    r"(ec2|elasticfilesystem|firehose|kinesis|s3|s3files):.*"
    r"|dynamodb:(Scan|Query|.*Item|.*Import.*|.*Replica|.*ResourcePolicy|.*Kinesis.*|.*ContributorInsights)"
    r"|iam:(CreateServiceLinkedRole|.*(Group|User)Policy|.*PermissionsBoundary)"
    r"|kms:(CreateGrant|Decrypt|Encrypt|GenerateDataKey|ListAliases|RevokeGrant)"
    r"|lambda:(.*CodeSigning.*|GetLayerVersion|PassCapacityProvider|PublishVersion|.*(Recursion|Scaling|Management)Config)"
    r"|logs:(.*KmsKey|.*BearerToken.*|.*IndexPolic.*|.*DataProtection.*|.*DeletionProtection|.*LogStreams?|PutLogEvents)"
    r"|.*:Unt.*|ssm:RemoveTags.*"
)
# What API Gateway does on behalf of whoever sets up its access log.
LOG_DELIVERY = [
    f"logs:{action}"
    for action in (
        "CreateLogDelivery DeleteLogDelivery DescribeLogGroups DescribeResourcePolicies GetLogDelivery"
        " ListLogDeliveries PutResourcePolicy UpdateLogDelivery"
    ).split()
]


@functools.cache
def handlers_of(resource_type):
    for path in Path(cfnlint.__file__).parent.glob("data/schemas/resources/*.json"):
        schema = json.loads(path.read_text())
        if schema.get("typeName") == resource_type:
            return schema.get("handlers", {})
    return {}


def actions_of(resource_type, operations):
    handlers = handlers_of(resource_type)
    actions = {action for operation in operations for action in handlers.get(operation, {}).get("permissions", [])}
    if resource_type == "AWS::ApiGatewayV2::Stage" and "create" in operations:
        actions.update(LOG_DELIVERY)
    return sorted(action for action in actions if not UNUSED.fullmatch(action))


def resource_of(action, resource_type, name):
    """The ARN that a policy may name for an action on what a stack calls so."""
    service = action.split(":")[0]
    region, account = get_region(), get_account_id()
    kind = {"iam": "policy" if resource_type == "AWS::IAM::ManagedPolicy" else "role"}.get(service)
    return {
        "dynamodb": f"arn:aws:dynamodb:{region}:{account}:table/{name}",
        "iam": f"arn:aws:iam::{account}:{kind}/{name}",
        "lambda": f"arn:aws:lambda:{region}:{account}:function:{name}",
        "apigateway": f"arn:aws:apigateway:{region}::/apis",
    }.get(service, "*")


def require(resource_type, operations, name):
    if not app.AUTH:
        return
    for action in actions_of(resource_type, operations):
        resource = resource_of(action, resource_type, name)
        # A managed policy is attached to a role.
        if re.fullmatch("iam:(At|De)tachRolePolicy", action):
            resource = resource.replace(":policy/", ":role/")
        denied = iam_evaluator.enforce(
            caller.get(), action, action.split(":")[0], get_region(), resource_arn=resource
        )
        if denied is not None:
            raise PermissionError(f"not authorized to perform: {action} on resource: {resource}")


# Conditions may ask for the partition.
evaluate_conditions = engine._evaluate_conditions
for module in (engine, changesets, cloudformation, stacks):
    module._evaluate_conditions = lambda template, params: evaluate_conditions(
        template, {"AWS::Partition": {"Value": "aws"}, **params}
    )

provision_resource = stacks._provision_resource


def provision_with_permission(resource_type, logical_id, props, stack_name):
    # Later updates change and take away what this makes.
    require(resource_type, ("create", "read", "update", "delete"), f"{stack_name}-{logical_id}")
    return provision_resource(resource_type, logical_id, props, stack_name)


stacks._provision_resource = provision_with_permission


def detect_with_permission(params):
    stack, missing = cloudformation._drift_target(cloudformation._p(params, "StackName"))
    for logical_id, record in {} if missing else stack["_resources"].items():
        try:
            require(record["ResourceType"], ("read",), f"{stack['StackName']}-{logical_id}")
        except PermissionError as denied:
            # AWS answers, and then tells of a detection that failed.
            return cloudformation._error("AccessDenied", str(denied), 403)
    return detect_stack_drift(params)


detect_stack_drift = cloudformation._ACTION_HANDLERS["DetectStackDrift"]
cloudformation._ACTION_HANDLERS["DetectStackDrift"] = detect_with_permission

RESTORING = 10  # seconds
restore_table, update_ttl = dynamodb._restore_table_to_point_in_time, dynamodb._update_ttl
update_backups, update_table = dynamodb._update_continuous_backups, dynamodb._update_table


def restore_table_slowly(data):
    answer = restore_table(data)
    if answer[0] == 200:
        table = dynamodb._tables[data["TargetTableName"]]
        table["TableStatus"] = "CREATING"
        threading.Timer(RESTORING, table.update, ({"TableStatus": "ACTIVE"},)).start()
    return answer


def once_active(change):
    def changed(data):
        if dynamodb._tables.get(data["TableName"], {}).get("TableStatus") == "CREATING":
            return error_response_json("ResourceInUseException", f"Table is being created: {data['TableName']}", 400)
        return change(data)

    return changed


dynamodb._restore_table_to_point_in_time = restore_table_slowly
dynamodb._update_ttl = once_active(update_ttl)
dynamodb._update_continuous_backups = once_active(update_backups)
dynamodb._update_table = once_active(update_table)

handlers = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]
create_table = handlers["create"]


def create_whole_table(logical_id, properties, stack):
    made = create_table(logical_id, properties, stack)
    name = {"TableName": made[0]}
    if specification := properties.get("TimeToLiveSpecification"):
        dynamodb._update_ttl({**name, "TimeToLiveSpecification": specification})
    if specification := properties.get("PointInTimeRecoverySpecification"):
        dynamodb._update_continuous_backups({**name, "PointInTimeRecoverySpecification": specification})
    return made


handlers["create"] = create_whole_table

if __name__ == "__main__":
    app.main()
