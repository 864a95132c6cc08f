"""Writes a template that SAM has built to standard output, less one permission of a role.

without.py TEMPLATE ROLE ACTION PARTITIONS
"""

import sys

import yaml

path, role, action, partitions = sys.argv[1:]
with open(path) as file:
    template = yaml.safe_load(file)
[policy] = template["Resources"][role]["Properties"]["Policies"]
[statement] = [one for one in policy["PolicyDocument"]["Statement"] if one["Action"] == action]
condition = statement["Condition"]["ForAllValues:StringLike"]
kept = condition["dynamodb:LeadingKeys"]
kept = [kept] if isinstance(kept, str) else kept
# The last pattern cannot be left out: nothing is like this one.
condition["dynamodb:LeadingKeys"] = [one for one in kept if one != partitions] or ["-"]
assert len(kept) > len([one for one in kept if one != partitions]), f"{role} has no {partitions}"
yaml.safe_dump(template, sys.stdout)
