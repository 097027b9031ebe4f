"""The AsyncAPI document of a project: its consumers, handlers and events."""

import re
from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any

from django.apps import apps

from nats_consumer.connect.args import connect_options
from nats_consumer.connect.options import EMBEDDED
from nats_consumer.connect.secret import Address
from nats_consumer.declare import registry
from nats_consumer.declare.arguments import Plan, plan_of
from nats_consumer.declare.batches import plan_of_handler
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.filters import filter_texts
from nats_consumer.declare.handler import made_handlers, method_subjects
from nats_consumer.declare.options import consumer_options
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.payloads.decode import JSON, MSGPACK
from nats_consumer.payloads.event import Event, events, subject_text
from nats_consumer.payloads.schema import SameName, schema_of
from nats_consumer.settings import DEFAULT_CONNECTION, connections
from nats_consumer.templates import pattern_of

VERSION = "3.0.0"


def document(title: str, version: str) -> dict[str, Any]:
    """The document, in the form of AsyncAPI 3.0.0. `title` and `version` are the application's.
    Raises ConfigurationError."""
    built = _Document()
    for each in events():
        if apps.get_containing_app_config(each.kind.__module__):
            built.add_event(each)
    for consumer in registry.consumers():
        built.add_consumer(consumer)
    for handler in made_handlers():
        for name, texts in method_subjects(handler).items():
            operation = f"{type(handler).__name__}.{name}"
            built.add_receiving(operation, texts, plan_of(handler, name, texts), {})
    return {
        "asyncapi": VERSION,
        "info": {"title": title, "version": version},
        "defaultContentType": JSON,
        "servers": dict(_servers()),
        "channels": built.channels,
        "operations": built.operations,
        "components": {"messages": built.messages, "schemas": built.schemas},
    }


class _Document:
    """A document that grows."""

    def __init__(self) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.messages: dict[str, Any] = {}
        self.schemas: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._types: dict[str, Any] = {}

    def add_event(self, event: Event) -> None:
        """Add the sending of an event."""
        channel = self._channel(event.subject)
        described = event.description or _described(event.kind)
        message = self._message(channel, event.kind, described)
        self.messages[message] |= {"contentType": _CONTENT_TYPES[event.encoding]}
        self.operations[f"send.{message}"] = {
            "action": "send",
            "channel": _ref("channels", channel),
            "messages": [_ref("channels", channel, "messages", message)],
            "x-nats-consumer": {"version": event.version},
        }

    def add_consumer(self, consumer: type[Declaration]) -> None:
        """Add the receiving of a consumer."""
        options = consumer_options(consumer)
        # The durable of an ephemeral consumer has another name in each process.
        durable = "*" if options.ephemeral else options.durable
        extension = {
            "stream": options.stream,
            "durable": durable,
            "kind": options.kind,
            **_connection(options.connection),
            "attempts": options.max_attempts,
            "deadLetters": f"dlq.{options.stream}.{durable}",
        }
        described = {"description": text} if (text := _described(consumer)) else {}
        more = {**described, "x-nats-consumer": extension}
        plan = plan_of_handler(consumer)
        self.add_receiving(consumer.__name__, filter_texts(consumer), plan, more)

    def add_receiving(
        self, name: str, texts: Sequence[Any], plan: Plan | None, more: dict[str, Any]
    ) -> None:
        """Add an operation for each of the subjects."""
        for text in texts:
            channel = self._channel(subject_text(text))
            operation = {"action": "receive", "channel": _ref("channels", channel), **more}
            if plan is not None and plan.payload is not None:
                message = self._message(channel, plan.payload, _described(plan.payload))
                operation["messages"] = [_ref("channels", channel, "messages", message)]
            self.operations[name if len(texts) == 1 else f"{name}.{channel}"] = operation

    def _channel(self, text: str) -> str:
        """The key of the channel; one for all subjects with the same wildcards."""
        pattern = pattern_of(text)
        if pattern not in self._keys:
            address = ".".join(_address(text))
            key = address.replace("{", "").replace("}", "")
            self._keys[pattern] = key
            self.channels[key] = {"address": address, "messages": {}}
            if names := re.findall(r"{(\w+)}", address):
                self.channels[key]["parameters"] = {name: {} for name in names}
        return self._keys[pattern]

    def _message(self, channel: str, kind: Any, description: str | None) -> str:
        """The key of the message with this payload, which is one of the channel."""
        name = _name(kind)
        if self._types.setdefault(name, kind) != kind:
            raise _same_name(name)
        if name not in self.messages:
            self.messages[name] = self._new_message(name, kind, description)
        self.channels[channel]["messages"][name] = _ref("components", "messages", name)
        return name

    def _new_message(self, name: str, kind: Any, description: str | None) -> dict[str, Any]:
        message: dict[str, Any] = {"name": name}
        if description:
            message["description"] = description
        try:
            schema = schema_of(kind, self.schemas)
        except SameName as error:
            raise _same_name(str(error)) from error
        if schema is not None:
            message["payload"] = schema
        return message


_CONTENT_TYPES = {"json": JSON, "msgpack": MSGPACK}


def _same_name(name: str) -> ConfigurationError:
    return ConfigurationError(f"Two payload types are called {name}. Rename one.")


def _ref(*steps: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(steps)}


def _address(text: str) -> Iterator[str]:
    """The tokens of the subject; a wildcard is a parameter here."""
    for place, token in enumerate(text.split("."), 1):
        if token == "*":  # noqa: S105 - of a subject
            yield f"{{token{place}}}"
        elif token == ">":  # noqa: S105
            yield "{rest}"
        else:
            yield token


def _name(kind: Any) -> str:
    name = getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind)
    return re.sub(r"\W+", "_", name).strip("_")


def _described(kind: Any) -> str | None:
    """The docstring of a class, without those that libraries write."""
    own = vars(kind).get("__doc__") if isinstance(kind, type) else None
    if not own or kind.__module__ == "builtins" or own.startswith(f"{kind.__name__}("):
        return None
    return getdoc(kind)


def _connection(using: str) -> dict[str, str]:
    """The connection of a consumer; nothing if it is "default"."""
    return {} if using == DEFAULT_CONNECTION else {"connection": using}


def _servers() -> Iterator[tuple[str, dict[str, str]]]:
    for using in connections():
        name = "server" if using == DEFAULT_CONNECTION else using
        servers = connect_options(using=using).servers
        addresses = [] if EMBEDDED in servers else servers
        for number, server in enumerate(addresses, 1):
            scheme, _, host = Address(server).without_credentials().partition("://")
            yield f"{name}{number}", {"host": host, "protocol": scheme}
