"""Database connections that no request of Django gives back."""

import asyncio
import threading

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.db import connections, transaction

from wsloop.aio import travel
from wsloop.db import DatabaseSyncToAsync, aclose_old_connections, close_databases, database_sync_to_async


@pytest.fixture
def used():
    """The connections that a query has used, each with the thread: ``used`` is filled by :func:`count`."""
    return []


@pytest.fixture
def count(database, used):
    travel.install()  # as in a worker: otherwise the greenlets of one thread all see the loop that runs in one of them

    def count():
        found = User.objects.count()
        used.append((connections["default"], threading.current_thread()))
        return found

    return count


def test_a_connection_is_given_back_where_the_code_has_run(count, used):
    async def main():
        return await database_sync_to_async(count)(), threading.current_thread()

    found, here = asyncio.run(main())
    ((connection, there),) = used
    assert found == 0
    assert there is not here
    assert connection.connection is None


def test_it_is_given_back_after_an_error_too(count, used):
    @database_sync_to_async
    def fail():
        count()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert used[0][0].connection is None


def test_it_is_what_channels_has():
    assert database_sync_to_async is DatabaseSyncToAsync
    assert iscoroutinefunction(database_sync_to_async(len))

    class Holder:
        @database_sync_to_async
        def method(self, number):
            return number + 1

    assert asyncio.run(Holder().method(1)) == 2


def test_what_sync_to_async_has_left_open_can_be_given_back(count, used):
    async def main():
        await sync_to_async(count)()
        await aclose_old_connections()

    asyncio.run(main())
    assert used[0][0].connection is None


def test_a_transaction_is_not_cut_in_half(database):
    with transaction.atomic():
        User.objects.create(username="john")
        close_databases()
        assert User.objects.count() == 1
