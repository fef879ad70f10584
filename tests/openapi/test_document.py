"""/openapi.json says what is served: every route, every body that is taken, every error's shape."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from gateway.api.app import create_app
from gateway.api.openapi import document
from gateway.dialects.moderations import Moderations
from gateway.dialects.registry import dialects
from tests.gateway.dialects import full_moderations
from tests.openapi.everything import BY_PATH, everything
from tests.support.gateway_server import KEY, served

HEADERS = {"authorization": f"Bearer {KEY}"}
DOCUMENT = document("1", dialects(), Moderations())
POSTS = sorted(path for path, item in DOCUMENT["paths"].items() if "post" in item)
FULL = {**BY_PATH, "/v1/moderations": full_moderations}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(everything().gateway) as address:
        yield address


def dialect_of(path: str) -> str:
    return path.replace("/openai/deployments/{model}", "/v1")


def test_it_is_served_without_a_key_and_is_the_document(url: str) -> None:
    answer = httpx.get(f"{url}/openapi.json")
    assert answer.status_code == 200
    assert answer.json() == document("0", dialects(), Moderations())
    assert answer.json()["openapi"] == "3.1.0"


def test_every_route_is_in_it_and_nothing_else() -> None:
    routes = {
        (re.sub(r"\{(case|model:path)\}", "{id}", route.path), method.lower())
        for route in create_app(everything().gateway).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(path, method) for path, item in DOCUMENT["paths"].items() for method in item} == routes


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        found: Any = DOCUMENT
        for step in reference.split("/"):
            found = found[step]
        assert found


@pytest.mark.parametrize("path", POSTS)
def test_every_field_of_a_full_request_is_in_it(path: str) -> None:
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert FULL[dialect_of(path)].REQUEST.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= schema["properties"].keys()


@pytest.mark.parametrize("path", POSTS)
def test_the_headers_and_the_shape_of_errors_are_as_it_says(url: str, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    full = FULL[dialect_of(path)].REQUEST
    address = url + path.replace("{model}", "m")
    answer = httpx.post(address, json={**full, "model": "m"}, headers=HEADERS)
    assert answer.status_code == 200, answer.text
    assert set(operation["responses"]["200"]["headers"]) <= set(answer.headers)
    assert answer.headers["content-type"].split(";")[0] in operation["responses"]["200"]["content"]
    for status, body, headers in ((400, b"{", HEADERS), (401, b"{}", {})):
        failed = httpx.post(address, content=body, headers=headers)
        assert failed.status_code == status
        content = operation["responses"][str(status)]["content"]["application/json"]
        shape = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        assert set(shape["required"]) <= failed.json().keys()
        assert set(shape["properties"]["error"]["required"]) <= failed.json()["error"].keys()


def test_every_dialect_has_its_place() -> None:
    assert {*(dialect.path for dialect in dialects()), Moderations.path} == set(FULL)
