"""Publishes as a site does: for each line ``FACILITY EXPIRE COUNT`` of standard input so many messages, then a line.

A program of its own, because it needs Django and the settings of the measured site.
"""

import os
import sys

import django

from bench.clients import messages

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")
    django.setup()
    from wsloop.publisher import RedisPublisher

    for line in sys.stdin:
        facility, expire, count = line.split()
        with RedisPublisher(facility=facility, broadcast=True) as publisher:
            for message in messages(int(count)):
                publisher.publish_message(message, expire=int(expire))
        print("published", flush=True)
