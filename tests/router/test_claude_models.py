"""Claude models: names are read, whatever their form, and new ones count as newest."""

from __future__ import annotations

import pytest

from router.providers.claude_models import find_model


@pytest.mark.parametrize(
    ("name", "family", "version"),
    [
        ("claude-3-haiku-20240307", "haiku", (3, 0)),
        ("claude-3-5-sonnet-latest", "sonnet", (3, 5)),
        ("claude-3.7-sonnet", "sonnet", (3, 7)),
        ("claude-opus-4-20250514", "opus", (4, 0)),
        ("claude-opus-4-1-20250805", "opus", (4, 1)),
        ("claude-sonnet-4-5", "sonnet", (4, 5)),
        ("claude-opus-4.8", "opus", (4, 8)),
        ("claude-haiku-5-5", "haiku", (5, 5)),
        ("claude-fable-5", "fable", (5, 0)),
        ("claude-mythos-preview", "", (99, 0)),
        ("something-else", "", (99, 0)),
    ],
)
def test_names_tell_family_and_version(name: str, family: str, version: tuple[int, int]) -> None:
    """A date is not a version."""
    assert (find_model(name).family, find_model(name).version) == (family, version)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("claude-3-opus-20240229", 4_096),
        ("claude-3-5-haiku-latest", 8_192),
        ("claude-3-7-sonnet-latest", 32_000),
        ("claude-opus-4-1", 32_000),
        ("claude-haiku-4-5", 64_000),
        ("claude-new", 64_000),
    ],
)
def test_the_default_limit_is_one_that_the_model_takes(name: str, limit: int) -> None:
    """Anthropic demands a limit, and refuses one above the model's own."""
    assert find_model(name).max_tokens == limit


@pytest.mark.parametrize(
    ("name", "wanted", "level"),
    [
        ("claude-sonnet-4-5", "high", None),
        ("claude-haiku-4-5", "low", None),
        ("claude-opus-4-1", "low", None),
        ("claude-opus-4-5", "medium", "medium"),
        ("claude-opus-4-5", "max", "high"),
        ("claude-sonnet-4-6", "xhigh", "high"),
        ("claude-sonnet-4-6", "max", "max"),
        ("claude-haiku-5-5", "xhigh", "xhigh"),
        ("claude-opus-5", "none", "low"),
        ("claude-opus-5", "minimal", "low"),
        ("claude-opus-5", "tremendous", "tremendous"),
    ],
)
def test_effort_becomes_a_level_that_the_model_has(name: str, wanted: str, level: str | None) -> None:
    """Nonsense stays, so that the provider can refuse it."""
    assert find_model(name).effort(wanted) == level


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("claude-opus-4-7", False),
        ("claude-opus-4-8", True),
        ("claude-sonnet-4-6", False),
        ("claude-sonnet-5", False),
        ("claude-sonnet-5-5", True),
        ("claude-haiku-4-5", False),
        ("claude-fable-5", True),
        ("claude-mythos-preview", False),
    ],
)
def test_instructions_among_messages_are_for_models_that_know_them(name: str, takes: bool) -> None:
    """Others refuse the request."""
    assert find_model(name).takes_system_messages is takes


def test_sampling_is_for_models_up_to_4_6() -> None:
    """Later ones refuse it; from 4.1 on, temperature and top_p exclude each other."""
    takes = {name: find_model(f"claude-{name}").takes_sampling for name in ("opus-4-6", "opus-4-7", "sonnet-5", "x")}

    assert takes == {"opus-4-6": True, "opus-4-7": False, "sonnet-5": False, "x": False}
    assert find_model("claude-sonnet-4-0").takes_both_samplings
    assert not find_model("claude-opus-4-1").takes_both_samplings
