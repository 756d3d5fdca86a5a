from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.core import signing


@database_sync_to_async
def get_user_and_team(token):
    try:
        user = User.objects.get(pk=signing.loads(token, salt="teams"))
    except (signing.BadSignature, User.DoesNotExist):
        return AnonymousUser(), None
    return user, user.groups.values_list("name", flat=True).first()


class TokenAuthMiddleware:
    """Finds the user by the token in the query, ``?token=…``, and puts the team into the scope, too."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        query = parse_qs(scope["query_string"].decode())
        if "token" in query:
            scope["user"], scope["team"] = await get_user_and_team(query["token"][0])
        return await self.app(scope, receive, send)
