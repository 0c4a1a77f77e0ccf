"""Write docs/cli.md from the commands themselves. `make schema` runs it, and a test checks the result."""

from __future__ import annotations

from pathlib import Path

import click

from onnxtool.cli import cli

HEAD = """# The command line

Generated from the commands by `make schema`; do not edit.

Exit status: 0 passed, 1 a gate failed (drift, parity, a cell that could not be measured), 2 bad usage or
bad input. `--json -` prints the report, and nothing else, on standard output. Progress is shown on a terminal only.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    parent = click.Context(cli, info_name="onnxtool", **cli.context_settings)
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
        parts.append(f"## onnxtool {name}\n\n```text\n{command.get_help(context)}\n```\n")
        for below, part in command.commands.items() if isinstance(command, click.Group) else ():
            inner = click.Context(part, info_name=below, parent=context, terminal_width=100, max_content_width=100)
            parts.append(f"### onnxtool {name} {below}\n\n```text\n{part.get_help(inner)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(reference(), encoding="utf-8")
