"""Django's way to keep passwords, without what makes it slow: no test is about that, and hundreds sign in."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class Quick(PBKDF2PasswordHasher):
    """Other sites can check what it makes; the number of iterations is a part of it."""

    iterations = 1000
