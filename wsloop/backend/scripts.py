"""Runs the Lua scripts of this package, on one server or a Redis Cluster.

This module must not know the meaning of the scripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis, RedisCluster
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError

# Redis before 7 names the line twice, and sends the code of the inner error, such as OOM, as a part of the text.
SCRIPT_ERROR = re.compile(
    r"^Error running script \(call to \w+\): @user_script:\s*\d+: (@user_script:\s*\d+: )?-?(?=\S)|^user_script:\d+: "
)
CODES = {"OOM": OutOfMemoryError, "READONLY": ReadOnlyError}
SCRIPTS = {  # by name: SHA-1, which identifies the script to Redis, and text
    path.stem: (hashlib.sha1(path.read_bytes()).hexdigest(), path.read_text())
    for path in (Path(__file__).parent / "lua").glob("*.lua")
}
Call = tuple[str, list[Any], list[Any]]  # name of a script, keys, arguments


def call(client: Redis, calls: Sequence[Call], transaction: bool) -> list[Any]:
    """Call scripts of this package, in one round trip, and return their answers.

    Args:
        client: of Redis.
        calls: names of scripts, with their keys and arguments.
        transaction: whether no other command may be executed in between.

    Raises:
        redis.exceptions.RedisError: with the words of Redis and nothing else: redis-py puts the whole command into the
            text, with the payload, and channels whose names may contain the key of a session, which would then be in
            every log and report of the error.
    """
    if is_cluster(client):
        return [_call_one(client, each) for each in calls]
    commands = [("EVALSHA", SCRIPTS[name][0], keys, given) for name, keys, given in calls]
    answers = _pipeline(client, commands, transaction)
    missing = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missing:  # Redis has been started since; EVAL loads them
        again = [("EVAL", SCRIPTS[calls[number][0]][1], *calls[number][1:]) for number in missing]
        for number, answer in zip(missing, _pipeline(client, again, transaction), strict=True):
            answers[number] = answer
    for answer in answers:
        if isinstance(answer, RedisError):
            raise _plain(answer)
    return answers


def _pipeline(client: Redis, commands: Iterable[tuple[str, Any, list[Any], list[Any]]], transaction: bool) -> list[Any]:
    pipeline = client.pipeline(transaction=transaction)
    for name, script, keys, arguments in commands:
        pipeline.execute_command(name, script, len(keys), *keys, *arguments)
    try:
        return pipeline.execute(raise_on_error=False)
    except RedisError as exc:
        raise _plain(exc) from None


def _call_one(client: Redis, one: Call) -> Any:
    name, keys, arguments = one
    sha, text = SCRIPTS[name]
    try:
        try:
            return client.evalsha(sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(text, len(keys), *keys, *arguments)
    except RedisError as exc:
        raise _plain(exc) from None


def _plain(exc: RedisError) -> RedisError:
    """Return the error with the words of Redis alone, and of those only the part that a person can act on."""
    words = str(exc).rpartition(" of pipeline caused error: ")[2]
    # Redis itself quotes the arguments of commands that are unknown or renamed.
    words = words.partition(", with args beginning with")[0]
    # An error inside a script: the line of the script means nothing to a publisher.
    words = SCRIPT_ERROR.sub("", words.partition(" script: ")[0])
    code, _, rest = words.partition(" ")
    if code in CODES:
        return CODES[code](rest)
    exc.args = (words, *exc.args[1:])
    return exc


def is_cluster(client: Any) -> bool:
    """Return whether a client is of a Redis Cluster, where commands with several keys must be sent one by one.

    Asked for each call instead of once: sites pass clients of their own (subclasses of ws4redis's classes), and the two
    forms of a command are short enough to stand side by side.
    """
    return isinstance(client, RedisCluster)
