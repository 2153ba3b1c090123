"""The Google GenAI SDK for Python, 1.x (`/v1beta`) and 3.x (`/v1`) alike: what its users do and expect."""

from __future__ import annotations

import base64
from typing import Any

from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from scenes import HELLO, KEY, OWN_KEY, PICTURE, PIXEL, QUESTION, SUNNY, URL, WRONG_KEY, play, raises

held: list[genai.Client] = []  # a client closes its connections as soon as nobody holds it


def client(key: str = KEY, **options: Any) -> genai.Client:
    held.append(genai.Client(api_key=key, http_options=types.HttpOptions(base_url=URL, **options)))
    return held[-1]


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def content() -> None:
    for model in ("gemini-hello", "google/gemini-hello"):
        reply = client().models.generate_content(
            model=model, contents=QUESTION, config=types.GenerateContentConfig(system_instruction="Be brief.")
        )
        assert reply.text == HELLO
        assert reply.usage_metadata is not None
        assert reply.usage_metadata.total_token_count


def content_stream() -> None:
    chunks = list(client().models.generate_content_stream(model="gemini-hello", contents=QUESTION))
    assert len(chunks) > 1
    assert "".join(chunk.text or "" for chunk in chunks) == HELLO


async def content_async() -> None:
    sdk = client().aio
    assert (await sdk.models.generate_content(model="gemini-hello", contents=QUESTION)).text == HELLO
    stream = await sdk.models.generate_content_stream(model="gemini-hello", contents=QUESTION)
    assert "".join([chunk.text or "" async for chunk in stream]) == HELLO


def conversation() -> None:
    sdk = client()
    chat = sdk.chats.create(model="gemini-hello")
    assert chat.send_message(QUESTION).text == HELLO
    assert "".join(chunk.text or "" for chunk in chat.send_message_stream(f"{QUESTION} Tell me again.")) == HELLO


def tools() -> None:
    """The SDK calls the function itself and sends its result."""
    config = types.GenerateContentConfig(tools=[get_weather])
    reply = client().models.generate_content(model="gemini-tools", contents=QUESTION, config=config)
    assert reply.text == SUNNY
    sent = [part for item in reply.automatic_function_calling_history or [] for part in item.parts or []]
    assert [part.function_call.args for part in sent if part.function_call] == [{"city": "Lisbon"}]


def signatures() -> None:
    reply = client().models.generate_content(model="gemini-tools", contents=QUESTION)
    (part,) = reply.candidates[0].content.parts
    assert part.thought_signature == b"signature"


def image() -> None:
    picture = types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png")
    reply = client().models.generate_content(model="gemini-image", contents=[picture, QUESTION])
    assert reply.text == PICTURE


def errors() -> None:
    for key, model, code, status in (
        (WRONG_KEY, "gemini-hello", 401, "UNAUTHENTICATED"),
        (KEY, "nobody/m", 404, "NOT_FOUND"),
        (KEY, "gemini-busy", 429, "RESOURCE_EXHAUSTED"),
    ):
        with raises(genai_errors.ClientError) as caught:
            client(key).models.generate_content(model=model, contents=QUESTION)
        assert (caught[0].code, caught[0].status) == (code, status), caught[0]
        with raises(genai_errors.ClientError) as caught:
            list(client(key).models.generate_content_stream(model=model, contents=QUESTION))
        assert (caught[0].code, caught[0].status) == (code, status), caught[0]
    with raises(genai_errors.ServerError) as caught:
        client().models.generate_content(model="gemini-broken", contents=QUESTION)
    assert caught[0].message == "Oh no."


def retries() -> None:
    """This SDK retries only if told to, and after a pause of its own."""
    again = types.HttpRetryOptions(attempts=2, initial_delay=0.01)
    reply = client(retry_options=again).models.generate_content(model="gemini-busy-once", contents=QUESTION)
    assert reply.text == HELLO


def cut() -> None:
    pieces = ""
    with raises(genai_errors.APIError) as caught:
        for chunk in client().models.generate_content_stream(model="gemini-cut", contents=QUESTION):
            pieces += chunk.text or ""
    assert pieces
    assert HELLO.startswith(pieces)
    assert caught[0].code >= 500


async def cut_async() -> None:
    with raises(genai_errors.APIError):
        async for _ in await client().aio.models.generate_content_stream(model="gemini-cut", contents=QUESTION):
            pass


def own_key() -> None:
    sdk = client(OWN_KEY, headers={"X-Memory-Key": KEY})
    assert sdk.models.generate_content(model="gemini-own", contents=QUESTION).text == HELLO


def options() -> None:
    for options in ({"headers": {"X-Memory-Mode": "off"}}, {"extra_body": {"memory_mode": "off"}}):
        reply = client(**options).models.generate_content(model="gemini-off", contents=QUESTION)
        headers = {name.lower(): value for name, value in (reply.sdk_http_response.headers or {}).items()}
        assert headers["x-memory-status"] == "off"


if __name__ == "__main__":
    play(
        content,
        content_stream,
        content_async,
        conversation,
        tools,
        signatures,
        image,
        errors,
        retries,
        cut,
        cut_async,
        own_key,
        options,
    )
