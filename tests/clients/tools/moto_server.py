"""AWS on loopback, by moto: STS, IAM and S3. It checks signatures and policies.

Prints one line of JSON when it serves: its port, the access key of a user who may assume the role `deploy` with an
external ID, and the role's ARN. The role `open` takes any external ID. The roles may list buckets and nothing else. It ends
when its stdin ends.
"""
import json
import logging
import os
import sys

import boto3
import requests
from moto.server import ThreadedMotoServer

EXTERNAL_ID = "tenant-7"


def policy(action, resource, **condition):
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(user, **condition):
    statement = {"Effect": "Allow", "Principal": {"AWS": user}, "Action": "sts:AssumeRole", **condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


logging.getLogger("werkzeug").setLevel(logging.ERROR)
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
url = f"http://127.0.0.1:{port}"
iam = boto3.client(
    "iam", endpoint_url=url, region_name="us-east-1", aws_access_key_id="seed", aws_secret_access_key="seed"
)
user = iam.create_user(UserName="broker")["User"]
owned = {"Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}}
roles = {}
for name, condition in {"deploy": owned, "open": {}}.items():
    document = trust(user["Arn"], **condition)
    roles[name] = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="read", PolicyDocument=policy("s3:ListAllMyBuckets", "*"))
assume = policy("sts:AssumeRole", list(roles.values()))
iam.put_user_policy(UserName="broker", PolicyName="assume", PolicyDocument=assume)
key = iam.create_access_key(UserName="broker")["AccessKey"]
# From here on each request must be signed and allowed.
requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()
told = {
    "port": port,
    "access_key_id": key["AccessKeyId"],
    "secret_access_key": key["SecretAccessKey"],
    "role_arn": roles["deploy"],
    "external_id": EXTERNAL_ID,
}
print(json.dumps(told), flush=True)
sys.stdin.read()
server.stop()
