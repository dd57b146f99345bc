"""AWS on loopback, by moto: STS, IAM and S3. It checks signatures and policies.

Prints one line of JSON when it serves: its port, the access key of a user who may assume the role `deploy` with an
external ID, and the role's ARN. The role `open` takes any external ID. The roles may list buckets and nothing else. It ends
when its stdin ends.

usage: moto_server.py [DIRECTORY]   with the documents of an issuer, whose tokens for steps of workflow w the roles take, too
"""
import json
import logging
import os
import sys

import boto3
import jwt
import requests
from moto.server import ThreadedMotoServer
from moto.sts.exceptions import STSClientError
from moto.sts.responses import TokenResponse

EXTERNAL_ID = "tenant-7"
AUDIENCE = "sts.amazonaws.com"
STEPS = "spiffe://keyhatch.local/workflow/w/"


def policy(action, resource, **condition):
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(user, **condition):
    statement = {"Effect": "Allow", "Principal": {"AWS": user}, "Action": "sts:AssumeRole", **condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def verified(token, directory):
    """The claims of a token of the issuer whose documents are in this directory. moto itself checks no tokens."""
    with open(f"{directory}/.well-known/openid-configuration") as file:
        issuer = json.load(file)["issuer"]
    with open(f"{directory}/jwks.json") as file:
        keys = jwt.PyJWKSet.from_dict(json.load(file))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=issuer)


class TrustingResponse:
    """What replaces moto's own methods: requests with a token are not signed."""

    plain = TokenResponse.assume_role_with_web_identity
    authorize = TokenResponse._authenticate_and_authorize_action

    def assume_role_with_web_identity(self):
        try:
            claims = verified(self._get_param("WebIdentityToken"), sys.argv[1])
        except (jwt.PyJWTError, KeyError) as error:
            raise STSClientError("InvalidIdentityToken", str(error)) from error
        if not claims["sub"].startswith(STEPS):
            raise STSClientError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
        return TrustingResponse.plain(self)

    def _authenticate_and_authorize_action(self, *arguments):
        if self._get_action() != "AssumeRoleWithWebIdentity":
            TrustingResponse.authorize(self, *arguments)


if len(sys.argv) > 1:
    for method in [TrustingResponse.assume_role_with_web_identity, TrustingResponse._authenticate_and_authorize_action]:
        setattr(TokenResponse, method.__name__, method)
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
