"""MiniStack, with the condition keys that Keyward's roles name, and with updates that let requests end.

With AUTH=true MiniStack decides each request by the policies of its caller, but knows nothing of the keys that a request
to DynamoDB names, of the attributes that an update touches, or of the encryption context of a request to KMS: a
condition on those would be taken as met, or as never met. Here they are read from the request, as IAM reads them:

    dynamodb:LeadingKeys, dynamodb:Attributes (of UpdateItem), kms:EncryptionContext:<key>

When a function is updated, MiniStack ends the processes that run the old code at once; here those that are answering a
request end after it, as on Lambda.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html
"""

import contextvars
import json
import re
import threading
import time

from ministack.app import main
from ministack.core import iam_actions, iam_evaluator, lambda_runtime

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

if __name__ == "__main__":
    main()
