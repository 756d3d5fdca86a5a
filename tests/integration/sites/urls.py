from django.urls import include, path

from tests.integration.sites import views

urlpatterns = [
    path("test/whoami/", views.whoami),
    path("test/metrics/", views.metrics),
    path("test/publish/", views.publish),
    path("test/fetch/", views.fetch),
    path("test/page/", views.page),
    path("test/history/", views.history),
    path("test/session/", views.session),
    path("", include("project.urls")),
]
