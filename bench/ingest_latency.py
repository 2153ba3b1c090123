"""How long until an ingested exchange is acknowledged, that is, durable and findable by its words?"""

from __future__ import annotations

import argparse

from bench._harness import posting, report, run_clients, running_server, sentence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    rows = {}
    with running_server() as server:

        def body(number: int) -> dict[str, object]:
            user = {"role": "user", "content": sentence(number)}
            return {"messages": [user, {"role": "assistant", "content": sentence(-number - 1)}]}

        ingest = posting("/v1/memory/ingest", server.headers, body, expect=202)
        run_clients(server.port, ingest, clients=1, requests=20, first=1_000_000)  # warm up
        for round_, clients in enumerate((1, 8)):
            first = round_ * arguments.requests
            rows[f"{clients} clients"] = run_clients(
                server.port, ingest, clients=clients, requests=arguments.requests, first=first
            )
    report("ingest acknowledgement", rows)


if __name__ == "__main__":
    main()
