"""The command line, through click's own runner: what it prints, to whom, and how it ends."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import COMMANDS, main
from gateway.tenants.tenants import hashed, weakness
from guard_runtime.verdict import CATEGORIES

PEPPER = "0123456789abcdef0123456789abcdef"
POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}:\n    prompt: [{{at: 0.8, do: block}}, {{at: 0.3, do: log}}]\n"
    "    response: [{at: 0.8, do: rewrite, rewrite: mask}, {at: 0.3, do: log}]\n"
    for category in CATEGORIES
)
CONFIG = """
guards: [{kind: scripted, words: {坏: hate_speech_and_abuse}, score: 0.9}]
upstreams: {up: {kind: scripted}}
models: {demo: {upstream: up}}
tenants:
  shop: {policy: base, key_variable: SHOP_KEY}
  school: {policy: base, key_variable: SCHOOL_KEY}
key_pepper: ${PEPPER}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEPPER", PEPPER)
    for name in ("LIBRAGATE_CONFIG", "NO_COLOR", "SHOP_KEY", "SCHOOL_KEY"):
        monkeypatch.delenv(name, raising=False)
    Path("policies").mkdir()
    Path("policies/base.yaml").write_text(POLICY, encoding="utf-8")
    Path("config.yaml").write_text(CONFIG, encoding="utf-8")

    def runner(*arguments: str, input: bytes | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=input)

    return runner


def ended(result: Result, code: int) -> Result:
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_every_command_answers_to_help(run) -> None:
    for name in COMMANDS:
        assert ended(run(name, "--help"), 0).stdout.startswith("Usage: ")


def test_every_command_that_does_something_takes_json() -> None:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        assert all("--json" in option.opts for leaf in leaves for option in leaf.params if option.name == "as_json")
        assert all(any(option.name == "as_json" for option in leaf.params) for leaf in leaves)


def test_a_mistyped_command_is_told_its_like(run) -> None:
    assert "there is no command 'chek' -- did you mean 'check'?" in ended(run("chek"), 2).stderr


def test_version_names_libragate_and_python(run) -> None:
    assert ended(run("version"), 0).stdout.startswith("libragate ")
    found = json.loads(ended(run("version", "--json"), 0).stdout)
    assert (found["schema"], found["command"], found["exit"]) == (1, "version", 0)


def test_check_points_out_old_words_and_is_fine_with_them(run) -> None:
    Path("config.yaml").write_text(CONFIG.replace("guards: [", "guards: [{kind: rules}, "), encoding="utf-8")
    note = "config.yaml:2:17 guards[0].kind: is an old name, which still works -- write personal_data"
    assert f"note: {note}\n" in ended(run("check"), 0).stderr
    assert json.loads(ended(run("check", "--json"), 0).stdout)["notes"] == [note]


def test_check_says_what_it_found(run) -> None:
    said = ended(run("check"), 0)
    assert said.stdout.startswith("fine  config.yaml\n")
    assert "guards    scripted@1: loaded\n" in said.stdout
    assert said.stderr == ""
    found = json.loads(ended(run("check", "--json"), 0).stdout)
    assert found["tenants"] == {"shop": "base", "school": "base"}
    assert found["problems"] == []


def test_check_tells_every_mistake_to_standard_error_and_ends_with_2(run) -> None:
    Path("policies/base.yaml").write_text(POLICY.replace("zh:", "cn:"), encoding="utf-8")
    Path("config.yaml").write_text(CONFIG.replace("models:", "modles:"), encoding="utf-8")
    said = ended(run("check"), 2)
    assert said.stdout == ""
    assert [line.split(": ")[0] for line in said.stderr.splitlines()] == [
        "config.yaml:2:1 models",
        "config.yaml:4:1 modles",
        "policies/base.yaml:1:1 refusal.zh",
        "policies/base.yaml:1:11 refusal.cn",
    ]
    found = json.loads(ended(run("check", "--json"), 2).stdout)
    assert found["exit"] == 2
    assert found["problems"] == said.stderr.splitlines()


def test_a_config_that_is_not_there_is_told_with_what_to_do(run) -> None:
    for command in (["check"], ["serve"], ["try", "x"], ["policy", "show"], ["keys", "new", "shop"]):
        said = ended(run(*command, "--config", "nowhere.yaml"), 2)
        assert said.stderr.startswith("nowhere.yaml is not there -- ")
        assert "--config" in said.stderr


def test_a_guard_that_cannot_be_loaded_is_told(run) -> None:
    Path("config.yaml").write_text(
        CONFIG.replace("{kind: scripted, words", "{kind: classifier, name: mine, path: no}, {kind: scripted, words"),
        encoding="utf-8",
    )
    said = ended(run("check"), 2)
    assert said.stderr == "guard mine: no is not a folder -- check its path\n"


def test_a_broken_guard_means_could_not_look(run) -> None:
    Path("broken").mkdir()
    Path("broken/manifest.json").write_text("{}")
    Path("config.yaml").write_text(
        CONFIG.replace(
            "{kind: scripted, words", "{kind: classifier, name: mine, path: broken}, {kind: scripted, words"
        ),
        encoding="utf-8",
    )
    for command in (["check"], ["serve", "--port", "0"], ["try", "x", "--tenant", "shop"]):
        assert "a guard cannot look: " in ended(run(*command), 3).stderr


def test_try_allows_with_0_and_blocks_with_1(run) -> None:
    assert ended(run("try", "好", "--tenant", "shop"), 0).stdout.startswith("allow  no_rule_fired\n")
    said = ended(run("try", "坏", "--tenant", "shop"), 1).stdout
    assert said.startswith("block  hate_speech_and_abuse 0.900, +0.100 over policies/base.yaml:16\n")
    assert said.endswith("not read: nothing\n")


def test_try_reads_standard_input_and_answers_in_json(run) -> None:
    found = json.loads(ended(run("try", "-", "--tenant", "shop", "--json", input="这很坏\n".encode()), 1).stdout)
    assert found["decision"] | {"margin": round(found["decision"]["margin"], 6)} == {
        "action": "block",
        "rewrite": None,
        "reason": "rule",
        "direction": "prompt",
        "category": "hate_speech_and_abuse",
        "score": 0.9,
        "threshold": 0.8,
        "margin": 0.1,
        "guard": "scripted",
        "rule": "policies/base.yaml:16",
        "detail": None,
        "source": None,
        "window": None,
    }
    assert [line["category"] for line in found["scores"]] == list(CATEGORIES)
    nearest = found["scores"][0]
    assert (nearest["fired"], nearest["threshold"], nearest["action"]) == (False, 0.3, "log")
    assert found["coverage"]["characters"] == 3
    assert found["unread"] == []


def test_try_judges_an_answer_by_the_rules_for_answers(run) -> None:
    said = ended(run("try", "坏", "--direction", "response", "--question", "怎么样", "--tenant", "shop"), 1).stdout
    assert said.startswith("rewrite  hate_speech_and_abuse 0.900, +0.100 over policies/base.yaml:17 (mask)\n")


def test_try_logs_with_0(run) -> None:
    Path("config.yaml").write_text(CONFIG.replace("score: 0.9", "score: 0.5"), encoding="utf-8")
    assert ended(run("try", "坏", "--tenant", "shop"), 0).stdout.startswith("log  hate_speech_and_abuse 0.500, +0.200")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--tenant", "shp"], "there is no tenant 'shp' -- did you mean 'shop'?"),
        (["--tenant", "x"], "there is no tenant 'x' -- there are school, shop"),
        ([], "which tenant? -- name one with --tenant: school, shop"),
    ],
)
def test_a_tenant_that_is_not_there_is_told_its_like(run, arguments: list[str], problem: str) -> None:
    assert ended(run("try", "x", *arguments), 2).stderr == f"{problem}\n"
    assert json.loads(run("try", "x", *arguments, "--json").stdout)["problems"] == [problem]


def test_try_refuses_an_empty_text_and_bytes_that_are_no_text(run) -> None:
    assert ended(run("try", " ", "--tenant", "shop"), 2).stderr == "there is no text to judge\n"
    said = ended(run("try", "-", "--tenant", "shop", input=b"\xff\xfe"), 2)
    assert said.stderr == "standard input is not UTF-8 -- convert it first\n"


def test_keys_new_prints_a_strong_key_and_the_line_that_opens_for_it(run) -> None:
    said = ended(run("keys", "new", "shop"), 0)
    (_, key), (_, line) = (row.split() for row in said.stdout.splitlines())
    assert weakness(key) is None
    assert line == hashed(key, PEPPER.encode())
    assert key not in said.stderr
    found = json.loads(ended(run("keys", "new", "shop", "--json"), 0).stdout)
    assert found["hash"] == hashed(found["key"], PEPPER.encode())
    assert found["key"] != key


def test_keys_new_works_while_the_rest_of_the_config_is_unfinished(run) -> None:
    Path("config.yaml").write_text("key_pepper: ${PEPPER}\ntenants: {shop: {}}\n", encoding="utf-8")
    ended(run("keys", "new", "shop"), 0)


def test_keys_new_notes_a_tenant_that_the_config_does_not_have(run) -> None:
    assert "note: there is no tenant 'shp' -- did you mean 'shop'?" in ended(run("keys", "new", "shp"), 0).stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tenants: {}\n", "config.yaml:1:1 key_pepper: is missing -- write key_pepper: "),
        ("key_pepper: short\n", "config.yaml:1:13 key_pepper: is shorter than 32 characters -- write key_pepper: "),
        ("key_pepper: ${NOT_SET}\n", "config.yaml:1:13 key_pepper: the environment variable NOT_SET is not set -- "),
        ("key_pepper: [\n", "config.yaml:2:1: is not YAML: "),
        ("", "config.yaml:1:1: does not hold a mapping -- "),
    ],
)
def test_keys_new_needs_the_pepper(run, text: str, problem: str) -> None:
    Path("config.yaml").write_text(text, encoding="utf-8")
    assert ended(run("keys", "new", "shop"), 2).stderr.startswith(problem)


def test_policy_show_tells_each_rule_with_its_place(run) -> None:
    Path("policies/shop.yaml").write_text(
        "extends: base\nrules:\n  prompt_attack:\n    prompt: [{at: strict, do: block}]\n"
    )
    Path("config.yaml").write_text(CONFIG.replace("shop: {policy: base", "shop: {policy: shop"), encoding="utf-8")
    lines = ended(run("policy", "show", "shop"), 0).stdout.splitlines()
    assert lines[0].startswith("shop: policy shop ")
    assert "prompt_attack                 prompt     strict  block           policies/shop.yaml:4" in lines
    assert "prompt_attack                 response   0.8     rewrite (mask)  policies/base.yaml:26" in lines
    found = json.loads(ended(run("policy", "show", "shop", "--json"), 0).stdout)
    assert found["policy"]["name"] == "shop"
    assert {rule["place"].split(":")[0] for rule in found["rules"]} == {"policies/base.yaml", "policies/shop.yaml"}


def test_policy_schema_is_json_with_and_without_the_envelope(run) -> None:
    plain = json.loads(ended(run("policy", "schema"), 0).stdout)
    assert plain == json.loads(ended(run("policy", "schema", "--json"), 0).stdout)["policy"]


def test_a_demo_key_that_everybody_knows_stops_the_start(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sk-test")
    said = ended(run("serve", "--port", "0"), 2)
    assert "the key in SHOP_KEY is one that everybody knows" in said.stderr
    assert "sk-test" not in said.output


def test_a_host_that_is_not_this_machine_is_told(run) -> None:
    assert ended(run("serve", "--host", "192.0.2.1"), 2).stderr == (
        "192.0.2.1 is no address of this machine -- try --host 127.0.0.1, or 0.0.0.0 for all of them\n"
    )


def test_a_guard_that_is_too_late_means_could_not_look(run) -> None:
    late = CONFIG.replace(
        "guards: [", "limits: {guard_seconds: 0.000001}\nguards: [{kind: classifier, name: libra-mini}, "
    )
    Path("config.yaml").write_text(late, encoding="utf-8")
    said = ended(run("try", "好", "--tenant", "shop"), 3).stdout
    assert said.startswith("block  guard_failure: libra-mini: timeout: no verdict within 1e-06 s\n")
    assert "failed: libra-mini: timeout: no verdict within 1e-06 s\n" in said
    allow = POLICY + "on_guard_failure: {prompt: allow}\n"
    Path("policies/base.yaml").write_text(allow, encoding="utf-8")
    assert ended(run("try", "好", "--tenant", "shop"), 3).stdout.startswith("allow  guard_failure")
    assert ended(run("try", "坏", "--tenant", "shop"), 1).stdout.startswith("block  hate_speech_and_abuse")


def test_the_name_of_a_guard_is_its_artefact_s_own(run) -> None:
    path = Path(__file__).parents[3] / "guard_runtime/models/libra-mini"
    other = CONFIG.replace("guards: [", f"guards: [{{kind: classifier, name: other, path: {path}}}, ")
    Path("config.yaml").write_text(other, encoding="utf-8")
    assert ended(run("check"), 2).stderr == (
        f"guard other: the artefact in {path} is called libra-mini -- use that name\n"
    )


def test_a_guard_that_does_not_ship_is_told_which_do(run) -> None:
    Path("config.yaml").write_text(CONFIG.replace("guards: [", "guards: [{kind: classifier, name: libra-max}, "))
    assert (
        "libra-max is not a folder -- give its path, or use one that ships: libra-mini" in ended(run("check"), 2).stderr
    )
