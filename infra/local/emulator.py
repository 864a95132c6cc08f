"""MiniStack, with the condition keys that Keyward's roles name, updates that let requests end, and tables complete.

With AUTH=true MiniStack decides each request by the policies of its caller, but knows nothing of the keys that a request
to DynamoDB names, of the attributes that an update touches, or of the encryption context of a request to KMS: a
condition on those would be taken as met, or as never met. Here they are read from the request, as IAM reads them:

    dynamodb:LeadingKeys, dynamodb:Attributes (of UpdateItem), kms:EncryptionContext:<key>

So is what a request to simulate a policy says that they are.

When a function is updated, MiniStack ends the processes that run the old code at once; here those that are answering a
request end after it, as on Lambda.

A table that a stack makes gets its TTL and its point-in-time recovery, which MiniStack's CloudFormation leaves out.

All of this reaches into MiniStack, so it runs on the version that requirements.txt names, and on no other.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html
"""

import contextvars
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

from ministack.app import main
from ministack.core import iam_actions, iam_evaluator, lambda_runtime
from ministack.services import dynamodb, iam
from ministack.services.cloudformation import provisioners

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


def enforce_with_keys(*args, service_context=None, **named):
    if "dynamodb:EnclosingOperation" in (service_context or {}):
        service_context = {**service_context, **context_of(next(transaction.get()))}
    return enforce(*args, service_context=service_context, **named)


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
LONGEST_REQUEST = 30

kill_workers = lambda_runtime.kill_workers


def kill_after_its_request(worker):
    end = time.monotonic() + LONGEST_REQUEST
    while worker.in_use and time.monotonic() < end:
        time.sleep(0.05)
    kill_workers([worker])


def kill_when_free(workers):
    workers = [worker for worker in workers if worker is not None]
    kill_workers([worker for worker in workers if not worker.in_use])
    for worker in (worker for worker in workers if worker.in_use):
        threading.Thread(target=kill_after_its_request, args=(worker,), daemon=True).start()


lambda_runtime.kill_workers = kill_when_free

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
    main()
