import datetime
import json

from channels.exceptions import DenyConnection
from channels.generic.websocket import JsonWebsocketConsumer
from django.core.serializers.json import DjangoJSONEncoder


class AnswersConsumer(JsonWebsocketConsumer):
    def connect(self):
        if b"nobody=1" in self.scope["query_string"]:
            raise DenyConnection()
        self.user = self.scope["user"]
        self.accept(self.scope["subprotocols"][0] if self.scope["subprotocols"] else None)
        self.send_json({"type": "welcome", "name": str(self.user)})

    def receive_json(self, content, **kwargs):
        command = content.get("command", None)
        if command == "today":
            self.send_json({"today": datetime.date(2026, 1, 31)})
        elif command == "add":
            self.send_json({"sum": sum(content["numbers"])})
        elif command == "leave":
            self.send_json({"bye": True}, close=True)
        else:
            self.send_json({"error": "unknown command"})

    @classmethod
    def encode_json(cls, content):
        return json.dumps(content, cls=DjangoJSONEncoder)
