"""Writes the generated parts of docs/configuration.md: ``python -m tests.config.write_guide``."""

from __future__ import annotations

from pathlib import Path

from tribes.config.explain import keys_table, tomcat_tables

GUIDE = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


def written(text: str) -> str:
    """The guide with its generated parts as they are now."""
    for name, table in (("keys", keys_table()), ("tomcat", tomcat_tables())):
        head, rest = text.split(f"<!-- generated: {name} -->\n", 1)
        _, tail = rest.split("<!-- end -->", 1)
        text = f"{head}<!-- generated: {name} -->\n\n{table}\n<!-- end -->{tail}"
    return text


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text()))
