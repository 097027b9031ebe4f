"""Programs that end without closing what they opened: no hang, no crash, nothing is lost."""

from collections.abc import Callable
from textwrap import dedent

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("exact_start")

BEGIN = """
import asyncio, atexit, sys, threading, time
import django
django.setup()
from nats_consumer import JetstreamPullConsumer, get_nats_client, publish
SUBJECT = "{stream}.created"

async def stream():
    async with await get_nats_client() as client:
        await client.jetstream().add_stream(name="{stream}", subjects=["{stream}.>"])

asyncio.run(stream())
"""

THREADS = """
        handled = threading.Event()

        class Orders(JetstreamPullConsumer):
            stream_name = "{{stream}}"
            filter_subject = "{{stream}}.>"

            def handle_message(self, message):
                handled.set()
                {work}

        async def main():
            await Orders().start()
            await asyncio.to_thread(publish, SUBJECT, "one")
            await asyncio.to_thread(handled.wait, 10)
        asyncio.run(main())
"""

PROGRAMS = {
    "ends right after a publish": """
        publish(SUBJECT, "one")
    """,
    "raises": """
        publish(SUBJECT, "one")
        raise SystemExit(7)
    """,
    "leaves a client open": """
        async def main():
            global client
            client = await get_nats_client()
            await client.subscribe("{stream}.other")
            await client.jetstream().publish(SUBJECT, b"one")
        asyncio.run(main())
    """,
    "leaves a loop open": """
        loop = asyncio.new_event_loop()
        client = loop.run_until_complete(get_nats_client())
        loop.run_until_complete(client.jetstream().publish(SUBJECT, b"one"))
        waiting = loop.create_task(client.jetstream().publish(SUBJECT, b"two"))
        loop.run_until_complete(asyncio.sleep(0))
    """,
    "publishes in a thread that outlasts it": """
        def late():
            threading.main_thread().join()
            publish(SUBJECT, "one")
        threading.Thread(target=late).start()
    """,
    "is in a daemon thread's publish at its end": """
        publish(SUBJECT, "one")
        def busy():
            while True:
                publish("{stream}.more", "more")
        threading.Thread(target=busy, daemon=True).start()
    """,
    "publishes at its exit": """
        atexit.register(publish, SUBJECT, "one")
    """,
    "leaves a consumer running": """
        handled = threading.Event()

        class Orders(JetstreamPullConsumer):
            stream_name = "{stream}"
            filter_subject = "{stream}.>"

            async def handle_message(self, message):
                handled.set()

        async def main():
            await Orders().start()
            await asyncio.to_thread(publish, SUBJECT, "one")
            await asyncio.to_thread(handled.wait, 10)
        asyncio.run(main())
    """,
    "leaves a consumer of threads running": THREADS.format(work="time.sleep(60)"),
    "leaves a thread that computes": THREADS.format(work="while True: pass"),
    "leaves a thread that wakes again and again": THREADS.format(
        work="while True: time.sleep(0.001)"
    ),
    "computes on the event loop of a daemon thread": """
        handled = threading.Event()

        class Orders(JetstreamPullConsumer):
            stream_name = "{stream}"
            filter_subject = "{stream}.>"

            async def handle_message(self, message):
                handled.set()
                while True:
                    pass

        threading.Thread(target=lambda: asyncio.run(Orders().run()), daemon=True).start()
        publish(SUBJECT, "one")
        assert handled.wait(10)
    """,
}
CODES = {"raises": 7}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_that_closes_nothing_ends_by_itself(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    what: str,
) -> None:
    stream = fresh("shop")
    project = make_project("")
    text = dedent(BEGIN) + dedent(PROGRAMS[what])
    project.write("program.py", text.replace("{stream}", stream))
    program = project.run("-X", "faulthandler", "program.py")
    assert program.finish(timeout=15) == CODES.get(what, 0), program.output
    for word in ("panicked", "Fatal", "Traceback", "never"):
        assert word not in program.output
    assert nats_server.stream(stream)["state"]["messages"] >= 1


LEFT_BEHIND = """
class Orders(JetstreamPullConsumer):
    stream_name = "{stream}"
    filter_subject = "{stream}.>"

    {kind} handle_message(self, message):
        print("handled", message.data, flush=True)

async def fails():
    await Orders().start()
    raise AssertionError("before stop()")

try:
    asyncio.run(fails())
except AssertionError:
    print("the loop has ended", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_consumer_that_nobody_stopped_ends_with_its_event_loop(
    make_project: Callable[..., Project],
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    kind: str,
) -> None:
    stream = fresh("shop")
    project = make_project("")
    text = dedent(BEGIN) + LEFT_BEHIND.replace("{kind}", kind)
    project.write("program.py", text.replace("{stream}", stream))
    program = project.run("program.py")
    program.wait_for("the loop has ended")
    eventually(lambda: nats_server.consumer(stream, "Orders")["num_waiting"] == 0)
    assert not program.has_ended
