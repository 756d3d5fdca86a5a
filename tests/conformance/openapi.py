"""Asks the server API what schemathesis makes of its description, in a process of its own: ``openapi.py REDIS_URL``.

Of each operation it sends requests as the description has them, and others that are not. Each answer must be one that
the description has; a request that is not as described must be refused; no answer may be an error of the server.
"""

import sys

from django.conf import settings

TOKEN = "T" * 32
EXAMPLES = 12  # for each operation and mode

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="only-for-this-test",
    ROOT_URLCONF="tests.conformance.openapi_urls",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "wsloop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    WS4REDIS_CONNECTION=sys.argv[1],
    WS4REDIS_PREFIX="openapi",
    WSLOOP={
        "API_KEYS": {"test": {"token": TOKEN, "may": ["publish", "read", "disconnect"]}},
        "FACILITIES": {"*": {"size": 3}},
        "RATE_LIMIT": None,
        "MAX_QUEUED_BYTES": 64 * 1024 * 1024,  # to schemathesis 413 is no refusal
    },
    LOGGING_CONFIG=None,
    USE_TZ=True,
)

import django  # noqa: E402

django.setup()

import schemathesis  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from hypothesis import HealthCheck, Phase, given  # noqa: E402
from hypothesis import settings as how  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

CHECKS = [
    not_a_server_error,
    checks.content_type_conformance,
    checks.ignored_auth,
    checks.negative_data_rejection,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
    checks.unsupported_method,
]

call_command("migrate", verbosity=0)
headers = {"Authorization": f"Bearer {TOKEN}"}
schema = schemathesis.openapi.from_wsgi("/api/openapi.json", get_wsgi_application(), headers=headers)
schema.config.update(base_url="http://localhost/api")
bounded = how(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def try_out(operation, mode):
    """Ask one operation, and return the statuses of the answers."""
    statuses = set()

    @bounded
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        statuses.add(case.call_and_validate(headers=headers, checks=CHECKS).status_code)

    ask()
    return statuses


for result in schema.get_all_operations():  # all but that of the description itself
    operation = result.ok()
    for mode in GenerationMode:
        print(f"{operation.path} {mode.value}:", *sorted(try_out(operation, mode)))
