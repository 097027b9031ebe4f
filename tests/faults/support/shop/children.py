"""`children.py METHOD COUNT`: three children publish after the parent did; prints who did what."""

import json
import multiprocessing
import sys

import django
from orders.publishing import published


def publish(name: str) -> tuple[str, int]:
    """Runs in a child."""
    return name, published(name)["pid"]


def main(method: str, count: str) -> None:
    """Publish from the parent, then from a pool."""
    published("parent")
    with multiprocessing.get_context(method).Pool(3, initializer=django.setup) as pool:
        names = [f"order-{number}" for number in range(int(count))]
        told = dict(pool.map(publish, names, chunksize=5))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    django.setup()
    main(*sys.argv[1:])
