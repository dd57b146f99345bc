"""An OAuth token endpoint on loopback that makes and revokes tokens, for crowds of requests.

Prints one line of JSON when it serves: its port. POST /token makes a token for a day, POST /revoke revokes it, POST /down and
POST /up stop and start the answers of /revoke, GET /count tells how many tokens are valid. It ends when its stdin ends.
"""
import asyncio
import itertools
import json
import sys
from urllib.parse import parse_qs

valid, numbers, is_down = set(), itertools.count(1), False


def answer(path, body):
    global is_down
    if path == "/token":
        token = f"crowd-token-{next(numbers):012}"
        valid.add(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 86400}
    if path == "/revoke":
        if is_down:
            return 503, {}
        valid.discard(parse_qs(body).get("token", [""])[0])
    if path in ("/down", "/up"):
        is_down = path == "/down"
    return 200, {"valid": len(valid)}


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            path, length = line.split()[1].decode(), 0
            while (header := await reader.readline()).strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            status, reply = answer(path, (await reader.readexactly(length)).decode())
            reply = json.dumps(reply).encode()
            head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(reply)}\r\n\r\n"
            writer.write(head.encode() + reply)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
