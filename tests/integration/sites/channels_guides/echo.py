from channels.consumer import StopConsumer, SyncConsumer
from channels.generic.websocket import WebsocketConsumer


class EchoConsumer(WebsocketConsumer):
    def connect(self):
        self.accept()

    def disconnect(self, code):
        pass

    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data, bytes_data=bytes_data)


class LowEchoConsumer(SyncConsumer):
    def websocket_connect(self, event):
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, event):
        self.send({"type": "websocket.send", "text": event["text"]})
        if event["text"] == "bye":
            self.send({"type": "websocket.close", "code": 4000})

    def websocket_disconnect(self, event):
        raise StopConsumer()
