"""What moving over takes besides other imports: the middleware of ``asgi.py``, as base classes of its consumers.

wsloop itself finds the user, by its own tokens too.
"""

from django.urls import path
from moved import teams


class WithTeam:
    def websocket_connect(self, message):
        group = self.scope["user"].groups.first()
        self.scope["team"] = group and group.name
        super().websocket_connect(message)


class AsyncWithTeam:
    async def websocket_connect(self, message):
        group = await self.scope["user"].groups.afirst()
        self.scope["team"] = group and group.name
        await super().websocket_connect(message)


class TeamConsumer(WithTeam, teams.TeamConsumer):
    pass


class AsyncTeamConsumer(AsyncWithTeam, teams.AsyncTeamConsumer):
    pass


websocket_urlpatterns = [
    path("sync/team/", TeamConsumer.as_asgi()),
    path("async/team/", AsyncTeamConsumer.as_asgi()),
]
