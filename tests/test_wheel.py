"""What a user installs: the server and the guard runtime, with something to start from, and no other module."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]


def test_the_wheel_ships_the_server_and_the_guard_runtime_only() -> None:
    assert WHEEL["packages"] == ["gateway", "guard_runtime"]


def test_the_wheel_ships_a_config_and_policies_to_start_from() -> None:
    assert WHEEL["force-include"] == {
        "policies": "gateway/starter/policies",
        "config.yaml": "gateway/starter/config.yaml",
    }
    assert all((ROOT / source).exists() for source in WHEEL["force-include"])
