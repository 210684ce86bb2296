"""Nothing on the pages that looks like Python goes unrun."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt

DOCS = Path(__file__).parent

#: What a block may be besides Python that is run: it is for another program.
OTHER_LANGUAGES = {"console", "ini", "yaml"}
#: Directives that show no code, or that of a file which is imported or run.
DIRECTIVES = {"{eval-rst}", "{image}", "{include}", "{literalinclude}", "{toctree}"}


def test_every_page_is_known_to_the_tests(pages: list[Path]) -> None:
    assert sorted(pages) == sorted(DOCS.glob("*.md"))


def test_every_python_block_is_run(page: Path, snippets: list[str]) -> None:
    blocks = [token for token in MarkdownIt("commonmark").parse(page.read_text()) if token.tag == "code"]
    languages = [(token.info.split() or [""])[0] for token in blocks]
    shown = [token.content for token, language in zip(blocks, languages, strict=True) if language == "python"]

    assert shown == snippets
    assert set(languages) <= {"python"} | OTHER_LANGUAGES | DIRECTIVES
