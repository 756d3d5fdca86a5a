"""The table of the outbox."""

from django.core.management import call_command

from wsloop.outbox.models import Message


def test_migrations_are_those_of_the_models():
    call_command("makemigrations", "wsloop_outbox", check=True, dry_run=True, verbosity=0)


def test_a_row_shows_no_channel_for_it_may_have_the_key_of_a_session():
    row = Message(id=7, channels=["session:secret:news"], payload=b"secret", expire=0, facility="news", key="secret")
    assert str(row) == "message 7 to news"
    assert "secret" not in repr(row)
