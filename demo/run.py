"""The demo: the shop at work against a real NATS server, and a summary that proves it.

`make demo`, or `python demo/run.py [--orders N]`. A show that comes to its end exits with 0 only if
the server and the database tell the same story.
"""

import argparse
import os
import signal
import sys


def main() -> int:
    """Run the demo; return its exit code."""
    parser = argparse.ArgumentParser(description="Run the shop against a NATS server of its own.")
    parser.add_argument("--orders", type=_positive, default=2_000, help="default: %(default)s")
    orders = parser.parse_args().orders
    # However the demo ends, the worker drains and the server ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _perform(orders)
    except KeyboardInterrupt:
        print("Stopped. What the worker had not finished is still in the stream.")
        return 0


def _perform(orders: int) -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop_site.settings")
    django.setup()

    from nats_consumer.exceptions import NatsConsumerError
    from showcase.performance import ShowStopped, perform

    try:
        return perform(orders)
    except (ShowStopped, NatsConsumerError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _interrupt(*_: object) -> None:
    # Once: `timeout` and others send it to the process and to its group, and a second Ctrl-C kills
    # the worker. As SIGINT, because asyncio leaves its loop in good order on that one only.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one order")
    return number


if __name__ == "__main__":
    sys.exit(main())
