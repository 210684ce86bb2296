"""Run the example shop.

python demo.py          place some orders, print what happened, and compare it with what should happen.
                        The exit code is 0 if everything matches, otherwise 1.
python demo.py serve    place the same orders, then leave the shop running for a browser.
                        With --toolbar, its pages have the Django Debug Toolbar.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded import Shop

sys.dont_write_bytecode = True  # leave no files beside the sources


def main() -> int:
    parser = argparse.ArgumentParser(description="The example shop of Airlock.")
    parser.add_argument("mode", nargs="?", choices=["serve"], help="leave the shop running for a browser")
    parser.add_argument("--toolbar", action="store_true", help="with the Django Debug Toolbar, for `serve`")
    given = parser.parse_args()
    if given.toolbar and given.mode != "serve":
        parser.error("--toolbar is for a browser: demo.py serve --toolbar")
    mode = given.mode

    from embedded import open_shop

    sys.stdout.reconfigure(line_buffering=True)  # in a pipe too: somebody may be waiting for the address
    try:
        with open_shop(toolbar=given.toolbar) as shop:
            print(f"The shop is open at {shop.address}, with a Celery worker and {shop.broker} as the broker.")
            import scenario  # needs Django to be set up

            done = scenario.play(shop)
            if mode == "serve":
                return serve(shop)
            return 0 if scenario.compare(shop, done) else 1
    except KeyboardInterrupt:
        return 0 if mode == "serve" else 130


def serve(shop: Shop) -> int:
    # What another process needs to know to be one of this shop.
    environment = [f"{name}={os.environ[name]}" for name in os.environ if name.startswith(("SHOP_", "DJANGO_SETTINGS"))]
    command = [sys.executable, str(Path(__file__).with_name("manage.py")), "airlock_explain"]
    print(f"""
  {shop.address}/           what became of these orders, and of yours
  {shop.address}/checkout/  place an order, with any of the test cards
  {shop.address}/orders/    the orders in the database

Why was no mail sent? In another terminal:

  {shlex.join(["env", *environment, *command])}

Press Ctrl-C to close the shop.""")
    while shop.web.is_running and shop.worker.is_running:
        time.sleep(0.5)
    print(f"The shop has stopped.\nThe web server:\n{shop.web.log}\nThe worker:\n{shop.worker.log}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
