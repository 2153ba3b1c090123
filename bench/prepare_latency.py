"""How long does `prepare` take on a vault of 10 000 memories?

Includes HTTP, authentication, embedding the question, scanning and ranking the whole vault, rendering and counting.
"""

from __future__ import annotations

import argparse

from bench._harness import fill_vault, posting, question, report, run_clients, running_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    rows = {}
    with running_server() as server:
        filled_s = fill_vault(server, arguments.memories)
        rows["upload and embed"] = {"memories_per_s": round(arguments.memories / filled_s)}

        def body(number: int) -> dict[str, object]:
            return {"messages": [{"role": "user", "content": question(number)}]}

        prepare = posting("/v1/memory/prepare", server.headers, body, expect=200)
        run_clients(server.port, prepare, clients=1, requests=50)  # warm up
        for clients in (1, 8):
            rows[f"{clients} clients"] = run_clients(
                server.port, prepare, clients=clients, requests=arguments.requests, first=1_000
            )
        rows["server"] = {"rss_mb": round(server.rss_bytes / 1e6)}
    report(f"prepare, {arguments.memories} memories", rows)


if __name__ == "__main__":
    main()
