"""The shop of the demo with the Debug Toolbar, and its scenes one by one.

Prints its address. Then it does what each line of its input names, and answers with a line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "shop"))


def main() -> None:
    from embedded import open_shop

    with open_shop(toolbar=True) as shop:
        import scenario

        broker: Any = shop.broker_server
        scenes = {
            "order": scenario.checkout(),
            "dry run": scenario.resend("--dry-run", "ada@example.org"),
            "killed": scenario.checkout_at_dying_server,
            "stop the broker": lambda _: broker.finish(),
            "start the broker": lambda _: broker.start(),
        }
        print(shop.address, "redis" if broker else "none", flush=True)  # noqa: T201
        for line in sys.stdin:
            scenes[line.strip()](shop)
            print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
