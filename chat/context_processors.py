"""What every template of the sample may show."""

from django.conf import settings

from chat import demo


def site(request):
    """Add ``DEMO_ACCOUNTS``: the accounts a visitor may try, none unless the setting ``DEMO`` is on; and ``DEBUG``."""
    return {"DEMO_ACCOUNTS": demo.ACCOUNTS if settings.DEMO else (), "DEBUG": settings.DEBUG}
