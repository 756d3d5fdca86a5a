"""Variables for all templates of the sample."""

from django.conf import settings

from chat import demo


def site(request):
    """Add ``DEBUG``, and ``DEMO_ACCOUNTS``: the accounts a visitor may try, empty unless the setting ``DEMO`` is on."""
    return {"DEMO_ACCOUNTS": demo.ACCOUNTS if settings.DEMO else (), "DEBUG": settings.DEBUG}
