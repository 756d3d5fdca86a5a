"""The views of ws4redis's example pages, and one page for its script without jQuery: see ``README.rst``."""

from csp.decorators import csp_exempt
from django.contrib.auth.models import Group, User
from django.http import HttpResponse
from django.template import engines
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.generic.base import TemplateView
from ws4redis.publisher import RedisPublisher
from ws4redis.redis_store import RedisMessage

BARE = """{% load static %}<!DOCTYPE html>
<title>Every option</title>
<script src="{% static "js/ws4redis.js" %}"></script>
<script>
  window.calls = [];
  const client = WS4Redis({
    uri: "{{ WEBSOCKET_URI }}{{ request.GET.facility }}?subscribe-broadcast&publish-broadcast&echo",
    heartbeat_msg: {{ WS4REDIS_HEARTBEAT }},
    connecting: () => calls.push(["connecting"]),
    connected: () => calls.push(["connected"]),
    receive_message: (message) => calls.push(["receive_message", message]),
    disconnected: (event) => calls.push(["disconnected", event.code]),
  });
  calls.push(["state", client.get_state(), client.is_connecting()]);
</script>
"""


class BroadcastChatView(TemplateView):
    template_name = "broadcast_chat.html"

    def get(self, request, *args, **kwargs):
        RedisPublisher(facility="foobar", broadcast=True).publish_message(RedisMessage("Hello everybody"))
        return super().get(request, *args, **kwargs)


class UserChatView(TemplateView):
    template_name = "user_chat.html"

    def get_context_data(self, **kwargs):
        return super().get_context_data(**kwargs, users=User.objects.all())

    def post(self, request, *args, **kwargs):
        publisher = RedisPublisher(facility="foobar", users=[request.POST.get("user")])
        publisher.publish_message(RedisMessage(request.POST.get("message")))
        return HttpResponse("OK")


class GroupChatView(TemplateView):
    template_name = "group_chat.html"

    def get_context_data(self, **kwargs):
        return super().get_context_data(**kwargs, groups=Group.objects.all())

    def post(self, request, *args, **kwargs):
        publisher = RedisPublisher(facility="foobar", groups=[request.POST.get("group")])
        publisher.publish_message(RedisMessage(request.POST.get("message")))
        return HttpResponse("OK")


@csp_exempt()  # the pages have their scripts in them
def bare(request):
    return HttpResponse(engines["django"].from_string(BARE).render(request=request))


def page(view):
    return csp_exempt()(csrf_exempt(view.as_view()))


urlpatterns = [
    path("chat/", page(BroadcastChatView), name="broadcast_chat"),
    path("userchat/", page(UserChatView), name="user_chat"),
    path("groupchat/", page(GroupChatView), name="group_chat"),
    path("bare/", bare),
]
