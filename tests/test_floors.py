"""No installed package is older than the floor below which it is known to be broken or unsafe."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

# package -> (first good version, why)
FLOORS = {
    "starlette": ("1.3.1", "CVE-2025-62727, CVE-2026-48710 BadHost, CVE-2026-54283"),
    "aiohttp": ("3.14.4", "CVE-2026-128131 and the 3.13/3.14 series before it"),
    "uvicorn": ("0.54.0", "the version whose protocol class gateway.api.server builds on"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "httptools": ("0.9.0", "request smuggling fixes of llhttp 9"),
    "onnxruntime": ("1.24", "external data path check, ORT #26776"),
    "orjson": ("3.9.15", "CVE-2024-27454"),
    "onnx": ("1.21.0", "CVE-2026-27489, CVE-2026-34445 to 34447"),
    "redis": ("6", "and never 8.1.0 with RESP3, redis-py #4252"),
}
BANNED = {"litellm": {"1.82.7", "1.82.8"}, "redis": {"8.1.0"}}


def parsed(text: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, piece)) or 0) for piece in text.split("+")[0].split("."))


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@pytest.mark.parametrize("package", ["starlette", "aiohttp", "uvicorn", "h11", "httptools", "onnxruntime", "orjson"])
def test_what_serves_is_installed(package: str) -> None:
    assert installed(package) is not None


@pytest.mark.parametrize(("package", "floor", "why"), [(name, *row) for name, row in FLOORS.items()])
def test_no_installed_package_is_below_its_floor(package: str, floor: str, why: str) -> None:
    found = installed(package)
    assert found is None or parsed(found) >= parsed(floor), f"{package} {found} < {floor}: {why}"


@pytest.mark.parametrize(("package", "versions"), list(BANNED.items()))
def test_no_version_known_to_be_malicious_or_broken_is_installed(package: str, versions: set[str]) -> None:
    assert installed(package) not in versions


@pytest.mark.parametrize("name", ["serving.txt", "tests.txt", "demo-model.txt", "clients.txt"])
def test_every_requirement_is_pinned_with_a_hash_and_names_no_index(name: str) -> None:
    text = (Path(__file__).parent.parent / "requirements" / name).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert lines and all("==" in line for line in lines)
    assert text.count("--hash=sha256:") >= len(lines)
    assert "http://" not in text and "https://" not in text and "index" not in text
    assert not any(line.startswith(("torch", "transformers")) for line in lines)
