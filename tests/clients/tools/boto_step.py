"""Calls AWS at an address of the test's, as often as it is told, by whatever credentials boto3 finds."""

import sys

import boto3
from botocore.config import Config

url, times = sys.argv[1], int(sys.argv[2])
config = Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=10)
sts = boto3.client("sts", endpoint_url=url, config=config)
for _ in range(times):
    print(sts.get_caller_identity()["Account"])
