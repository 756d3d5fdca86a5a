from django.urls import path

from chat import frontend, inspector, tasks, views
from chat.rooms import views as room_views

urlpatterns = [
    path("", views.Home.as_view(), name="home"),
    path("demo/sign-in/", views.SignInAsVisitor.as_view(), name="demo-sign-in"),
    path("form/", views.Form.as_view(), name="form"),
    path("broadcast/", views.Broadcast.as_view(), name="broadcast"),
    path("user/", views.User.as_view(), name="user"),
    path("group/", views.Group.as_view(), name="group"),
    path("session/", views.Session.as_view(), name="session"),
    path("send/", views.Send.as_view(), name="send"),
    path("inbox/", views.Inbox.as_view(), name="inbox"),
    path("react/", frontend.React.as_view(), name="react"),
    path("tasks/", tasks.Tasks.as_view(), name="tasks"),
    path("inspector/", inspector.Inspector.as_view(), name="inspector"),
    path("echo/", views.Echo.as_view(), name="echo"),
    path("random/", views.Random.as_view(), name="random"),
    path("rooms/", room_views.Rooms.as_view(), name="rooms"),
    path("rooms/<slug:room>/", room_views.Room.as_view(), name="room"),
    path("rooms/<path:name>/", room_views.no_such_room),  # any other name: no room can have it
    path("favicon.ico", views.favicon),
]
