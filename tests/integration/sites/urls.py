from django.urls import include, path

from tests.integration.sites import views
from wsloop import signals

urlpatterns = [
    path("test/metrics/", views.metrics),
    path("test/publish/", views.publish),
    path("test/fetch/", views.fetch),
    path("test/page/", views.page),
    path("test/history/", views.history),
    path("test/who/", views.who),
    path("test/session/", views.session),
    path("test/live/", include("tests.integration.sites.live")),
