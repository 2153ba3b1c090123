"""Starts TensorZero's embedded gateway, prints its address, and waits to be ended.

python tensorzero_gateway.py CONFIG
"""

from __future__ import annotations

import signal
import sys

from tensorzero import _start_http_gateway

if __name__ == "__main__":
    gateway = _start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    print("url: " + gateway.base_url, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    gateway.close()
