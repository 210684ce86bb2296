"""Finds code that bypasses Airlock, and rewrites it. The command is `airlock-lint`."""
