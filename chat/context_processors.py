"""Variables for all templates of the sample."""

from django.conf import settings

from chat import demo, navigation


def site(request):
    """Add variables.

    - ``DEBUG``;
    - ``DEMO_ACCOUNTS``: the accounts a visitor may try, empty unless the setting ``DEMO`` is on;
    - ``NAVIGATION``: the groups of pages.
    """
    return {
        "DEMO_ACCOUNTS": demo.ACCOUNTS if settings.DEMO else (),
        "DEBUG": settings.DEBUG,
        "NAVIGATION": navigation.GROUPS,
    }
