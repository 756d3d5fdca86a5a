"""A process of a site that publishes numbered messages at a steady pace, and tries each again until Redis has taken it.

The first argument is a JSON object: ``streams``, names to the keyword arguments of their ``RedisPublisher``; ``rate``,
messages a second in all; ``size``, bytes to which messages are filled up. Message 17 of the stream ``b`` is ``b:17``,
published with a key of its own, so that a second try does nothing if Redis had taken the first. ``b 17 TIME`` on
standard output says that it has, and when the first try began on the monotonic clock; ``! b 17 …`` why a try has
failed. It ends when standard input does.
"""

import json
import sys
import threading
import time

import django

django.setup()

from redis.exceptions import RedisError  # noqa: E402

from wsloop.publisher import RedisPublisher  # noqa: E402

PAUSE = 0.1  # seconds between two tries


def publish(publisher, name, number, size):
    text, began = f"{name}:{number}:", time.monotonic()
    while True:
        try:
            publisher.publish_message(text.ljust(size, "."), key=f"{name}-{number}")
        except (RedisError, OSError) as failure:
            words = " ".join(str(failure).split())
            print(f"! {name} {number} {type(failure).__name__}: {words}", flush=True)
            time.sleep(PAUSE)
        else:
            print(name, number, began, flush=True)
            return


def main(order):
    ended = threading.Event()

    def wait_for_the_end():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    publishers = [(name, RedisPublisher(**arguments)) for name, arguments in order["streams"].items()]
    interval = len(publishers) / order["rate"]
    number, due = 0, time.monotonic()
    while not ended.is_set():
        number += 1
        for name, publisher in publishers:
            publish(publisher, name, number, order["size"])
        due = max(due + interval, time.monotonic() - interval)  # what an outage has held up is not hurried
        ended.wait(max(due - time.monotonic(), 0))


main(json.loads(sys.argv[1]))
