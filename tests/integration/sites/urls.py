from django.urls import include, path

from tests.integration.sites import live, views
from wsloop import signals
from wsloop.views import token

urlpatterns = [
    path("test/metrics/", views.metrics),
    path("test/publish/", views.publish),
    path("test/fetch/", views.fetch),
    path("test/page/", views.page),
    path("test/history/", views.history),
    path("test/who/", views.who),
    path("test/session/", views.session),
    path("test/parts/", views.parts),
    path("test/exit/", views.leave),
    path("test/live/", include("tests.integration.sites.live")),
    path("ws4redis/", include("tests.integration.sites.ws4redis_pages.views")),
    path("socket-token/", token),
    path("api/orders/", live.api),
    path("", include("testbed.sample.urls")),
]


def _online(user, **more):
    print("online", user, flush=True)


def _offline(user, **more):
    print("offline", user, flush=True)


signals.user_online.connect(_online)
signals.user_offline.connect(_offline)
