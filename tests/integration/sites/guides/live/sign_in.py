from asgiref.sync import async_to_sync
from channels.auth import get_user, login
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from django.contrib.auth import authenticate


class SignInConsumer(JsonWebsocketConsumer):
    def receive_json(self, content, **kwargs):
        if "username" in content:
            user = authenticate(username=content["username"], password=content["password"])
            if user is None:
                self.send_json({"error": "wrong"})
                return
            # sign in to the session of this socket, and save it
            async_to_sync(login)(self.scope, user)
            self.scope["session"]["signed_in_by"] = "socket"
            self.scope["session"].save()
        user = self.scope["user"]
        kept = async_to_sync(get_user)(self.scope)
        self.send_json({"user": user.username, "kept": kept.username, "session": self.scope["session"].session_key})


class AsyncSignInConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content, **kwargs):
        if "username" in content:
            user = await database_sync_to_async(authenticate)(
                username=content["username"], password=content["password"]
            )
            if user is None:
                await self.send_json({"error": "wrong"})
                return
            # sign in to the session of this socket, and save it
            await login(self.scope, user)
            self.scope["session"]["signed_in_by"] = "socket"
            await database_sync_to_async(self.scope["session"].save)()
        user = self.scope["user"]
        kept = await get_user(self.scope)
        await self.send_json(
            {"user": user.username, "kept": kept.username, "session": self.scope["session"].session_key}
        )
