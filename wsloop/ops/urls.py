"""The URLs of the page and of its actions, below the path that the site includes them at."""

from django.urls import path

from wsloop.ops import views

app_name = "wsloop-ops"
urlpatterns = [
    path("", views.page, name="page"),
    path("user/", views.user, name="user"),
    path("facility/", views.facility, name="facility"),
    path("message/", views.message, name="message"),
    path("disconnect/", views.disconnect, name="disconnect"),
]
