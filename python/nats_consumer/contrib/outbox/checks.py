"""System checks of the outbox."""

from typing import Any

from django.core.checks import CheckMessage, register
from django.core.checks import Warning as CheckWarning

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError


@register("nats_consumer")
def check_relay(**_: Any) -> list[CheckMessage]:
    """W016: no worker relays."""
    try:
        relays = settings.outbox_relay()
    except ConfigurationError:
        return []  # E001 says so
    if relays:
        return []
    return [
        CheckWarning(
            'NATS_CONSUMER["outbox_relay"] is False, so workers publish no outbox messages.',
            hint="Run `manage.py nats_outbox relay`, and silence this warning.",
            id="nats_consumer.W016",
        )
    ]
