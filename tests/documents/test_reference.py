"""docs/reference.md is what the OpenAPI document says, all of it."""

from __future__ import annotations

import subprocess
import sys

from docs.site.reference import PAGE, reference_markdown
from router.openapi.document import build_document
from tests.running import ROOT

DOCUMENT = build_document()


def test_the_page_is_fresh() -> None:
    """If not: `python -m docs.site.reference`."""
    assert PAGE.read_text(encoding="utf-8") == reference_markdown(DOCUMENT)


def test_the_document_does_not_depend_on_what_is_loaded() -> None:
    """Errors of the command line are loaded here, and are none of the document's."""
    code = "import router.cli; from router.openapi.document import openapi_json; print(openapi_json().decode())"
    alone = code.partition("; ")[2]
    run = [
        subprocess.run([sys.executable, "-c", one], cwd=ROOT, capture_output=True, check=True) for one in (code, alone)
    ]
    assert run[0].stdout == run[1].stdout


def test_every_route_and_shape_has_a_heading() -> None:
    lines = {line.replace("`", "") for line in reference_markdown(DOCUMENT).split("\n")}
    for path, methods in DOCUMENT["paths"].items():
        assert {f"### {method.upper()} {path}" for method in methods} <= lines
    assert {f"### {name}" for name in DOCUMENT["components"]["schemas"]} <= lines


def test_a_new_field_changes_the_page() -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string", "description": "Of the dog."}}}
    components = {**DOCUMENT["components"], "schemas": {**DOCUMENT["components"]["schemas"], "Dog": schema}}
    page = reference_markdown({**DOCUMENT, "components": components})
    assert "### Dog\n\n| field | type | meaning |\n|---|---|---|\n| `colour` | string | Of the dog. |\n" in page
