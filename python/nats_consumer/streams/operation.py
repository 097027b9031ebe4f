"""The base of all operations: setup() returns them, and Django migrations contain them."""
# ruff: noqa: ARG002 - the signatures are Django's

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from enum import Enum, StrEnum
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from django.db import router
from django.db.migrations.operations.base import Operation, OperationCategory

from nats_consumer.api.wire import Struct
from nats_consumer.client import get_nats_client
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.options import EMBEDDED
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.settings import DEFAULT_CONNECTION, is_test_run, migrates_streams_in_tests
from nats_consumer.validation import unknown_key

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor
    from django.db.migrations.state import ProjectState

    from nats_consumer.client import Client
    from nats_consumer.client.jetstream import JetStreamContext

logger = logging.getLogger("nats_consumer.server")

_Init = TypeVar("_Init", bound=Callable[..., None])


class StreamOperation(Operation):
    """One change to one stream or one of its consumers, safe to run again.

    In a migration it runs forwards as in setup(). Backwards, a creation is undone where nothing
    has used it yet; other changes cannot be undone. It has no SQL: sqlmigrate says so and runs
    nothing. Derive your own from it, with an apply().

    `using` is the alias of the connection to its server. None is "default" in a migration, and in
    setup() the connection of the consumer."""

    using: str | None = None

    reduces_to_sql = False
    reversible = False
    category = OperationCategory.ALTERATION

    # What Django keeps of the call that made the operation.
    _constructor_args: tuple[Sequence[Any], Mapping[str, Any]]

    async def apply(self, jetstream: "JetStreamContext") -> None:
        """Make the change over an open connection."""
        raise NotImplementedError(
            f"Write `async def apply(self, jetstream)` in {type(self).__name__}, or override "
            "execute(nats_client=None)."
        )

    @property
    def stream_name(self) -> str | None:
        """The stream whose configuration `after` tells; None if the operation cannot tell it, so a
        plan only says that it runs code."""
        return None

    def after(self, present: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The configuration that the operation leaves behind, as it goes over the wire, if it finds
        `present`. None is a stream that does not exist."""
        raise NotImplementedError(f"{self!r} has no plan. Override after().")

    async def undo(self, jetstream: "JetStreamContext") -> None:
        """Take the change back, where `reversible` says that it can be."""
        raise NotImplementedError(f"{self!r} cannot be undone.")

    async def execute(self, nats_client: "Client | None" = None) -> None:
        """Make the change, over `nats_client` or a connection of its own. Raises Unreachable,
        SubjectsOverlap and other StreamErrors."""
        if nats_client is not None:
            await self.apply(nats_client.jetstream())
            return
        async with await get_nats_client(using=self._connection) as own:
            await self.apply(own.jetstream())

    def state_forwards(self, app_label: str, state: "ProjectState") -> None:
        """Models stay as they are."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: "BaseDatabaseSchemaEditor",
        from_state: "ProjectState",
        to_state: "ProjectState",
    ) -> None:
        """Make the change, for databases that the app is migrated in. For a test database nothing
        is done, unless the server is embedded or NATS_CONSUMER["migrate_streams_in_tests"] is True:
        the stream is the real one."""
        if self._is_meant(schema_editor.connection, app_label):
            wait_for(self.execute())

    def database_backwards(
        self,
        app_label: str,
        schema_editor: "BaseDatabaseSchemaEditor",
        from_state: "ProjectState",
        to_state: "ProjectState",
    ) -> None:
        """Take the change back, as database_forwards makes it."""
        if self._is_meant(schema_editor.connection, app_label):
            wait_for(self._undo())

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """The class's name and its arguments as plain values, which a migration file can hold."""
        args, kwargs = self._constructor_args
        values = {name: _plain(value) for name, value in kwargs.items() if value is not None}
        return type(self).__name__, [_plain(value) for value in args], values

    def describe(self) -> str:
        """One line for `migrate --plan` and sqlmigrate."""
        return repr(self)

    @property
    def _connection(self) -> str:
        return self.using or DEFAULT_CONNECTION

    def _call(self, arguments: str) -> str:
        """The call that makes this operation."""
        using = f", using={self.using!r}" if self.using else ""
        return f"{type(self).__name__}({arguments}{using})"

    def _is_meant(self, connection: "BaseDatabaseWrapper", app_label: str) -> bool:
        if not router.allow_migrate(connection.alias, app_label):
            return False
        if not _is_for_tests(connection) or migrates_streams_in_tests():
            return True
        if connect_options(using=self._connection).servers == [EMBEDDED]:
            return True
        logger.info(
            "%r is left out: the database is a test database, and the stream is the real one.", self
        )
        return False

    async def _undo(self) -> None:
        async with await get_nats_client(using=self._connection) as client:
            await self.undo(client.jetstream())


def _is_for_tests(connection: "BaseDatabaseWrapper") -> bool:
    """Whether the database is there for tests."""
    # `manage.py testserver` sets up no test environment.
    if is_test_run() or sys.argv[1:2] == ["testserver"]:
        return True
    # So do some test runners. Their database is known by its name, unless the real one has the
    # same: on Oracle it always has, and with a TEST["NAME"] it may.
    settings = connection.settings_dict
    if connection.vendor == "oracle" or settings["TEST"]["NAME"]:
        return False
    creation: Any = connection.creation  # Its stubs lack the method.
    return bool(settings["NAME"] == creation._get_test_db_name())


def takes(*names: str, of: type[Struct]) -> Callable[[_Init], _Init]:
    """Decorates an __init__ that takes `**fields`: these names, and the fields of a struct. Django
    asks the signature for them when it writes a migration."""
    fields = (*names, *(each.name for each in fields_of(of)))
    parameters = [
        Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
        *(Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in fields),
    ]

    def decorate(init: _Init) -> _Init:
        init.__dict__["__signature__"] = Signature(parameters)
        return init

    return decorate


def check_fields(given: Mapping[str, Any], *, of: type[Struct], where: str) -> None:
    """Raises ConfigurationError for a field that the struct does not have, or a word that is none
    of those that the field takes."""
    known = tuple(each.name for each in fields_of(of))
    words_of = _words(of)
    for name, value in given.items():
        if name not in known:
            raise unknown_key(name, known, where, "field")
        words = words_of.get(name)
        if words and value is not None and value not in words:
            raise ConfigurationError(
                f"{name} of {where} must be one of {', '.join(map(repr, words))}, not {value!r}."
            )


def _words(of: type[Struct]) -> dict[str, list[str]]:
    """The values of each field that is an enum."""
    return {
        name: [member.value for member in kind]
        for name, hint in get_type_hints(of).items()
        for kind in get_args(hint)
        if isinstance(kind, type) and issubclass(kind, StrEnum)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Struct):
        value = {each.name: getattr(value, each.name) for each in fields_of(value)}
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
