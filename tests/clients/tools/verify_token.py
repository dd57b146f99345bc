"""Verifies a token of stdin as a stranger would: by the issuer's discovery document, over TLS. Prints its claims.

usage: verify_token.py ISSUER CA_FILE AUDIENCE
"""
import json
import ssl
import sys
import urllib.request

import jwt

issuer, authority, audience = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(authority)
with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", context=context, timeout=10) as reply:
    discovery = json.load(reply)
token = sys.stdin.read().strip()
key = jwt.PyJWKClient(discovery["jwks_uri"], ssl_context=context).get_signing_key_from_jwt(token)
claims = jwt.decode(
    token,
    key,
    algorithms=discovery["id_token_signing_alg_values_supported"],
    audience=audience,
    issuer=discovery["issuer"],
    options={"require": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"], "strict_aud": True},
)
print(json.dumps({**claims, "header": jwt.get_unverified_header(token)}))
