"""Lists the buckets of AWS at an address of the test's, once for each line of stdin, by whatever credentials boto3 finds.

Prints the ID of the access key that it used.
"""

import sys

import boto3
from botocore.config import Config

config = Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10, s3={"addressing_style": "path"})
session = boto3.Session()
s3 = session.client("s3", endpoint_url=sys.argv[1], config=config)
for _ in iter(sys.stdin.readline, ""):
    s3.list_buckets()
    print(session.get_credentials().get_frozen_credentials().access_key, flush=True)
