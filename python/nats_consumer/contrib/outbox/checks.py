"""System checks of the outbox."""

from typing import Any

from django.core.checks import CheckMessage, register
from django.core.checks import Warning as CheckWarning

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError


@register("nats_consumer")
def check_relay(**_: Any) -> list[CheckMessage]:
    """W016: no worker relays. Whether a process of its own does, only the database can tell, which
    `nats_status` asks."""
    try:
        relays = settings.outbox_relay()
    except ConfigurationError:
        return []  # E001 says so
    if relays:
        return []
    return [
        CheckWarning(
            'NATS_CONSUMER["outbox_relay"] is False, so workers publish no outbox messages. '
            "Without a process that runs `manage.py nats_outbox relay`, they wait. This check "
            "cannot see such a process; `manage.py nats_status` shows it.",
            hint="If you run one, add 'nats_consumer.W016' to SILENCED_SYSTEM_CHECKS. Otherwise "
            "run one, or remove the setting.",
            id="nats_consumer.W016",
        )
    ]
