"""The WebSocket consumers. No channel layer: each connection is served where it arrives."""
import asyncio
import json
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

NOT_FOUND = 4404
FEED_INTERVAL = 0.2


class Named(AsyncWebsocketConsumer):
    """What both have in common: JSON that begins with the replica's name."""

    async def say(self, **fields):
        await self.send(text_data=json.dumps({"replica": settings.REPLICA_NAME, **fields}))


class Echo(Named):
    async def connect(self):
        await self.accept()
        await self.say()

    async def receive(self, text_data=None, bytes_data=None):
        if bytes_data is not None:
            await self.send(bytes_data=bytes_data)
        elif text_data.startswith("close:"):
            await self.close(code=int(text_data.removeprefix("close:")))
        else:
            await self.say(echo=text_data)


class Feed(Named):
    task = None

    async def connect(self):
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        interval = float(query.get("interval", [FEED_INTERVAL])[0])
        limit = int(query.get("n", [0])[0])
        await self.accept()
        self.task = asyncio.create_task(self.push(interval, limit))

    async def push(self, interval: float, limit: int):
        number = 0
        while not limit or number < limit:
            number += 1
            await self.say(n=number)
            await asyncio.sleep(interval)
        await self.close(code=1000)

    async def disconnect(self, code):
        if self.task:
            self.task.cancel()


class Refuse(AsyncWebsocketConsumer):
    """Any other path: closed before it is accepted, which uvicorn answers with 403."""

    async def connect(self):
        await self.close(code=NOT_FOUND)
