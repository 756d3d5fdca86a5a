"""The description of the server API (OpenAPI 3.1), and the check of requests against it.

Of JSON Schema it knows what the description uses. This module must not know HTTP.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("openapi.json")
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


class Invalid(ValueError):
    """A request is not as the description has it; the message says where, and what to do."""


@functools.cache
def text() -> str:
    """Return the description as it is in the file."""
    return FILE.read_text(encoding="utf-8")


@functools.cache
def _description() -> dict[str, Any]:
    return json.loads(text())  # type: ignore[no-any-return]


def check(operation: str, body: Any) -> None:
    """Check the body of a request.

    Raises:
        Invalid: if it is not as the description has it.
    """
    media = _description()["paths"][f"/{operation}"]["post"]["requestBody"]["content"]["application/json"]
    _check(body, media["schema"], "the body")


def _check(value: Any, schema: Mapping[str, Any], where: str) -> None:
    if "$ref" in schema:
        schema = _description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    types = schema.get("type")
    if types is not None:
        names = [types] if isinstance(types, str) else types
        # A bool is an int in Python, and in JSON it is none.
        if not any(isinstance(value, TYPES[name]) and (name != "integer" or type(value) is int) for name in names):
            raise Invalid(f"{where} must be of the type {' or '.join(names)}")
    if isinstance(value, str):
        _check_text(value, schema, where)
    elif type(value) is int:
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        if not least <= value <= most:
            raise Invalid(f"{where} must be from {schema.get('minimum', '…')} to {schema.get('maximum', '…')}")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise Invalid(f"{where} must have from {schema.get('minItems', 0)} to {schema['maxItems']} items")
        for number, each in enumerate(value):
            _check(each, schema.get("items", {}), f"{where}[{number}]")
    elif isinstance(value, dict):
        _check_object(value, schema, where)
    for each in schema.get("allOf", ()):
        _check(value, each, where)
    for word in ("anyOf", "oneOf"):
        fitting = sum(_fits(value, each, where) for each in schema.get(word, ()))
        if word in schema and (fitting == 0 or (word == "oneOf" and fitting > 1)):
            raise Invalid(f"{where} {schema['x-error']}")


def _check_text(value: str, schema: Mapping[str, Any], where: str) -> None:
    if len(value) < schema.get("minLength", 0):
        raise Invalid(f"{where} must not be empty")
    if len(value) > schema.get("maxLength", len(value)):
        raise Invalid(f"{where} must have up to {schema['maxLength']} characters")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise Invalid(f"{where} {schema.get('x-error', 'must match ' + schema['pattern'])}")


def _check_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> None:
    known = schema.get("properties", {})
    unknown = [name for name in value if name not in known] if "additionalProperties" in schema else []
    if unknown:
        raise Invalid(f"{where} has the unknown field {unknown[0]!r:.100}; there are {', '.join(known)}")
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise Invalid(f"{where} must have the field {missing[0]}")
    for name, each in value.items():
        if name in known:
            _check(each, known[name], name)


def _fits(value: Any, schema: Mapping[str, Any], where: str) -> bool:
    try:
        _check(value, schema, where)
    except Invalid:
        return False
    return True


__all__ = ["Invalid", "check", "text"]
