import json
from random import randint
from time import sleep

from channels.generic.websocket import WebsocketConsumer


class NumbersConsumer(WebsocketConsumer):
    def connect(self):
        self.accept()
        while True:
            self.send(json.dumps({"message": randint(1, 100)}))
            sleep(1)


class CountdownConsumer(WebsocketConsumer):
    def connect(self):
        self.accept()

        for i in range(3, 0, -1):
            self.send(json.dumps({"value": i}))
            sleep(0.1)

        self.close(code=4123)
