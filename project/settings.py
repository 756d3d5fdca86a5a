"""Settings of the sample site. Those that differ between machines come from the environment.

These are ``DJANGO_SECRET_KEY``, ``DJANGO_DEBUG``, ``DJANGO_ALLOWED_HOSTS``, ``DATABASE_URL``, ``REDIS_URL`` and
``DEMO``. Without any of them there is no secret key, and ``project.startup`` refuses to start the site. Other settings
modules may begin with ``from project.settings import *``.
"""

import os
import tempfile
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key
from redis.connection import parse_url

from project import embedded_redis

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"  # all files that the site writes: database, secret key, embedded Redis, static files


def _on(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}


def _generated_secret_key(path: Path) -> str:
    """Return the key in ``path``; the first time, create it there, readable by this user alone."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
            with open(descriptor, "w") as file:
                file.write(get_random_secret_key())
            try:
                os.link(draft, path)  # complete or not at all, and the first of several processes wins
            except FileExistsError:
                pass
            finally:
                os.unlink(draft)
        return path.read_text()
    except OSError as exc:
        raise ImproperlyConfigured(f"Cannot store the secret key in {path}: {exc.strerror}") from exc


def _database(url: str) -> dict[str, object]:
    try:
        return dict(dj_database_url.parse(url))
    except ValueError as exc:
        # Without the URL and the text of the error: both may contain the password.
        raise ImproperlyConfigured(
            "DATABASE_URL is not the URL of a database; write postgres://user:password@host/name or sqlite:////path"
        ) from exc


def _redis(url: str) -> str:
    try:
        parse_url(url)
    except ValueError as exc:
        raise ImproperlyConfigured(
            "REDIS_URL is not the URL of a Redis; write redis://host:port/db, rediss://… (TLS) or unix:///path?db=0"
        ) from exc
    return url


DEBUG = _on("DJANGO_DEBUG")
DEMO = _on("DEMO")
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "")
if not SECRET_KEY and (DEMO or DEBUG):
    SECRET_KEY = _generated_secret_key(VAR_DIR / "secret_key")
_hosts = os.environ.get("DJANGO_ALLOWED_HOSTS") or "localhost,127.0.0.1,[::1]"
ALLOWED_HOSTS = [host.strip() for host in _hosts.split(",") if host.strip()]

INSTALLED_APPS = [
    "wsloop",  # before staticfiles: its runserver serves WebSockets too
    "ws4redis",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "chat",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "ws4redis.context_processors.default",  # WEBSOCKET_URI; and WS4REDIS_HEARTBEAT, the option HEARTBEAT
                "chat.context_processors.site",  # DEMO_ACCOUNTS, DEBUG, NAVIGATION
            ],
        },
    },
]

if os.environ.get("DATABASE_URL"):
    DATABASES = {"default": _database(os.environ["DATABASE_URL"])}
else:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": VAR_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en"

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "project.storage.StaticFilesStorage"},
}
# In a checkout where collectstatic was never run, files are served from their sources.
WHITENOISE_USE_FINDERS = DEBUG or not (STATIC_ROOT / "staticfiles.json").exists()

# Only content of this site: no other host, no inline script or style. "self" includes WebSockets of the same host.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "base-uri": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "object-src": ["'none'"],
    }
}

# Warnings and errors go to standard error, also without DEBUG (Django's default mails them to ADMINS, which is empty).
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "filters": {"redact": {"()": "wsloop.redaction.RedactTokens"}},  # also if a library logs a URL or a channel
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["redact"]}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {"django": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}

# A POST of a page that Django takes for another site is refused with a reason, also to scripts.
CSRF_FAILURE_VIEW = "chat.frontend.csrf_failure"
# Where the development server of frontend/ listens. Pages that come through its proxy are of this site, even if it
# replaces the Host (changeOrigin).
DEVELOPMENT_ORIGINS = [f"http://{host}:{port}" for host in ("localhost", "127.0.0.1") for port in range(5173, 5178)]
CSRF_TRUSTED_ORIGINS = DEVELOPMENT_ORIGINS if DEBUG else []

if os.environ.get("REDIS_URL"):
    _redis_at: str | dict[str, str] = _redis(os.environ["REDIS_URL"])
else:
    _redis_at = {"unix_socket_path": str(embedded_redis.socket_path(VAR_DIR))}
WSLOOP: dict[str, object] = {
    "REDIS": _redis_at,
    "PREFIX": "ws",
    "HEARTBEAT": "--heartbeat--",
    "POLICY": "chat.policy.allowed_channels",
    # The pages have histories of an hour: a page that was offline recovers missed messages. Chat rooms store their
    # messages in the database, and have presence.
    "FACILITIES": {
        **{name: {"size": 100} for name in ("home", "form", "news", "inbox", "tasks")},
        "rooms/*": {"presence": True},
        "react": {"presence": True},
    },
    "ALLOWED_ORIGINS": DEVELOPMENT_ORIGINS if DEBUG else [],
}
