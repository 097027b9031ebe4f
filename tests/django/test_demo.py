"""The demo's own tests, as its reader runs them."""

from tests.command import Command
from tests.docs.support.blocks import ROOT


def test_the_shops_own_tests_pass() -> None:
    environment = {"DJANGO_SETTINGS_MODULE": "shop_site.settings"}
    command = Command("manage.py", "test", folder=ROOT / "demo", environment=environment)
    assert command.finish() == 0, command.output
    assert "Ran 4 tests" in command.output
