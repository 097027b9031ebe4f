"""Settings that a test gives through the environment: where the servers are, and the database."""

import json
import os

SECRET_KEY = "of no use outside the tests"
USE_TZ = True
INSTALLED_APPS = ["nats_consumer", "orders"]
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": json.loads(os.environ["FAULTS_DATABASE"])}
NATS_CONSUMER = {
    "connect_args": {
        "connect_timeout": 5,
        "reconnect_time_wait": 0.5,
        **json.loads(os.environ["FAULTS_CONNECT"]),
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
