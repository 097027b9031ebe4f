"""The structs of `nats_consumer.api`, where nats-py has them."""

from nats_consumer.api import *  # noqa: F403 - all of it
