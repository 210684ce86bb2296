"""Start the example shop, put it through its paces, and see whether reality matches what was expected.

python demo.py          print what happened; the exit code is 0 only if it is what was expected
python demo.py serve    leave the shop running, for a browser
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded import Shop

# Nothing is written beside the sources.
sys.dont_write_bytecode = True


def main() -> int:
    parser = argparse.ArgumentParser(description="The example shop of Airlock.")
    parser.add_argument("mode", nargs="?", choices=["serve"], help="leave the shop running, for a browser")
    mode = parser.parse_args().mode

    from embedded import open_shop

    sys.stdout.reconfigure(line_buffering=True)  # also where it is no terminal: somebody may be waiting for the address
    try:
        with open_shop() as shop:
            print(f"The shop is open at {shop.address}, with a Celery worker and {shop.broker} as the broker.")
            if mode == "serve":
                return serve(shop)
            import scenario

            return 0 if scenario.play(shop) else 1
    except KeyboardInterrupt:
        return 0 if mode == "serve" else 130


def serve(shop: Shop) -> int:
    print(f"""
  {shop.address}/checkout/  order something, with any of the test cards
  {shop.address}/orders/    what came of it
  {shop.address}/journal/   what was enqueued, what became of it, and what the worker ran

Ctrl-C closes it.""")
    while shop.web.is_running and shop.worker.is_running:
        time.sleep(0.5)
    print(f"The shop has broken down.\n{shop.web.log}\n{shop.worker.log}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
