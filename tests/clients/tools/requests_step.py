"""Asks an API by its base URL, over one connection: requests_step.py COUNT [wait]."""

import os
import sys

import requests

url = os.environ["KEYHATCH_HTTP_URL"]
count = int(sys.argv[1])
with requests.Session() as session:
    for number in range(count):
        answer = session.get(f"{url}/echo", params={"n": number}, timeout=10)
        answer.raise_for_status()
        assert answer.text == f"GET /api/echo?n={number} Bearer ***\n", answer.text
    pools = session.get_adapter(url).poolmanager.pools
    connections = sum(pools[key].num_connections for key in pools.keys())
    print(f"{count} answers, {connections} connection", flush=True)
    if sys.argv[2:] == ["wait"]:
        sys.stdin.read()
