from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer


class TeamConsumer(JsonWebsocketConsumer):
    def connect(self):
        if self.scope["user"].is_anonymous:
            self.close(code=4401)
            return
        self.accept()
        self.send_json({"user": self.scope["user"].username, "team": self.scope["team"]})


class AsyncTeamConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        if self.scope["user"].is_anonymous:
            await self.close(code=4401)
            return
        await self.accept()
        await self.send_json({"user": self.scope["user"].username, "team": self.scope["team"]})
