"""ws4redis's own publisher in a process of its own: any cron job, worker or other site that never heard of wsloop.

Settings come as JSON in the first argument, orders as JSON lines on standard input; each is answered by one line.
"""

import json
import sys

sys.modules["wsloop"] = None  # importing it is an error here, wherever it may be installed

import django  # noqa: E402
from django.conf import settings  # noqa: E402

settings.configure(**json.loads(sys.argv[1]))
django.setup()

from ws4redis.publisher import RedisPublisher  # noqa: E402
from ws4redis.redis_store import RedisMessage  # noqa: E402

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    publisher = RedisPublisher(facility=order["facility"], **order["audience"])
    for message in order["messages"]:
        publisher.publish_message(RedisMessage(message), **order["options"])
    print("published", flush=True)
