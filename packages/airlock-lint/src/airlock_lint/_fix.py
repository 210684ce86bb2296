from __future__ import annotations
def run(files, *, diff): raise NotImplementedError
