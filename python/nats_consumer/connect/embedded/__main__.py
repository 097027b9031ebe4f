"""The supervisor process: `python -m nats_consumer.connect.embedded STORE`."""

import sys
from pathlib import Path

from .supervisor import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
