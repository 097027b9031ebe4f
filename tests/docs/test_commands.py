"""The page of commands says what the commands take."""

import tomllib
from argparse import ArgumentParser, _SubParsersAction

import pytest
from django.core.management import get_commands, load_command_class

from tests.docs.support.blocks import ROOT
from tests.docs.support.tables import first_spans

PAGE = "reference/commands.md"
COMMANDS = {
    name: str(app) for name, app in get_commands().items() if str(app).startswith("nats_consumer")
}


def own_arguments(parser: ArgumentParser) -> set[str]:
    """The arguments that are not Django's, without those of verbs."""
    django = {"help", "version", "verbosity", "settings", "pythonpath", "traceback"}
    django |= {"no_color", "force_color", "skip_checks"}
    own = [each for each in parser._actions if each.dest not in django]
    options = {option for each in own for option in each.option_strings}
    return options | {str(each.metavar) for each in own if not each.option_strings}


def verbs(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """The parser of each verb."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            return dict(action.choices)
    return {}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_argument_of_a_command_is_on_its_page(name: str) -> None:
    parser = load_command_class(COMMANDS[name], name).create_parser("manage.py", name)
    arguments = own_arguments(parser)
    for verb in verbs(parser).values():
        arguments |= own_arguments(verb)
    written = set(first_spans(PAGE, name))
    documented = {each for each in written if each.startswith("-") or each.isupper()}
    assert documented == arguments - {"VERB"}
    for verb in verbs(parser):
        assert any(each.split()[0] == verb for each in written)


@pytest.mark.parametrize("name", ["nats_dlq", "nats_durable"])
def test_every_verb_takes_the_arguments_that_the_page_says(name: str) -> None:
    parser = load_command_class("nats_consumer", name).create_parser("manage.py", name)
    for argument, row in first_spans(PAGE, name).items():
        if len(row) == 3:
            takes = {
                verb for verb, each in verbs(parser).items() if argument in own_arguments(each)
            }
            documented = set(verbs(parser)) if row[1] == "all" else set(row[1].split(", "))
            assert takes == documented, argument


def test_every_extra_is_on_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(first_spans(PAGE, "Extras")) == set(project["optional-dependencies"])
