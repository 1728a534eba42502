"""The conversation of tests/js/dialect.js with python-socketio's asyncio client.

Reads URL and VIA (polling, websocket or upgrade). Prints a JSON line when everything was as it should be.
"""

import asyncio
import json
import os

import socketio

URL = os.environ["URL"]
VIA = os.environ["VIA"]
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}
PATIENCE = 10
VALUES = [1, -70_000, 1.5, "é€😀\u2028\u0001", None, [True, [], {}], {"a": {"b": [1e-7, 2**40]}}, ""]
BYTES = bytes([0, 1, 4, 127, 128, 255])
NAMESPACES = ["/", "/custom"]


class Client:
    """A connection with what it heard, by namespace and event."""

    def __init__(self):
        self.io = socketio.AsyncClient(reconnection=False)
        self.heard = {}
        self.refused = {}
        for namespace in [*NAMESPACES, "/refusing", "/unknown"]:
            self.listen(namespace)

    def listen(self, namespace):
        for event in ["message-back", "verdict", "shared", "auth", "disconnect"]:
            queue = self.heard[namespace, event] = asyncio.Queue()
            self.io.on(event, lambda *args, queue=queue: queue.put_nowait(args), namespace=namespace)
        refused = self.refused[namespace] = asyncio.Queue()
        self.io.on("connect_error", refused.put_nowait, namespace=namespace)
        self.io.on("question", self.question, namespace=namespace)

    async def question(self, text):
        assert text == "and you?", text
        return BYTES, "fine"

    async def open(self, namespaces, auth=None):
        await self.io.connect(URL, transports=TRANSPORTS[VIA], namespaces=namespaces, auth=auth, wait_timeout=PATIENCE)
        wanted = "polling" if VIA == "polling" else "websocket"
        assert self.io.transport() == wanted, self.io.transport()

    async def hear(self, event, namespace="/"):
        return await asyncio.wait_for(self.heard[namespace, event].get(), PATIENCE)

    async def ask(self, event, *args, namespace="/"):
        """The arguments of the answer, as this client gives them: none, the one, or a list of many."""
        return await self.io.call(event, args, namespace=namespace, timeout=PATIENCE)


async def talk(client, namespace):
    """Values and bytes go there and back, as event and as answer."""
    sent = [*VALUES, BYTES, {"deep": [BYTES, b""]}]
    await client.io.emit("message", tuple(sent), namespace=namespace)
    assert list(await client.hear("message-back", namespace)) == sent
    assert list(await client.ask("message-with-ack", *VALUES, BYTES, namespace=namespace)) == [*VALUES, BYTES]
    assert await client.ask("message-with-ack", namespace=namespace) is None
    await client.io.emit("ask-me", namespace=namespace)
    assert await client.hear("verdict", namespace) == (BYTES, "fine")
    assert await client.ask("whoami", namespace=namespace) == client.io.get_sid(namespace)


async def share(one, other):
    """Everybody in a room gets a broadcast."""
    await one.ask("join", "room")
    await other.ask("join", "room")
    await one.io.emit("share", ("room", "text", BYTES))
    for client in [one, other]:
        assert await client.hear("shared") == ("text", BYTES)


async def refusals():
    """A client learns why it may not join."""
    client = Client()
    try:
        await client.open(["/", "/refusing", "/unknown"])
    except socketio.exceptions.ConnectionError:
        pass
    for namespace, message in [("/refusing", "not you"), ("/unknown", "Invalid namespace")]:
        refusal = await asyncio.wait_for(client.refused[namespace].get(), PATIENCE)
        assert refusal == {"message": message}, refusal
    await client.io.disconnect()


async def main():
    one, other = Client(), Client()
    await one.open(NAMESPACES, {"token": "a b&c", "n": "1"})
    await other.open(["/"])
    assert await one.hear("auth", "/custom") == ({"token": "a b&c", "n": "1"},)
    for namespace in NAMESPACES:
        await talk(one, namespace)
    await share(one, other)
    await share(other, one)
    large = bytes([7]) * 300_000
    assert await one.ask("message-with-ack", large) == large
    await one.io.emit("leave-me", namespace="/custom")
    assert await one.hear("disconnect", "/custom") == (socketio.AsyncClient.reason.SERVER_DISCONNECT,)
    assert await one.ask("whoami") == one.io.get_sid("/")
    await refusals()
    for client in [one, other]:
        await client.io.disconnect()
    print(json.dumps({"done": True}), flush=True)


asyncio.run(asyncio.wait_for(main(), 4 * PATIENCE))
