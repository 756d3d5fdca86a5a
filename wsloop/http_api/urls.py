"""The URLs of the server API, for a site's ``urls.py``: ``path("api/", include("wsloop.http_api.urls"))``."""

from django.urls import path

from wsloop.http_api import views

app_name = "wsloop_api"
urlpatterns = [
    path("openapi.json", views.description, name="openapi"),
    *(path(name, views.operation, {"name": name}, name=name) for name in views.OPERATIONS),
]
