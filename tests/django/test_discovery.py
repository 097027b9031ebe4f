"""Which `consumers` modules are found, in Django projects made for the purpose."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

CONSUMER = """
    from nats_consumer import JetstreamPushConsumer

    class {name}(JetstreamPushConsumer):
        stream_name = "orders"
        filter_subject = "orders.*"

        async def handle_message(self, message):
            pass
"""
CONFIG = """
    from django.apps import AppConfig

    class ShopConfig(AppConfig):
        name = "shop"
"""
LIST = "import django; django.setup(); from nats_consumer import NatsConsumer as N; "
LIST += "print([c.__name__ for c in N.filter()])"


class Project:
    """A Django project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, text: str = "") -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(text))

    def installed(self, *apps: str) -> None:
        self.write("config.py", f"INSTALLED_APPS = {list(apps)}")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the project and wait for its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": _import_path(), "DJANGO_SETTINGS_MODULE": "config"},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def consumers(self) -> str:
        """Return the names that are registered once Django is set up."""
        listing = self.python("-c", LIST)
        assert listing.returncode == 0, listing.stderr
        return listing.stdout.strip()


def _import_path() -> str:
    # The project's folder is the working directory; the package itself is wherever we have it.
    import nats_consumer

    package = Path(nats_consumer.__file__).parent.parent
    return os.pathsep.join([".", str(package), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("shop/__init__.py")
    project.write("shop/apps.py", CONFIG)
    project.write("shop/consumers.py", CONSUMER.format(name="OrderConsumer"))
    return project


@pytest.mark.parametrize(
    "apps",
    [
        ("nats_consumer", "shop"),
        ("shop", "nats_consumer"),
        ("nats_consumer", "shop.apps.ShopConfig"),
        ("nats_consumer.apps.NatsConsumerConfig", "shop"),
    ],
)
def test_an_app_is_found_in_either_spelling_and_any_order(
    project: Project, apps: tuple[str, ...]
) -> None:
    project.installed(*apps)
    assert project.consumers() == "['OrderConsumer']"


def test_a_consumers_module_beside_manage_py_is_found(project: Project) -> None:
    project.write("consumers.py", CONSUMER.format(name="InvoiceConsumer"))
    project.installed("nats_consumer", "shop")
    assert project.consumers() == "['OrderConsumer', 'InvoiceConsumer']"


def test_a_broken_consumers_module_beside_manage_py_is_an_error(project: Project) -> None:
    project.write("consumers.py", "import no_such_module")
    project.installed("nats_consumer", "shop")
    check = project.python("-m", "django", "check")
    assert check.returncode == 1
    assert "No module named 'no_such_module'" in check.stderr


def test_an_app_without_consumers_is_fine(project: Project) -> None:
    (project.folder / "shop/consumers.py").unlink()
    project.installed("nats_consumer", "shop")
    assert project.consumers() == "[]"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from nats_consumer import NoSuchName", "ImportError"),
        ("class Broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_broken_consumers_module_is_an_error_with_its_traceback(
    project: Project, code: str, error: str
) -> None:
    project.write("shop/consumers.py", code)
    project.installed("nats_consumer", "shop")
    check = project.python("-m", "django", "check")
    assert check.returncode == 1
    assert error in check.stderr
    assert str(Path("shop/consumers.py")) in check.stderr


def test_two_apps_may_each_have_a_consumer_of_one_name(project: Project) -> None:
    project.write("billing/__init__.py")
    project.write("billing/consumers.py", CONSUMER.format(name="OrderConsumer"))
    project.installed("nats_consumer", "shop", "billing")
    assert project.consumers() == "['OrderConsumer', 'OrderConsumer']"
    command = project.python("-m", "django", "nats_consumer", "OrderConsumer")
    assert command.returncode == 1
    assert "Write shop.OrderConsumer or billing.OrderConsumer" in command.stderr


def test_the_command_does_not_start_a_consumer_without_handle_message(project: Project) -> None:
    project.write(
        "shop/consumers.py",
        """
        from nats_consumer import JetstreamPushConsumer

        class Silent(JetstreamPushConsumer):
            stream_name = "orders"
            filter_subject = ">"
        """,
    )
    project.installed("nats_consumer", "shop")
    command = project.python("-m", "django", "nats_consumer")
    assert command.returncode == 1
    assert "has no handle_message" in command.stderr
    assert "Traceback" not in command.stderr


def test_an_app_of_others_whose_consumers_cannot_be_imported_can_be_left_out(
    project: Project,
) -> None:
    project.write("events/__init__.py")
    project.write("events/consumers.py", "from channels_that_is_not_here import Consumer")
    project.installed("nats_consumer", "shop", "events")
    check = project.python("-m", "django", "check")
    assert "NATS_CONSUMER[\"exclude_apps\"] = ['events']" in check.stderr
    settings = (project.folder / "config.py").read_text()
    project.write("config.py", settings + "\nNATS_CONSUMER = {'exclude_apps': ['events']}")
    assert project.consumers() == "['OrderConsumer']"


def test_a_consumers_package_that_imports_nothing_is_named(project: Project) -> None:
    (project.folder / "shop/consumers.py").unlink()
    project.write("shop/consumers/__init__.py")
    project.write("shop/consumers/orders.py", CONSUMER.format(name="OrderConsumer"))
    project.installed("nats_consumer", "shop")
    check = project.python("-m", "django", "check")
    assert "shop.consumers does not import orders" in check.stderr
    assert "from . import orders" in check.stderr
