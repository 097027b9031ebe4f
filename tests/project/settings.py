"""A small Django project for the tests. What differs from test to test is in the environment."""

import os
import tempfile
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "of no use outside the tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "nats_consumer",
    "nats_consumer.contrib.outbox",
    # One app of each spelling: a package, and the path of a configuration.
    "tests.project.orders",
    "tests.project.billing.apps.BillingConfig",
]
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
