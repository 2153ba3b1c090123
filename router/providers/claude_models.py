"""What a translation has to know about Claude models, by name.

Owns the table. An unknown name is taken for a model newer than all here, since that is what new names are. Must never
be asked about requests that are already in Anthropic's own format: those pass as they are.

Facts from platform.claude.com (model overviews, migration guides, "Effort", "Structured outputs"), November 2026.
"""

from __future__ import annotations

import re

import msgspec

_NAME = re.compile(r"claude-([a-z]+)-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
"""claude-sonnet-4-5-20250929; a date is never a version, as it has more digits."""

_NAME_BEFORE_4 = re.compile(r"claude-(\d)(?:[-.](\d))?-([a-z]+)")
"""claude-3-5-sonnet-20241022."""

_NEWEST = (99, 0)


class ClaudeModel(msgspec.Struct, frozen=True):
    """One model.

    Attributes:
        family: "opus", "sonnet", "haiku", ... or "" when the name does not tell.
        version: major and minor.
    """

    family: str
    version: tuple[int, int]

    @property
    def max_tokens(self) -> int:
        """The limit for requests that set none: generous, and within what the model and its context window allow.

        Up to 4.1, the prompt and this must fit into the context window together, so the largest value is not the best.
        """
        if self.version < (3, 5):
            return 4_096
        if self.version < (3, 7):
            return 8_192
        return 32_000 if self.version < (4, 5) else 64_000

    @property
    def takes_sampling(self) -> bool:
        """Whether `temperature`, `top_p` and `top_k` may be sent (with API version 2023-06-01)."""
        return self.version < (4, 7)

    @property
    def takes_both_samplings(self) -> bool:
        """Whether `temperature` and `top_p` may be sent together."""
        return self.version < (4, 1)

    @property
    def takes_output_format(self) -> bool:
        """Whether `output_config.format` and strict tools are known to it."""
        return self.version >= (4, 5)

    @property
    def thinks_adaptively(self) -> bool:
        """Whether `thinking: {"type": "adaptive"}` is known to it."""
        return self.version >= (4, 6)

    @property
    def takes_system_messages(self) -> bool:
        """Whether instructions may stand among the messages. Sonnet 5 is younger than Opus 4.8 but was not told."""
        return ((5, 5) if self.family == "sonnet" else (4, 8)) <= self.version < _NEWEST

    def effort(self, wanted: str) -> str | None:
        """OpenAI's `reasoning_effort` as `output_config.effort`; None when the model has no such setting.

        `none` and `minimal` become the lowest level there is, and levels that the model lacks the highest it has. What
        is no level at all is left to the provider to refuse.
        """
        if self.version < (4, 5) or (self.version == (4, 5) and self.family != "opus"):
            return None
        level = "low" if wanted in {"none", "minimal"} else wanted
        if (self.version == (4, 5) and level in {"xhigh", "max"}) or (self.version == (4, 6) and level == "xhigh"):
            return "high"
        return level


def find_model(name: str) -> ClaudeModel:
    """What is known about the model of this name."""
    match = _NAME.search(name)
    if match is not None:
        return ClaudeModel(family=match[1], version=(int(match[2]), int(match[3] or 0)))
    match = _NAME_BEFORE_4.search(name)
    if match is not None:
        return ClaudeModel(family=match[3], version=(int(match[1]), int(match[2] or 0)))
    return ClaudeModel(family="", version=_NEWEST)
