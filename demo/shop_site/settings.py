"""Settings of the shop: SQLite, and a NATS server of its own."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "nothing in the demo is secret"  # noqa: S105
DEBUG = False
TIME_ZONE = "UTC"
USE_TZ = True

INSTALLED_APPS = [
    "nats_consumer",
    "nats_consumer.contrib.inbox",
    "nats_consumer.contrib.outbox",
    "shop",
]

NATS_CONSUMER = {
    "connect_args": {
        # A private nats-server under demo/.nats, started by the first process that connects and
        # ended with the last. In production: ["nats://nats-1:4222", "nats://nats-2:4222", ...].
        "servers": "embedded",
        "name": "shop",
    },
}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "shop.sqlite3",
        "OPTIONS": {
            # What SQLite needs where several threads and processes write: take the write lock at
            # the start of a transaction, wait for it, and let readers go on meanwhile.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
