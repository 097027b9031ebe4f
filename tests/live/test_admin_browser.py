"""The pages of the admin in a browser: light, dark, narrow, and under a strict content policy."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.urls import reverse
from pytest_django.live_server_helper import LiveServer

from tests.docs.support.browser import PROGRAM, Browser
from tests.live.test_admin import PERMISSIONS, Orders, logged_in, orders, pages, working
from tests.waiting import eventually

__all__ = ["orders"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
]

WIDE, PHONE = (1280, 900), (390, 844)
OVERFLOW = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
# What the browser refused to load or to run on this page, because of the policy.
REFUSED = """new Promise(done => {
    const seen = [];
    const observer = new ReportingObserver(
        reports => seen.push(...reports.map(each => each.body.blockedURL)),
        {types: ["csp-violation"], buffered: true});
    observer.observe();
    setTimeout(() => done(JSON.stringify(seen)), 100);
})"""
# Where a developer wants to look at the pages: a folder for the pictures.
PICTURES = os.environ.get("PICTURES")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


@pytest.fixture
def admin(live_server: LiveServer, browser: Browser) -> str:
    """The address of the site, in whose pages the browser is logged in."""
    session = logged_in(*PERMISSIONS).cookies[project.SESSION_COOKIE_NAME].value
    browser.size(*WIDE)
    browser.open(f"{live_server.url}/admin/login/")
    browser.evaluate(f"document.cookie = '{project.SESSION_COOKIE_NAME}={session}; path=/'")
    return str(live_server.url)


def picture(browser: Browser, name: str) -> None:
    if PICTURES:
        browser.picture(Path(PICTURES, f"{name}.png"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_pages_fit_the_screen_and_obey_the_policy(
    orders: Orders, admin: str, browser: Browser, size: tuple[int, int], theme: str
) -> None:
    orders.give_up(
        b'{"order": 4711, "items": [{"sku": "A-1", "count": 2}]}',
        headers={"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    )
    orders.give_up(*(b"%d" % n for n in range(60)), reason="no such customer " + "x" * 200)
    browser.size(*size)
    for name, (address, _) in pages(orders).items():
        if name == "table":
            continue
        browser.evaluate(f"localStorage.setItem('theme', '{theme}')")
        browser.open(f"{admin}{address}")
        assert browser.evaluate("document.querySelector('h1').innerText"), name
        assert browser.evaluate("document.documentElement.dataset.theme") == theme
        picture(browser, f"{name}-{theme}-{size[0]}")
        assert browser.evaluate(OVERFLOW) <= 0, name
        assert json.loads(browser.evaluate(REFUSED)) == [], name


def test_the_table_of_consumers_refreshes_itself(
    orders: Orders, admin: str, browser: Browser
) -> None:
    browser.open(f"{admin}{reverse('admin:nats_admin_fleet_changelist')}")
    state = "document.querySelector('#nats-fleet td:nth-child(3)').innerText"
    assert browser.evaluate(state) == "missing"
    with working(orders.consumer):
        eventually(lambda: browser.evaluate(state) == "consumed")
        picture(browser, "working")


def test_refreshing_can_be_paused(orders: Orders, admin: str, browser: Browser) -> None:
    browser.open(f"{admin}{reverse('admin:nats_admin_fleet_changelist')}")
    button = "document.querySelector('.nats-refresh button')"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(f"{button}.innerText") == "Resume refreshing"
    # Longer than a turn.
    fetched: Any = browser.evaluate(
        "new Promise(done => setTimeout(() => done(performance.getEntriesByType('resource')"
        ".filter(each => each.name.endsWith('/table/')).length), 6000))"
    )
    assert fetched == 0


def test_letters_are_replayed_by_clicking(orders: Orders, admin: str, browser: Browser) -> None:
    orders.give_up(b"1", b"2")
    browser.open(f"{admin}{pages(orders)['letters'][0]}")
    browser.evaluate("document.querySelector('input[name=number][value=\"2\"]').click()")
    click(browser, "button[value=selected]")
    assert "1 dead letter" in browser.evaluate("document.querySelector('#content').innerText")
    click(browser, "#content input[type=submit]")
    said = browser.evaluate("document.querySelector('.messagelist').innerText")
    assert said == f"Replayed: 1 dead letter of {orders.stream}."
    picture(browser, "replayed")
    assert (orders.kept(), orders.messages()) == (1, 3)


def click(browser: Browser, selector: str) -> None:
    """Click what leads to another page, and wait until that is there."""
    before = browser.evaluate("performance.timeOrigin")
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
    eventually(lambda: is_another(browser, before))


def is_another(browser: Browser, before: float) -> bool:
    is_loaded = "document.readyState === 'complete' ? performance.timeOrigin : 0"
    return browser.evaluate(is_loaded) not in (0, before)
