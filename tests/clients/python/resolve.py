"""Resolves a connection as a workflow step, and prints its fields as JSON.

The modules keyhatch.v1 are generated from proto/keyhatch/v1/step.proto:
python -m grpc_tools.protoc -I proto --python_out=DIR --grpc_python_out=DIR keyhatch/v1/step.proto
"""

import argparse
import json
import os
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from keyhatch.v1 import step_pb2, step_pb2_grpc

TIMEOUT_SECONDS = 10


def connect(set_authority=True):
    """Opens a channel to the broker, as this step."""
    ca, certificate, key = (
        Path(os.environ[name]).read_bytes()
        for name in ("KEYHATCH_CACERT", "KEYHATCH_CLIENT_CERT", "KEYHATCH_CLIENT_KEY")
    )
    credentials = grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=certificate)
    # Left alone, grpcio takes :authority and SNI from the percent-encoded path of the socket, which is
    # no host name: no server can accept it.
    authority = [("grpc.default_authority", os.environ["KEYHATCH_AUTHORITY"])]
    options = authority if set_authority else []
    return grpc.secure_channel(os.environ["KEYHATCH_ADDR"], credentials, options)


def resolve(channel, integration, name):
    """Returns the connection's fields, decoded."""
    target = step_pb2.ConnectionTarget(integration=integration, name=name)
    request = step_pb2.ResolveRequest(connection=target)
    response = step_pb2_grpc.StepServiceStub(channel).Resolve(request, timeout=TIMEOUT_SECONDS)
    return {field: value.decode() for field, value in response.fields.items()}


def reason(error):
    """Returns what to switch on: the reason in ErrorInfo, or the status code if gRPC itself failed."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else []:
        if detail.Unpack(info):
            return info.reason
    return error.code().name


def main():
    parser = argparse.ArgumentParser(description="Resolve a connection and print its fields as JSON.")
    parser.add_argument("connection", metavar="INTEGRATION/NAME")
    parser.add_argument(
        "--default-authority-unset",
        action="store_true",
        help="leave grpc.default_authority out, to see how that fails",
    )
    arguments = parser.parse_args()
    integration, _, name = arguments.connection.partition("/")
    try:
        with connect(set_authority=not arguments.default_authority_unset) as channel:
            fields = resolve(channel, integration, name)
    except grpc.RpcError as error:
        sys.exit(f"error: {reason(error)}: {error.details()}")
    print(json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main()
