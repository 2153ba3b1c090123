"""A key that has used its requests up, through whichever vendor's SDK is installed here: its own kind of error."""

from __future__ import annotations

from importlib.util import find_spec

from scenes import KEY, URL, play, raises

MODEL = "local/recall"
SPENT = [{"role": "user", "content": "Hello."}]


def openai_sdk() -> None:
    import openai

    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as sdk:
        sdk.chat.completions.create(model=MODEL, messages=SPENT)  # type: ignore[call-overload]
        with raises(openai.RateLimitError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=SPENT)  # type: ignore[call-overload]
    assert caught[0].code == "rate_limit_exceeded"
    assert int(caught[0].response.headers["retry-after"]) >= 1


def anthropic_sdk() -> None:
    import anthropic

    with anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0) as sdk:
        sdk.messages.create(model=MODEL, max_tokens=100, messages=SPENT)
        with raises(anthropic.RateLimitError) as caught:
            sdk.messages.create(model=MODEL, max_tokens=100, messages=SPENT)
    assert caught[0].body["error"]["type"] == "rate_limit_error"
    assert int(caught[0].response.headers["retry-after"]) >= 1


def google_sdk() -> None:
    from google import genai
    from google.genai import errors

    sdk = genai.Client(api_key=KEY, http_options=genai.types.HttpOptions(base_url=URL))
    sdk.models.generate_content(model=MODEL, contents="Hello.")
    with raises(errors.ClientError) as caught:
        sdk.models.generate_content(model=MODEL, contents="Hello.")
    assert (caught[0].code, caught[0].status) == (429, "RESOURCE_EXHAUSTED")


if __name__ == "__main__":
    if find_spec("openai"):
        play(openai_sdk)
    elif find_spec("anthropic"):
        play(anthropic_sdk)
    else:
        play(google_sdk)
