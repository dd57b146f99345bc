"""A step of a Relay workflow as its authors write it: it knows nothing of keyhatch."""

from relay_sdk import Dynamic as D
from relay_sdk import Interface
from relay_sdk.interface import UnresolvableException

relay = Interface()

print(relay.get(D.aws.connection.accessKeyID))
print(relay.get(D.aws.connection)["secretAccessKey"])
print(relay.get("aws.region"))
print(relay.get(D.binary))
relay.outputs.set("my key/part", {"made": True})
print(relay.get(D.later))
try:
    relay.get(D.absent)
except UnresolvableException:
    print("unresolvable")
