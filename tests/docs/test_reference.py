"""The reference pages say what the code says, and nothing else."""

import ast
import inspect
import re
import tomllib
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from pytest_django import Settings

from nats_consumer import (
    ErrorAckBehavior,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
    NatsConsumer,
    __version__,
    _native,
    errors,
    exceptions,
)
from nats_consumer import settings as ours
from nats_consumer.connect import args
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.js import errors as js_errors
from nats_consumer.run.report import _UNDECODABLE
from tests.docs.support.blocks import ROOT
from tests.docs.support.tables import first_spans, rows, section, spans

SETTINGS = "reference/settings.md"
ATTRIBUTES = "reference/consumer-attributes.md"
EXCEPTIONS = "reference/exceptions.md"
METRICS = "reference/metrics.md"


def written(row: list[str]) -> Any:
    """The default in the second cell of a row, which is Python."""
    [text] = spans(row[1])
    names = (ErrorAckBehavior, OperationalError, InterfaceError)
    return eval(text, {each.__name__: each for each in names})


def test_every_setting_is_on_its_page_with_its_default(settings: Settings) -> None:
    settings.NATS_CONSUMER = {}
    page = first_spans(SETTINGS, "NATS_CONSUMER")
    assert list(page) == list(ours.KEYS)
    assert f"`{ours._OLD_DURABLE_KEY}`" in section(SETTINGS, "NATS_CONSUMER")
    assert written(page["connect_args"]) == ours.connect_args()
    assert written(page["connections"]) == dict(ours._connections())
    assert written(page["default_durable_name"]) == ours.default_durable_name()
    assert written(page["manage_durables"]) == ours.manage_durables()
    assert written(page["event_loop_policy"]) == ours.event_loop_policy()
    assert written(page["shutdown_timeout"]) == ours.shutdown_timeout()
    assert written(page["http"]) == ours.http()
    assert written(page["ready_grace"]) == ours.ready_grace()
    assert written(page["workers"]) == ours.workers()
    assert written(page["max_messages"]) == ours.max_messages()
    assert written(page["max_messages_jitter"]) == ours.max_messages_jitter()
    assert written(page["max_rss"]) == ours.max_rss()
    assert written(page["worker_start_timeout"]) == ours.worker_start_timeout()
    assert written(page["hung_after"]) == ours.hung_after()
    assert written(page["middleware"]) == ours.middleware()
    assert written(page["publish_middleware"]) == ours.publish_middleware()
    assert ours.embedded_store() == settings.BASE_DIR / ".nats"


def test_every_connect_arg_is_on_its_page() -> None:
    assert set(first_spans(SETTINGS, "connect_args")) == set(args._TRANSLATIONS)
    without_effect = set(spans(section(SETTINGS, "Accepted, without effect")))
    assert without_effect == set(args._IGNORED)
    callbacks = {name for name in spans(section(SETTINGS, "Callbacks")) if name.endswith("_cb")}
    assert callbacks == set(args._CALLBACKS)


def test_what_is_refused_is_on_its_page_with_what_to_use() -> None:
    page = first_spans(SETTINGS, "Refused, with what to use instead")
    assert {key: row[1] for key, row in page.items()} == args._UNSUPPORTED


def test_the_defaults_of_connect_args_are_those_of_the_code(settings: Settings) -> None:
    settings.NATS_CONSUMER = {}
    options = args.connect_options()
    engines_names = {
        "user_credentials": "credentials",
        "nkeys_seed": "nkey_seed",
        "nkeys_seed_str": "nkey_seed",
        "tls": "tls_required",
        "jetstream_domain": "api_prefix",
        "jetstream_api_prefix": "api_prefix",
    }
    for key, row in first_spans(SETTINGS, "connect_args").items():
        found = getattr(options, engines_names.get(key, key))
        assert found == ([written(row)] if key == "servers" else written(row)), key


def attributes_of_the_code() -> dict[str, Any]:
    annotated = inspect.get_annotations(NatsConsumer)
    public = [name for name in annotated if not name.startswith("_") and name != "kind"]
    return {name: vars(NatsConsumer)[name] for name in public}


def test_every_consumer_attribute_is_on_its_page_with_its_default() -> None:
    page: dict[str, list[str]] = {}
    for heading in ("What to consume", "Failures", "Concurrency", "Batches"):
        page |= first_spans(ATTRIBUTES, heading)
    assert {name: written(row) for name, row in page.items()} == attributes_of_the_code()


def test_push_and_pull_add_no_attribute_of_their_own() -> None:
    for each in (JetstreamPushConsumer, JetstreamPullConsumer):
        assert [name for name in vars(each) if not name.startswith("_")] == ["kind"]


def test_every_method_and_property_is_on_its_page() -> None:
    page = {
        name.partition("(")[0]
        for heading in ("Properties and methods", "Running without the command")
        for name in first_spans(ATTRIBUTES, heading)
    }
    public = {name for name in vars(NatsConsumer) if not name.startswith("_")}
    assert page == public - set(attributes_of_the_code())


def test_every_metric_is_on_its_page_with_kind_labels_and_meaning() -> None:
    page = {
        name: (row[1], spans(row[2]), row[3])
        for heading in ("Consumers", "Lag", "Outbox", "Publishing", "The process", "Workers")
        for name, row in first_spans(METRICS, heading).items()
    }
    assert page == {
        name: (kind, list(labels), meaning)
        for name, kind, labels, meaning in _native.metric_families()
    }


def test_every_metric_that_a_page_names_exists() -> None:
    names = {name for name, *_ in _native.metric_families()}
    names |= {f"{name}{suffix}" for name in names for suffix in ("_bucket", "_sum", "_count")}
    for page in ("guides/monitoring.md", "guides/workers.md", METRICS):
        text = (ROOT / "docs" / page).read_text()
        assert set(re.findall(r"\bnats_consumer_\w+", text)) <= names, page


def test_every_state_is_on_the_page_of_attributes() -> None:
    source = inspect.getdoc(NatsConsumer.state) or ""
    page = first_spans(ATTRIBUTES, "States")
    assert set(page) == set(re.findall(r'"(\w+)"', source))


def test_every_check_is_on_its_page() -> None:
    package = ROOT / "python/nats_consumer"
    files = [each for each in package.rglob("*.py") if "checks" in str(each.relative_to(package))]
    source = "".join(each.read_text() for each in files)
    assert set(first_spans("reference/checks.md", "Checks")) == set(
        re.findall(r'"(nats_consumer\.[EW]\d{3})"', source)
    )


def names_of_the_exceptions() -> dict[str, type[BaseException]]:
    return {
        name: each
        for name, each in vars(exceptions).items()
        if isinstance(each, type)
        and issubclass(each, BaseException)
        and (each.__module__, each.__name__) == (exceptions.__name__, name)
    }


def bases_in_the_code(name: str) -> list[str]:
    """The bases as they are written: nats-py's names, whether or not it is installed."""
    tree = ast.parse(Path(inspect.getsourcefile(exceptions) or "").read_text())
    [node] = [each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name]
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def test_every_exception_is_on_its_page_with_its_bases() -> None:
    page = {name: spans(row[1]) for name, row in first_spans(EXCEPTIONS, "Exceptions").items()}
    assert page == {name: bases_in_the_code(name) for name in names_of_the_exceptions()}


def test_every_name_of_nats_py_is_on_the_page_of_exceptions() -> None:
    page = set(spans(section(EXCEPTIONS, "The names of nats-py")))
    for module in (errors, js_errors):
        source = ast.parse(Path(inspect.getsourcefile(module) or "").read_text())
        names = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
        assert names <= page, module


def test_the_errors_that_each_table_names_exist() -> None:
    for page, heading in [("guides/publishing.md", "Errors")]:
        for row in rows(page, heading):
            assert spans(row[0])[0] in names_of_the_exceptions()


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
README = (ROOT / "README.md").read_text()


def test_the_version_is_one_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "make"))
    version = import_module("version")
    cargo = CARGO["workspace"]["package"]["version"]
    python = version.python_version(cargo)
    installed = metadata("django-nats-consumer")
    assert installed["Version"] == python == __version__
    assert version.outdated(cargo) == []
    assert f"\n## {python}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_tests_each_supported_python_django_and_server() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    classifiers = " ".join(PYPROJECT["project"]["classifiers"])
    [servers] = re.findall(r"\$\(or \$\(SERVERS\),(.*?)\)", (ROOT / "Makefile").read_text())

    def matrix(name: str) -> list[str]:
        [found] = re.findall(rf"^ +{name}: \[(.*)\]$", workflow, re.MULTILINE)
        return re.findall(r"\d+\.\d+", found)

    assert matrix("django") == re.findall(r"Django :: (\d+\.\d+)", classifiers)
    assert set(matrix("python")) >= set(re.findall(r"Python :: (\d+\.\d+)", classifiers))
    assert matrix("server") == servers.split()


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_requirements_are_those_of_the_package(page: str) -> None:
    text = (ROOT / page).read_text()
    python = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    [django] = PYPROJECT["project"]["dependencies"]
    django = django.removeprefix("Django>=")
    assert f"Python {python} or later" in text
    assert re.search(rf"Django( projects \(|\s){re.escape(django)} or later", text)


def test_the_extras_are_those_that_the_documentation_names() -> None:
    installed = metadata("django-nats-consumer")
    extras = set(installed.get_all("Provides-Extra") or ())
    assert extras == set(PYPROJECT["project"]["optional-dependencies"])
    assert extras == {
        "uvloop",
        "reload",
        "server",
        "msgspec",
        "pydantic",
        "opentelemetry",
        "sentry",
    }


def test_the_options_that_cross_the_bridge_have_a_page() -> None:
    """A field that no attribute and no setting sets would be an option that nobody can use."""
    computed = {"name", "stream", "durable", "durable_is_derived", "kind"}
    computed |= {"max_attempts", "retry_delays", "exhausted"}
    computed |= {"manages_durable", "announce"}  # settings
    found = {field.name for field in fields(ConsumerOptions)} - computed
    assert found <= set(attributes_of_the_code())
    assert all(
        field.default is MISSING for field in fields(ConsumerOptions)
    )  # a default of its own could differ from the page's


# In the engine's Rust, each stands once where it is decided.
REASONS_OF_THE_ENGINE = ("attempts exhausted", "worker lost", "headers that cannot be parsed")


def test_each_reason_of_a_dead_letter_is_on_its_page() -> None:
    page = (ROOT / "docs/guides/dead-letters.md").read_text()
    for reason in (*REASONS_OF_THE_ENGINE, _UNDECODABLE):
        assert f'| "{reason}" |' in page, reason
    engine = "".join(each.read_text() for each in (ROOT / "engine/src").rglob("*.rs"))
    assert [each for each in REASONS_OF_THE_ENGINE if f'"{each}"' not in engine] == []
