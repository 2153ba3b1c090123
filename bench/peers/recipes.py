"""How each rival gateway is configured and started before a provider that speaks OpenAI's format.

Owns commands, settings and headers, one function a gateway; what they have in common: one process, no database, no
cache, no guardrails, logs of errors only, and the key that their client must show where they know keys. Never installs
and never measures. What was changed from a default stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bench.peers.environments import HERE, node_environment, python_environment

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
AUTHORISED: Mapping[str, str] = {"Authorization": f"Bearer {KEY}"}
MODELS = ("mock", "burst")
"""Names that the mock provider knows: whole replies and paced streams; streams in one write."""


class Place(msgspec.Struct, frozen=True):
    """Where a gateway may write, on which port it is to listen, and which provider it is to ask (`http://.../v1`)."""

    work_dir: Path
    run_dir: Path
    port: int
    provider_url: str

    def write(self, name: str, text: str) -> str:
        """A file of settings; its path."""
        path = self.run_dir / name
        path.write_text(text)
        return str(path)


class Launch(msgspec.Struct, frozen=True):
    """How to start a gateway and how to ask it.

    Attributes:
        model: the gateway's name of a model, with `{model}` in the place of the provider's.
        path: before `/chat/completions`.
        prints_url: it chooses its port itself and prints a line `url: http://...`.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str] = {}
    path: str = "/v1"
    headers: Mapping[str, str] = msgspec.field(default_factory=lambda: AUTHORISED)
    model: str = "{model}"
    prints_url: bool = False


def litellm(place: Place) -> Launch:
    """FastAPI, one worker, with a master key; its price list from the package, not from the network."""
    folder = python_environment("litellm", place.work_dir)
    listed = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": place.provider_url, "api_key": KEY},
        }
        for name in MODELS
    ]
    config = place.write("config.yaml", json.dumps({"model_list": listed, "general_settings": {"master_key": KEY}}))
    command = (str(folder / "bin" / "litellm"), "--config", config, "--host", "127.0.0.1", "--num_workers", "1")
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    return Launch(command=(*command, "--port", str(place.port), "--telemetry", "False"), environ=environ)


def portkey(place: Place) -> Launch:
    """Node; which provider to ask stands in the headers of each request, and its host must be trusted."""
    folder = node_environment("portkey", place.work_dir)
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    host = place.provider_url.split("/")[2]
    return Launch(
        command=("node", str(script), f"--port={place.port}", "--headless"),
        environ={"TRUSTED_CUSTOM_HOSTS": f"127.0.0.1,{host}", "NODE_ENV": "production"},
        headers={**AUTHORISED, "x-portkey-provider": "openai", "x-portkey-custom-host": place.provider_url},
    )


def lm_proxy(place: Place) -> Launch:
    """FastAPI, one worker, with one virtual key and without loggers."""
    folder = python_environment("lm-proxy", place.work_dir)
    config = {
        "host": "127.0.0.1",
        "port": place.port,
        "connections": {"mock": {"api_type": "openai", "api_base": place.provider_url, "api_key": KEY}},
        "routing": {"*": "mock.*"},
        "groups": {"default": {"api_keys": [KEY]}},
    }
    path = place.write("config.json", json.dumps(config))
    return Launch(command=(str(folder / "bin" / "lm-proxy"), "--config", path))


def ferrogw(place: Place) -> Launch:
    """A Go binary. Its limit of requests of one address is raised: with the default it answers nearly all with 429."""
    folder = python_environment("ferrogw", place.work_dir)
    config = {"strategy": {"mode": "single"}, "targets": [{"virtual_key": "openai", "models": list(MODELS)}]}
    environ = {
        "GATEWAY_CONFIG": place.write("config.json", json.dumps(config)),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": place.provider_url.removesuffix("/v1"),
        "MASTER_KEY": KEY,
        "HOST": "127.0.0.1",
        "PORT": str(place.port),
        "LOG_LEVEL": "error",
        "RATE_LIMIT_RPS": "10000000",
        "RATE_LIMIT_BURST": "10000000",
    }
    return Launch(command=(str(folder / "bin" / "ferrogw"), "serve"), environ=environ)


def tensorzero(place: Place) -> Launch:
    """The gateway in Rust that its Python package embeds, without a database, behind a process that only waits."""
    folder = python_environment("tensorzero", place.work_dir)
    lines = ["[gateway]", "observability.enabled = false"]
    for name in MODELS:
        lines += [
            f"[models.{name}]",
            'routing = ["mock"]',
            f"[models.{name}.providers.mock]",
            'type = "openai"',
            f'model_name = "{name}"',
            f'api_base = "{place.provider_url}/"',
            'api_key_location = "none"',
        ]
    config = place.write("tensorzero.toml", "\n".join(lines) + "\n")
    script = HERE / "scripts" / "tensorzero_gateway.py"
    return Launch(
        command=(str(folder / "bin" / "python"), str(script), config),
        environ={"RUST_LOG": "error"},
        path="/openai/v1",
        model="tensorzero::model_name::{model}",
        prints_url=True,
    )


GATEWAYS: Mapping[str, tuple[str, Callable[[Place], Launch]]] = {
    "ferrogw": ("1.5.10", ferrogw),
    "tensorzero": ("2026.6.0", tensorzero),
    "portkey": ("1.15.2", portkey),
    "lm-proxy": ("3.3.2", lm_proxy),
    "litellm": ("1.106.2", litellm),
}
"""Version and recipe, by name."""
