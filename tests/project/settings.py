"""A small Django project for the tests. What differs from test to test is in the environment."""

import os
import tempfile
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "of no use outside the tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.project.urls"
STATIC_URL = "/static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "nats_consumer",
    "nats_consumer.contrib.admin",
    "nats_consumer.contrib.outbox",
    "nats_consumer.contrib.inbox",
    # One app of each spelling: a package, and the path of a configuration.
    "tests.project.orders",
    "tests.project.billing.apps.BillingConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "tests.project.urls.content_security_policy",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", ":memory:"),
        # A file, because every thread has an in-memory database of its own and never closes it.
        "TEST": {"NAME": Path(tempfile.gettempdir(), f"nats_consumer_{os.getpid()}.sqlite3")},
    }
}
NATS_CONSUMER = {
    "connect_args": {
        "servers": os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
        "connect_timeout": 2,
    },
}
