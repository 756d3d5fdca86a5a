from django.urls import path, re_path

from . import chat, echo, random_numbers, sign_in, teams

websocket_urlpatterns = [
    path("sync/numbers/", random_numbers.NumbersConsumer.as_asgi()),
    path("async/numbers/", random_numbers.AsyncNumbersConsumer.as_asgi()),
    path("sync/echo/", echo.EchoConsumer.as_asgi()),
    path("async/echo/", echo.AsyncEchoConsumer.as_asgi()),
    path("sync/sum/", echo.SumConsumer.as_asgi()),
    path("async/sum/", echo.AsyncSumConsumer.as_asgi()),
    re_path(r"^sync/chat/(?P<room_name>\w+)/$", chat.ChatConsumer.as_asgi()),
    re_path(r"^async/chat/(?P<room_name>\w+)/$", chat.AsyncChatConsumer.as_asgi()),
    path("sync/team/", teams.TeamConsumer.as_asgi()),
    path("async/team/", teams.AsyncTeamConsumer.as_asgi()),
    path("sync/sign-in/", sign_in.SignInConsumer.as_asgi()),
    path("async/sign-in/", sign_in.AsyncSignInConsumer.as_asgi()),
]
