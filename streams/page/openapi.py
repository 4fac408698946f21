"""The OpenAPI document of the page's API, generated from the sections that it answers with."""

from collections.abc import Mapping
from typing import Any, Final

from streams.page.model import PageModel
from streams.page.scene import Scene
from streams.page.sections import BY_PORTFOLIO, SECTIONS

ROOT: Final = "/api/v1"
PORTFOLIO_CHARS: Final = 128
EMPTY: Final = Scene(PageModel(), 0, 0, "worker", {}, 0, {}, {}, {}, complete=False)
ERROR: Final = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def document() -> dict[str, Any]:
    """Return the document. Times are in ms since 1970 UTC, amounts in USD, ratios as fractions of 1."""
    paths: dict[str, Any] = {f"{ROOT}/{name}": _section(name) for name in SECTIONS}
    paths[f"{ROOT}/decisions/{{decision_id}}"] = _decision()
    paths[f"{ROOT}/stream"] = _stream()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HIMARI Layer 3 page",
            "version": "1",
            "description": "Read-only. Names that end in _ms are times in ms since 1970 UTC, in _usd amounts in USD, "
            "in _ratio fractions of 1. null means unknown, never zero.",
        },
        "paths": paths,
        "components": {
            "schemas": {name: _schema(name) for name in SECTIONS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _section(name: str) -> dict[str, Any]:
    first = (SECTIONS[name].__doc__ or "").partition("\n")[0]
    chosen = {
        "name": "portfolio",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": PORTFOLIO_CHARS},
        "description": "Only this portfolio.",
    }
    return {
        "get": {
            "operationId": name,
            "summary": first,
            "parameters": [chosen] if name in BY_PORTFOLIO else [],
            "responses": _answers({"$ref": f"#/components/schemas/{name}"}),
        }
    }


def _schema(name: str) -> dict[str, Any]:
    """Return the schema of a section: its keys; values whose kind depends on the state are left open."""
    example: Mapping[str, Any] = SECTIONS[name](EMPTY)
    properties = {key: {"type": TYPES[type(value)]} if value is not None else {} for key, value in example.items()}
    return {"type": "object", "required": sorted(properties), "properties": properties}


def _decision() -> dict[str, Any]:
    name = {"name": "decision_id", "in": "path", "required": True, "schema": {"type": "string"}}
    answers = _answers({"type": "object", "required": ["decision_id", "waterfall"]})
    answers["404"] = _json("The decision is not among those kept here.", ERROR)
    return {
        "get": {
            "operationId": "decision",
            "summary": "Return one decision with its waterfall, as published.",
            "parameters": [name],
            "responses": answers,
        }
    }


def _stream() -> dict[str, Any]:
    text = (
        "Server-sent events named after the sections: all of them first, then those that changed, at most 4 a second."
    )
    return {
        "get": {
            "operationId": "stream",
            "summary": "Stream all sections.",
            "responses": {
                **_answers(ERROR),
                "200": {"description": text, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            },
        }
    }


def _answers(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "200": _json("OK", schema),
        "400": _json("A parameter is not what it should be.", ERROR),
        "401": _json("A bearer token is required.", ERROR),
        "403": _json("The host name is not one of this machine.", ERROR),
        "503": _json("Too many streams, or the page is stopping.", ERROR),
    }


def _json(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
