"""The list of commands in the program's help, under headings of what they are for."""

from __future__ import annotations

from typing import Any

import click

COLUMN_SPACING = 2


class Grouped(click.Group):
    """A group whose help lists its commands in sections, in the order in which they were added."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sections: list[tuple[str, list[str]]] = []

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a heading."""
        for command in commands:
            self.add_command(command)
        self._sections.append((title, [str(command.name) for command in commands]))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, as the sections order them."""
        names = [name for _, section in self._sections for name in section]
        return [*names, *(name for name in super().list_commands(ctx) if name not in names)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, all with the same width of names."""
        widest = max(len(name) for _, section in self._sections for name in section)
        for title, names in self._sections:
            with formatter.section(title):
                room = formatter.width - formatter.current_indent - widest - COLUMN_SPACING
                rows = [(name.ljust(widest), self.commands[name].get_short_help_str(room)) for name in names]
                formatter.write_dl(rows, col_spacing=COLUMN_SPACING)
