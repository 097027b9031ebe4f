"""The pages in Django's admin, against a real server."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from nats_consumer import DeadLetter, JetstreamPullConsumer, get_nats_client
from nats_consumer.declare import registry
from tests.live.support.raw import publish_raw
from tests.live.support.stage import running
from tests.live.support.streams import add_stream
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.django_db

PERMISSIONS = ("view_fleet", "view_payload", "operate_fleet")


class Orders:
    """A stream, its consumer, and dead letters of it."""

    def __init__(self, stream: str, server: NatsServer) -> None:
        self.stream = stream
        self.server = server
        self.consumer: Any = None
        self.reason = ""

    def give_up(
        self,
        *payloads: bytes,
        reason: str = "given up",
        headers: Any = None,
        event: str = "created",
    ) -> None:
        """Make dead letters of these messages."""
        asyncio.run(self._give_up(payloads, reason, headers, event))

    async def consumed(self, until: Callable[[], bool]) -> None:
        """Run the consumer until then."""
        async with running(self.consumer):
            await becomes_true(until)

    def kept(self) -> int:
        """How many dead letters there are."""
        return int(self.server.stream(f"{self.stream}-dlq")["state"]["messages"])

    def messages(self) -> int:
        """How many messages the stream has."""
        return int(self.server.stream(self.stream)["state"]["messages"])

    def durable(self) -> dict[str, Any]:
        """The durable, as the server tells of it."""
        return self.server.consumer(self.stream, "Orders")

    async def _give_up(
        self, payloads: tuple[bytes, ...], reason: str, headers: Any, event: str
    ) -> None:
        self.reason = reason
        async with await get_nats_client() as client:
            stream, subject = client.jetstream(), f"{self.stream}.{event}"
            await asyncio.gather(
                *(stream.publish(subject, each, headers=headers) for each in payloads)
            )
            last = (await stream.stream_info(self.stream)).state.last_seq
        await self.consumed(lambda: self.durable()["ack_floor"]["stream_seq"] == last)


@pytest.fixture
def orders(
    nats_server: NatsServer, fresh: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Orders:
    """A stream that only `Orders` reads, which is the only consumer of the project."""
    monkeypatch.setattr(registry, "_declared", {})
    made = Orders(fresh("orders"), nats_server)

    async def handle_message(self: Any, message: Any) -> None:
        raise DeadLetter(made.reason)

    about = {
        "stream_name": made.stream,
        "filter_subject": f"{made.stream}.>",
        "handle_message": handle_message,
    }
    made.consumer = type("Orders", (JetstreamPullConsumer,), about)
    add_stream(made.stream)
    return made


def logged_in(*permissions: str, is_staff: bool = True) -> Client:
    """A browser of a user who has these permissions."""
    user = User.objects.create_user(f"user{User.objects.count()}", is_staff=is_staff)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="nats_admin")
    )
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def text_of(answer: Any) -> str:
    return str(answer.content.decode())


def pages(orders: Orders, number: int = 1) -> dict[str, tuple[str, set[str]]]:
    """Each address, with the permissions that it needs."""
    letters = reverse("admin:nats_admin_letters")
    choice = f"?from=default/{orders.stream}"
    act = f"{reverse('admin:nats_admin_act')}{choice}&number={number}&verb"
    durable = reverse("admin:nats_admin_durable", args=["default", orders.stream, "Orders"])
    reading, changing = {"view_fleet"}, {"view_fleet", "operate_fleet"}
    return {
        "consumers": (reverse("admin:nats_admin_fleet_changelist"), reading),
        "table": (reverse("admin:nats_admin_table"), reading),
        "letters": (f"{letters}{choice}", reading),
        "letter": (
            reverse("admin:nats_admin_letter", args=["default", orders.stream, number]),
            reading,
        ),
        "outbox": (reverse("admin:nats_admin_outbox"), reading),
        "replay": (f"{act}=replay", changing),
        "discard": (f"{act}=discard", changing),
        "pause": (durable, changing),
    }


def csrf(client: Client, address: str) -> dict[str, str]:
    """The token that the form of a page has."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text_of(client.get(address)))
    assert found, address
    return {"csrfmiddlewaretoken": found[1]}


def fields(text: str) -> dict[str, list[str]]:
    """The hidden fields of the form that acts."""
    form = text.split('action="/admin/nats_admin/fleet/dead-letters/act/">')[1]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form):
        found.setdefault(name, []).append(value)
    return found


def act(client: Client, orders: Orders, **query: Any) -> Any:
    """Open the page that asks, and do what it asks for; the page after that."""
    asking = client.get(
        reverse("admin:nats_admin_act"), {"from": f"default/{orders.stream}", **query}
    )
    return client.post(reverse("admin:nats_admin_act"), fields(text_of(asking)), follow=True)


@pytest.mark.parametrize("number", range(2 ** len(PERMISSIONS)))
def test_each_page_needs_its_permissions_and_no_others(orders: Orders, number: int) -> None:
    given = {name for bit, name in enumerate(PERMISSIONS) if number >> bit & 1}
    orders.give_up(b"secret payload")
    client = logged_in(*given)
    for name, (address, needed) in pages(orders).items():
        assert client.get(address).status_code == (200 if needed <= given else 403), name
    link = reverse("admin:nats_admin_fleet_changelist")
    assert (f'href="{link}"' in text_of(client.get("/admin/"))) == ("view_fleet" in given)


@pytest.mark.parametrize("number", range(2 ** len(PERMISSIONS)))
def test_a_change_needs_the_permission_to_operate(orders: Orders, number: int) -> None:
    given = {name for bit, name in enumerate(PERMISSIONS) if number >> bit & 1}
    may = {"view_fleet", "operate_fleet"} <= given
    orders.give_up(b"1", b"2")
    client = logged_in(*given)
    token = {"csrfmiddlewaretoken": "a" * 32}
    client.cookies["csrftoken"] = "a" * 32
    source = {"from": f"default/{orders.stream}"}
    addresses = pages(orders)
    answers = [
        client.post(
            reverse("admin:nats_admin_act"), {**token, **source, "verb": "replay", "number": "1"}
        ),
        client.post(
            reverse("admin:nats_admin_act"), {**token, **source, "verb": "discard", "number": "2"}
        ),
        client.post(addresses["pause"][0], {**token, "verb": "pause", "seconds": "3600"}),
    ]
    assert [each.status_code for each in answers] == [302 if may else 403] * 3
    assert orders.kept() == (0 if may else 2)
    assert bool(orders.durable().get("paused")) == may
    assert LogEntry.objects.count() == (3 if may else 0)


def test_who_is_not_staff_is_sent_to_log_in(orders: Orders) -> None:
    orders.give_up(b"1")
    for client in (Client(), logged_in(*PERMISSIONS, is_staff=False)):
        for address, _ in pages(orders).values():
            answer = client.get(address)
            assert answer.status_code == 302
            assert answer["Location"].startswith("/admin/login/")


def test_a_post_without_the_token_changes_nothing(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    order = {"from": f"default/{orders.stream}", "verb": "discard", "number": "1"}
    assert client.post(reverse("admin:nats_admin_act"), order).status_code == 403
    durable = pages(orders)["pause"][0]
    assert client.post(durable, {"verb": "pause", "seconds": "900"}).status_code == 403
    assert (orders.kept(), orders.durable().get("paused")) == (1, None)


def test_a_get_changes_nothing(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    for address, _ in pages(orders).values():
        client.get(address)
    assert (orders.kept(), orders.messages()) == (1, 1)
    assert LogEntry.objects.count() == 0


def test_the_consumers_page_shows_state_lag_and_dead_letters(orders: Orders) -> None:
    orders.give_up(b"1", b"2")
    asyncio.run(publish(orders, 3))
    text = text_of(logged_in("view_fleet").get(pages(orders)["consumers"][0]))
    row = cells(text)["Orders"]
    assert row[:4] == ["Orders", f"{orders.stream}/Orders", "unattended", "3"]
    assert row[-1] == "2"
    assert cells(text)[orders.stream][:2] == [orders.stream, "5"]
    assert "No worker answers." in text
    assert ">Pause</a>" not in text


@contextmanager
def working(consumer: Any) -> Iterator[None]:
    """A worker beside the test."""
    is_ready, is_over = threading.Event(), threading.Event()

    async def work() -> None:
        async with running(consumer):
            is_ready.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert is_ready.wait(30)
        yield
    finally:
        is_over.set()
        thread.join()


def test_workers_are_on_the_consumers_page(orders: Orders) -> None:
    client = logged_in("view_fleet")
    with working(orders.consumer):
        text = text_of(client.get(reverse("admin:nats_admin_table")))
    assert cells(text)["Orders"][2] == "consumed"
    assert re.search(r"<h2>Workers</h2>.*<td class=\"wrap\">Orders</td>.*consuming", text, re.S)


async def publish(orders: Orders, count: int) -> None:
    async with await get_nats_client() as client:
        for number in range(count):
            await client.jetstream().publish(f"{orders.stream}.created", str(number).encode())


def cells(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
    found = [
        [
            re.sub(r"<[^>]+>", "", each).strip()
            for each in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in rows
    ]
    return {row[0]: row for row in found if row}


def test_pause_and_resume_reach_the_server_and_the_log(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    address = pages(orders)["pause"][0]
    paused = client.post(
        address, {**csrf(client, address), "verb": "pause", "seconds": "900"}, follow=True
    )
    assert f"Paused {orders.stream}/Orders until" in text_of(paused)
    assert orders.durable()["paused"]
    assert 0 < orders.durable()["pause_remaining"] <= 900 * 10**9
    assert re.search(r">paused 1[45] min</td>", text_of(paused))
    assert ">Resume</a>" in text_of(paused)
    client.post(address, {**csrf(client, address), "verb": "resume"})
    assert not orders.durable().get("paused")
    first, second = LogEntry.objects.order_by("id")
    assert first.change_message.startswith(f"Paused {orders.stream}/Orders until ")
    assert second.change_message == f"Resumed {orders.stream}/Orders."
    assert first.object_id == f"default/{orders.stream}/Orders"


@pytest.mark.parametrize("name", ["a.b", "*", "a b", "<b>", "%00", "a" * 300])
def test_a_durable_of_a_name_that_none_has_is_not_found(orders: Orders, name: str) -> None:
    address = reverse("admin:nats_admin_durable", args=["default", orders.stream, "Orders"])
    answer = logged_in(*PERMISSIONS).get(address.replace("/Orders/", f"/{name}/"))
    assert answer.status_code in (200, 404)
    assert "<b>" not in text_of(answer)


def test_a_pause_of_any_other_length_is_refused(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    address = pages(orders)["pause"][0]
    form = {**csrf(client, address), "verb": "pause", "seconds": "99999999"}
    assert client.post(address, form).status_code == 404
    assert LogEntry.objects.count() == 0


def test_dead_letters_are_listed_newest_first_and_paged(orders: Orders) -> None:
    orders.give_up(*(str(n).encode() for n in range(120)))
    client = logged_in("view_fleet")
    seen, address = [], pages(orders)["letters"][0]
    while address:
        text = text_of(client.get(address))
        seen.append([int(n) for n in re.findall(r'/(\d+)/">\1</a>', text)])
        older = re.search(r'href="([^"]+)">Older</a>', text)
        base = reverse("admin:nats_admin_letters")
        address = base + older[1].replace("&amp;", "&") if older else ""
    assert [len(each) for each in seen] == [50, 50, 20]
    assert [each for page in seen for each in page] == list(range(120, 0, -1))


def test_dead_letters_are_searched_and_filtered(orders: Orders) -> None:
    orders.give_up(b"customer", b"2", reason="No such Customer")
    orders.give_up(b"3", reason="out of stock")
    client = logged_in("view_fleet")

    def listed(**query: str) -> list[int]:
        answer = client.get(
            reverse("admin:nats_admin_letters"), {"from": f"default/{orders.stream}", **query}
        )
        return [int(n) for n in re.findall(r'/(\d+)/">\1</a>', text_of(answer))]

    assert listed(q="customer") == [2, 1]
    assert listed(q="STOCK") == [3]
    assert listed(q="created") == [3, 2, 1]
    assert listed(consumer="Orders") == [3, 2, 1]
    assert listed(consumer="Other") == []
    assert listed(age="hour") == [3, 2, 1]
    assert listed(age="older") == []
    assert listed(age="hour", consumer="Orders", q="stock") == [3]


def test_a_search_whose_time_is_over_goes_on_where_it_stopped(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.give_up(b"1", reason="stock")
    orders.give_up(*(str(n).encode() for n in range(5)), reason="customer")
    monkeypatch.setattr("nats_consumer.contrib.admin.letters.SECONDS", 0.0)
    client = logged_in("view_fleet")
    address, asked = f"{pages(orders)['letters'][0]}&q=stock", 0
    while '/1/">1</a>' not in (text := text_of(client.get(address))):
        assert "The search stopped after" in text
        on = re.search(r'href="([^"]+)">Continue searching</a>', text)
        assert on
        address = reverse("admin:nats_admin_letters") + on[1].replace("&amp;", "&")
        asked += 1
    assert asked == 5


def test_an_action_whose_time_is_over_goes_on_where_it_stopped(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.give_up(b"1", b"2", reason="stock")
    orders.give_up(b"3", b"4", reason="customer")
    monkeypatch.setattr("nats_consumer.contrib.admin.acts._MOST_SECONDS", 0.0)
    client = logged_in(*PERMISSIONS)
    page = client.get(
        reverse("admin:nats_admin_act"),
        {"from": f"default/{orders.stream}", "q": "customer", "verb": "replay", "scope": "all"},
    )
    requests = 0
    while re.search(r"<strong>\d+ dead letters?</strong>", text_of(page)):
        page = client.post(reverse("admin:nats_admin_act"), fields(text_of(page)), follow=True)
        requests += 1
    # One number a request.
    assert (requests, orders.kept(), orders.messages()) == (4, 2, 6)


def test_a_search_does_not_look_into_payloads(orders: Orders) -> None:
    orders.give_up(b"customer-4711", headers={"Token": "abc-4711"})
    answer = logged_in("view_fleet").get(
        reverse("admin:nats_admin_letters"), {"from": f"default/{orders.stream}", "q": "4711"}
    )
    assert "No dead letters that match" in text_of(answer)


@pytest.mark.parametrize("query", ["from=default/orders-of-nobody", "from=other/x", "age=century"])
def test_a_stream_that_no_consumer_reads_is_not_found(orders: Orders, query: str) -> None:
    client = logged_in(*PERMISSIONS)
    for name in ("nats_admin_letters", "nats_admin_act"):
        answer = client.get(f"{reverse(f'admin:{name}')}?{query}&verb=replay&scope=all")
        assert answer.status_code == 404
    one = reverse("admin:nats_admin_letter", args=["default", "orders-of-nobody", 1])
    assert client.get(one).status_code == 404


def test_payload_and_headers_are_seen_with_their_permission_only(orders: Orders) -> None:
    orders.give_up(b'{"card": 4711}', headers={"Token": "abc-4711"})
    address = pages(orders)["letter"][0]
    without = text_of(logged_in("view_fleet", "operate_fleet").get(address))
    assert "given up" in without
    assert "4711" not in without
    with_it = text_of(logged_in("view_fleet", "view_payload").get(address))
    assert "&quot;card&quot;: 4711" in with_it
    assert "abc-4711" in with_it


def test_a_payload_is_escaped_and_its_control_characters_are_written_out(orders: Orders) -> None:
    orders.give_up(
        b"<script>alert(1)</script>\x1b[2J\x00 \xe2\x80\xaeover\n",
        reason="<img src=x onerror=alert(1)>",
        headers={"X": '"><script>alert(2)</script>'},
    )
    client = logged_in(*PERMISSIONS)
    for name in ("letters", "letter", "discard"):
        text = text_of(client.get(pages(orders)[name][0]))
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
    text = text_of(client.get(pages(orders)["letter"][0]))
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\x1b[2J\x00 \u202eover" in text


def test_html_in_a_subject_is_shown_as_text(orders: Orders) -> None:
    orders.give_up(b"1", event="<script>alert(1)<|script>")
    client = logged_in(*PERMISSIONS)
    for name in ("letters", "letter", "discard"):
        text = text_of(client.get(pages(orders)[name][0]))
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_a_letter_whose_headers_are_not_text_is_on_each_page(orders: Orders) -> None:
    headers = b"NATS/1.0\r\nX-Odd: \xff\xfe<b>odd\r\n\r\n"
    publish_raw(orders.server, f"{orders.stream}.created", headers, b"\xff<b>")
    is_kept = lambda: f"{orders.stream}-dlq" in orders.server.streams() and orders.kept() == 1  # noqa: E731
    asyncio.run(orders.consumed(is_kept))
    client = logged_in(*PERMISSIONS)
    for name in ("letters", "letter", "discard"):
        text = text_of(client.get(pages(orders)[name][0]))
        assert "<b>" not in text
        assert f"{orders.stream}.created" in text


@pytest.mark.parametrize(
    ("payload", "form", "shown"),
    [
        (b'{"a":[1]}', "", "{\n  &quot;a&quot;: [\n    1\n  ]\n}"),
        (b'{"a":[1]}', "?as=text", "{&quot;a&quot;:[1]}"),
        (b'{"a":[1]}', "?as=hex", "000000  7b 22 61 22 3a 5b 31 5d 7d"),
        (b"\xff\xfe\x00", "", "000000  ff fe 00"),
        (b"\xffab", "?as=text", "\ufffdab"),
        (b"x" * 70_000, "", "Only the beginning is shown."),
        (b"x" + "\u00e4".encode() * 40_000, "", "Only the beginning is shown."),
        (b"[" * 900 + b"1," * 20_000 + b"1" + b"]" * 900, "", "Only the beginning is shown."),
        (b"", "", ": 0 bytes"),
    ],
)
def test_a_payload_is_shown_as_what_it_is(
    orders: Orders, payload: bytes, form: str, shown: str
) -> None:
    orders.give_up(payload)
    address = f"{pages(orders)['letter'][0]}{form}"
    text = text_of(logged_in("view_fleet", "view_payload").get(address))
    assert shown in text
    assert len(text) < 1_500_000


def masked(payload: bytes, letter: Any) -> str:
    return f"{len(payload)} of {letter.subject.partition('.')[2]} kept"


def failing_mask(payload: bytes, letter: Any) -> str:
    raise RuntimeError("of the mask")


@pytest.mark.parametrize(
    ("function", "shown"), [("masked", "14 of created kept"), ("failing_mask", "nothing is shown")]
)
def test_the_project_masks_payloads(
    orders: Orders, settings: Settings, function: str, shown: str
) -> None:
    orders.give_up(b'{"card": 4711}')
    settings.NATS_CONSUMER = settings.NATS_CONSUMER | {"admin_payload": f"{__name__}.{function}"}
    client = logged_in("view_fleet", "view_payload")
    for form in ("", "?as=text", "?as=hex"):
        text = text_of(client.get(f"{pages(orders)['letter'][0]}{form}"))
        assert "4711" not in text
    assert shown in text_of(client.get(f"{pages(orders)['letter'][0]}?as=text"))


def test_selected_letters_are_replayed(orders: Orders) -> None:
    orders.give_up(b"1", b"2", b"3")
    client = logged_in(*PERMISSIONS)
    after = text_of(act(client, orders, verb="replay", number=["1", "3"], scope="selected"))
    assert "Replayed: 2 dead letters" in after
    assert re.findall(r'/(\d+)/">\1</a>', after) == ["2"]
    assert (orders.kept(), orders.messages()) == (1, 5)
    [entry] = LogEntry.objects.all()
    assert entry.change_message.endswith("the selected (all): replayed 2 (1, 3).")
    assert entry.is_change()


def test_selected_letters_are_discarded(orders: Orders) -> None:
    orders.give_up(b"1", b"2", b"3")
    client = logged_in(*PERMISSIONS)
    after = text_of(act(client, orders, verb="discard", number=["1", "2"], scope="selected"))
    assert "Discarded: 2 dead letters" in after
    assert (orders.kept(), orders.messages()) == (1, 3)
    [entry] = LogEntry.objects.all()
    assert entry.change_message.endswith("discarded 2 (1-2).")
    assert entry.is_deletion()


def test_without_a_selection_nothing_happens(orders: Orders) -> None:
    orders.give_up(b"1")
    query = {"from": f"default/{orders.stream}", "verb": "discard", "scope": "selected"}
    answer = logged_in(*PERMISSIONS).get(reverse("admin:nats_admin_act"), query, follow=True)
    assert "No dead letter was selected." in text_of(answer)
    assert orders.kept() == 1


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 19, "9" * 20, "9" * 40, "-1", "x"])
def test_a_number_that_no_letter_has_is_not_an_error(orders: Orders, number: str) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    letters, acting = reverse("admin:nats_admin_letters"), reverse("admin:nats_admin_act")
    choice = {"from": f"default/{orders.stream}"}
    assert client.get(f"{letters}default/{orders.stream}/{number}/").status_code == 404
    assert client.get(letters, choice | {"before": number}).status_code == 200
    token = csrf(client, pages(orders)["discard"][0])
    for meant in (
        {"number": number},
        {"scope": "all", "after": number, "until": "0"},
        {"scope": "all", "after": "1", "until": number},
    ):
        order = choice | {"verb": "discard"} | meant
        assert client.get(acting, order).status_code in (200, 302)
        assert client.post(acting, order | token).status_code == 302


def test_a_letter_that_is_gone_is_not_an_error(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    form = {
        **csrf(client, pages(orders)["replay"][0]),
        "from": f"default/{orders.stream}",
        "verb": "replay",
        "number": "1",
    }
    for replayed in ("1 dead letter", "0 dead letters"):
        answer = client.post(reverse("admin:nats_admin_act"), form, follow=True)
        assert f"Replayed: {replayed} of" in text_of(answer)
    assert orders.messages() == 2


def test_all_that_match_are_replayed_500_at_a_time(orders: Orders) -> None:
    orders.give_up(*(str(n).encode() for n in range(1200)), reason="stock")
    orders.give_up(b"other", reason="customer")
    client = logged_in(*PERMISSIONS)
    page = client.get(
        reverse("admin:nats_admin_act"),
        {"from": f"default/{orders.stream}", "q": "stock", "verb": "replay", "scope": "all"},
    )
    counted = []
    while asked := re.search(r"<strong>(\d+) dead letters</strong>", text_of(page)):
        counted.append(asked[1])
        page = client.post(reverse("admin:nats_admin_act"), fields(text_of(page)), follow=True)
    assert counted == ["1200", "700", "200"]
    assert (orders.kept(), orders.messages()) == (1, 2401)
    told = [each.change_message for each in LogEntry.objects.order_by("id")]
    assert [re.search(r"replayed (\d+) \(", each)[1] for each in told] == ["500", "500", "200"]  # type: ignore[index]
    assert all("all that match (with 'stock')" in each for each in told)


def test_what_becomes_a_dead_letter_after_the_question_is_left_alone(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    asking = client.get(
        reverse("admin:nats_admin_act"),
        {"from": f"default/{orders.stream}", "verb": "discard", "scope": "all"},
    )
    orders.give_up(b"2")
    client.post(reverse("admin:nats_admin_act"), fields(text_of(asking)))
    assert orders.kept() == 1
    assert "discarded 1 (1)" in LogEntry.objects.get().change_message


def test_a_letter_that_cannot_be_replayed_stays_and_does_not_hold_up_the_others(
    orders: Orders,
) -> None:
    orders.give_up(b"1", b"2", b"3")
    other = f"{orders.stream}.cancelled"
    asyncio.run(without_subject(orders, keep=other))
    client = logged_in(*PERMISSIONS)
    after = text_of(act(client, orders, verb="replay", scope="all"))
    assert "Replayed: 0 dead letters" in after
    assert "Not done for 1: " in after
    assert orders.kept() == 3
    assert "replayed 0, failed for 3" in LogEntry.objects.get().change_message


async def without_subject(orders: Orders, keep: str) -> None:
    async with await get_nats_client() as client:
        await client.jetstream().update_stream(name=orders.stream, subjects=[keep])


@pytest.mark.parametrize("name", ["consumers", "table", "letters", "letter", "discard", "pause"])
def test_a_server_that_is_down_is_a_banner(
    orders: Orders, settings: Settings, name: str, own_server: NatsServer
) -> None:
    client = logged_in(*PERMISSIONS)
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    own_server.stop()
    begun = time.monotonic()
    answer = client.get(pages(orders)[name][0])
    assert time.monotonic() - begun < 10
    assert answer.status_code == 200
    assert "does not answer" in text_of(answer)


@pytest.mark.parametrize("name", ["consumers", "letters", "pause"])
def test_a_server_that_stands_still_is_a_banner(
    orders: Orders, settings: Settings, name: str, own_server: NatsServer
) -> None:
    client = logged_in(*PERMISSIONS)
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    with own_server.paused():
        begun = time.monotonic()
        answer = client.get(pages(orders)[name][0])
        assert time.monotonic() - begun < 10
    assert answer.status_code == 200
    assert "does not answer" in text_of(answer)


def test_an_action_without_a_server_is_told_and_logged(
    orders: Orders, settings: Settings, own_server: NatsServer
) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    token = csrf(client, pages(orders)["replay"][0])
    own_server.stop()
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    form = {**token, "from": f"default/{orders.stream}", "verb": "replay", "number": "1"}
    answer = client.post(reverse("admin:nats_admin_act"), form, follow=True)
    assert answer.status_code == 200
    assert "Replayed: 0 dead letters" in text_of(answer)
    assert "replayed 0. " in LogEntry.objects.get().change_message
    assert orders.kept() == 1


def test_one_connection_that_is_down_does_not_hide_the_other(
    orders: Orders, settings: Settings, own_server: NatsServer, nats_server: NatsServer
) -> None:
    orders.give_up(b"1")
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": nats_server.url},
        "connections": {"billing": {"servers": own_server.url}},
    }
    billing = type(
        "Invoices",
        (orders.consumer,),
        {"stream_name": "invoices", "connection": "billing", "filter_subject": "invoices.>"},
    )
    assert billing.__name__ == "Invoices"
    client = logged_in(*PERMISSIONS)
    up = cells(text_of(client.get(pages(orders)["consumers"][0])))
    assert (up["Orders"][2], up["Invoices"][2]) == ("idle", "missing")
    letters = client.get(f"{reverse('admin:nats_admin_letters')}?from=billing/invoices")
    assert "No dead letters" in text_of(letters)
    own_server.stop()
    text = text_of(client.get(pages(orders)["consumers"][0]))
    assert "The server of the connection billing does not answer." in text
    assert (cells(text)["Orders"][2], cells(text)["Invoices"][2]) == ("idle", "unknown")


def test_no_page_has_scripts_or_styles_of_its_own(orders: Orders) -> None:
    orders.give_up(*(str(n).encode() for n in range(60)))
    client = logged_in(*PERMISSIONS)
    for name, (address, _) in pages(orders).items():
        text = text_of(client.get(address))
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text), (
            name
        )
        assert len(text) < 60_000, name


def test_rows_of_the_outbox_are_shown_without_their_payloads(orders: Orders) -> None:
    from nats_consumer.contrib.outbox.models import OutboxMessage

    OutboxMessage.objects.create(
        subject="orders.<paid>", payload=b"4711", msg_id="a", key="k-1", attempts=2, error="no"
    )
    text = text_of(logged_in(*PERMISSIONS).get(reverse("admin:nats_admin_outbox")))
    assert "1 row to be relayed" in text
    assert "refused by a stream: 1" in text
    assert "orders.&lt;paid&gt;" in text
    assert "4711" not in text


def test_a_consumer_that_is_declared_wrongly_is_a_banner(orders: Orders) -> None:
    type("Broken", (JetstreamPullConsumer,), {"stream_name": "orders"})
    client = logged_in(*PERMISSIONS)
    for name in ("consumers", "letters"):
        assert "Broken cannot run: it has no handle_message" in text_of(
            client.get(pages(orders)[name][0])
        )


def test_a_project_without_consumers_has_pages(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = pages(orders)
    monkeypatch.setattr(registry, "_declared", {})
    client = logged_in(*PERMISSIONS)
    for name in ("consumers", "letters"):
        assert "This project has no consumers." in text_of(client.get(addresses[name][0]))


def test_the_pages_of_another_admin_site_lead_to_that_site(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    for name, (address, _) in pages(orders).items():
        if name == "table":
            continue
        text = text_of(client.get(address.replace("/admin/", "/operations/", 1)))
        assert "/operations/nats_admin/fleet/dead-letters/" in text, name
        assert "/admin/nats_admin" not in text, name
    act = f"/operations/nats_admin/fleet/dead-letters/act/?from=default/{orders.stream}"
    assert client.get(f"{act}&verb=replay")["Location"].startswith("/operations/")


def test_a_pause_that_fails_is_told_and_logged(orders: Orders) -> None:
    orders.give_up(b"1")
    client = logged_in(*PERMISSIONS)
    token = csrf(client, pages(orders)["pause"][0])
    nobody = reverse("admin:nats_admin_durable", args=["default", orders.stream, "Nobody"])
    answer = client.post(nobody, {**token, "verb": "pause", "seconds": "900"}, follow=True)
    assert f"Not done for {orders.stream}/Nobody: " in text_of(answer)
    message = LogEntry.objects.get().change_message
    assert message.startswith(f"Pause {orders.stream}/Nobody: begun. Failed: ")


def test_the_app_has_no_table() -> None:
    assert not [each for each in connection.introspection.table_names() if "nats_admin" in each]


def test_the_app_needs_no_migration() -> None:
    call_command("makemigrations", "nats_admin", check=True, dry_run=True, verbosity=0)


def test_the_permissions_are_three() -> None:
    found = Permission.objects.filter(content_type__app_label="nats_admin")
    assert set(found.values_list("codename", flat=True)) == set(PERMISSIONS)
