"""The URLs of the site that ``openapi.py`` asks."""

from django.urls import include, path

urlpatterns = [path("api/", include("wsloop.http_api.urls"))]
