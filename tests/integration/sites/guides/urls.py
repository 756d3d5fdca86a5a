from django.contrib.auth.models import User
from django.core import signing
from django.shortcuts import render
from django.urls import include, path, re_path
from moved import views as moved

from tests.integration.sites.guides.live import views as hosted
from wsloop import tokens


def page(request, way, kind, name, room_name=None):
    """One page for each guide; the URL says how its consumer is served, and whether it is a coroutine."""
    mary = User.objects.get(username="mary")
    token = signing.dumps(mary.pk, salt="teams") if way != "moved" else tokens.make(mary)
    return render(request, f"guides/{name}.html", {"way": way, "kind": kind, "room_name": room_name, "token": token})


urlpatterns = [
    path("guides/hosted/sync/announce/<room_name>/", hosted.announce),
    path("guides/hosted/async/announce/<room_name>/", hosted.announce_async),
    re_path(r"^guides/(?:moved|within)/sync/announce/(?P<room_name>\w+)/$", moved.announce),
    re_path(r"^guides/(?:moved|within)/async/announce/(?P<room_name>\w+)/$", moved.announce_async),
    path("guides/<way>/<kind>/<name>/", page),
    path("guides/<way>/<kind>/<name>/<room_name>/", page),
    path("", include("tests.integration.sites.urls")),
]
