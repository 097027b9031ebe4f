"""The loggers are those of the page, wherever the code lies."""

import re

from nats_consumer.logs import FIELDS
from tests.docs.support.blocks import ROOT
from tests.docs.support.tables import first_spans

PACKAGE = ROOT / "python/nats_consumer"
_LOGGER = re.compile(r"getLogger\(([^)]*)\)")


def loggers() -> set[str]:
    """Return the names that the package passes to getLogger()."""
    return {
        name
        for path in PACKAGE.rglob("*.py")
        for name in _LOGGER.findall(path.read_text())
        if name != "name"  # a record of the engine brings its own
    }


def test_every_logger_of_the_package_is_on_the_page() -> None:
    named = {f'"{name}"' for name in first_spans("reference/logging.md", "Logging")}
    assert loggers() - {'"nats_consumer"'} <= named


def test_no_logger_is_named_after_its_file() -> None:
    assert "__name__" not in loggers()


def test_the_fields_of_records_are_those_of_the_page() -> None:
    assert tuple(first_spans("reference/logging.md", "Fields")) == FIELDS
