"""Deploys a template with each value of each of its parameters, one after the other into a stack of its own.

parameters.py TEMPLATE, which sam has built or packaged; where to is in the environment, as for `sam deploy`.
"""

import subprocess
import sys

import yaml

STACK = "parameters"
# What those are tried with that take any text: nothing, where that is what they have without, and a value.
EXAMPLES = {
    "DomainName": "keys.example.com",
    "CertificateArn": "arn:aws:acm:us-east-1:000000000000:certificate/00000000-0000-0000-0000-000000000000",
    "PublicUrl": "https://cdn.example.com/keys",
    "AllowedOrigins": "https://app.example.com, https://www.example.com",
    "VerifyMemorySize": "1024",
    "VerifyReservedConcurrency": "20",
    "AuthorizerApps": "acme, acme-sandbox",
    "AuthorizerDeployment": "250230518901972310",
    "AuthorizerKeyHeader": "x-acme-key",
    "TrustedProxies": "192.0.2.0/24, 2001:db8::/32",
    "MemorySize": "512",
    "ReservedConcurrency": "10",
    "ThrottlingRate": "50",
    "ThrottlingBurst": "100",
    "CheckThrottlingRate": "500",
    "CheckThrottlingBurst": "500",
    "MaxReadRequestUnits": "4000",
    "MaxWriteRequestUnits": "2000",
    "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:alarms",
    "RestoredTable": "restored",
}

template = sys.argv[1]
with open(template) as file:
    parameters = yaml.safe_load(file)["Parameters"]
values = {
    name: [str(value) for value in of.get("AllowedValues", [of.get("Default"), EXAMPLES.get(name)])]
    for name, of in parameters.items()
}
assert "None" not in {value for of in values.values() for value in of}, f"a parameter has no example: {values}"
rounds = max(len(of) for of in values.values())
for number in range(rounds):
    chosen = {name: of[min(number, len(of) - 1)] for name, of in values.items()}
    overrides = [f'{name}="{value}"' for name, value in chosen.items()]
    deploy = ["sam", "deploy", "--template-file", template, "--stack-name", STACK, "--resolve-s3", "--capabilities"]
    deploy += ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--no-confirm-changeset", "--no-fail-on-empty-changeset"]
    done = subprocess.run([*deploy, "--parameter-overrides", *overrides], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{chosen}\n{done.stdout}{done.stderr}")
print(f"{sum(len(of) for of in values.values())} values of {len(values)} parameters, in {rounds} deployments")
