from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse


def announce(request, room_name):
    event = {"type": "chat.message", "message": request.GET["text"]}
    async_to_sync(get_channel_layer().group_send)(f"room_{room_name}", event)
    return HttpResponse("announced")


async def announce_async(request, room_name):
    event = {"type": "chat.message", "message": request.GET["text"]}
    await get_channel_layer().group_send(f"room_{room_name}", event)
    return HttpResponse("announced")
