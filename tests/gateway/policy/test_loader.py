"""Policies from files: every mistake in the author's words, and what inheritance means."""

import json
from pathlib import Path

import pytest

from gateway.policy.loader import load_policies
from gateway.policy.policy import Action, DirectionPolicy, OnBlock, Policy, Rewrite, Rule, StreamMode
from gateway.policy.schema import RulesFile, policy_schema
from gateway.policy.sources import BALANCED, History, Sources, Treatment, Trusted
from guard_runtime.conversation import Direction
from guard_runtime.verdict import CATEGORIES, Category

BOTH = "    prompt: [{at: 0.8, do: block}]\n    response: [{at: 0.8, do: block}]\n"
BASE = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(f"  {category}:\n{BOTH}" for category in CATEGORIES)
ILLEGAL = Category.ILLEGAL_ACTIVITIES_AND_CRIME


def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Path:
    """policies/ in the current folder, so that places read as a person would see them."""
    monkeypatch.chdir(tmp_path)
    path = Path("policies")
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    return lambda **files: load_policies(folder(tmp_path, monkeypatch, **files))


def lines(found) -> list[str]:
    return [str(mistake) for mistake in found.mistakes]


CHILD = "extends: base\n"
P = "policies/shop.yaml"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("on_gaurd_failure: {prompt: block}\n",
         [f"{P}:2:1 on_gaurd_failure: is not a key that is known here -- did you mean 'on_guard_failure'?"]),
        ("colour: red\n",
         [f"{P}:2:1 colour: is not a key that is known here -- known are extends, on_block, refusal, regenerate, "
          "record_text, expose_scores, annotations, trust, sources, on_guard_failure, on_unreadable, "
          "on_sealed, on_unknown_answer_field, pass, rules, stream"]),
        ("sources: {sistem: all}\n",
         [f"{P}:2:11 sources.sistem: is not a key that is known here -- did you mean 'system'?"]),
        ("sources: {results: atacks}\n",
         [f"{P}:2:20 sources.results: 'atacks' is not one of all, attacks, grave, trust -- did you mean 'attacks'?"]),
        ("rules: {privcy_and_property: {}}\n",
         [f"{P}:2:9 rules.privcy_and_property: is not a key that is known here -- "
           f"did you mean 'privacy_and_property'?"]),
        ("rules:\n  prompt_attack: {prompts: []}\n",
         [f"{P}:3:19 rules.prompt_attack.prompts: is not a key that is known here -- did you mean 'prompt'?"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 0.5, do: blok}]}\n",
         [f"{P}:3:42 rules.prompt_attack.prompt[0].do: 'blok' is not one of block, rewrite, log, allow -- "
          "did you mean 'block'?"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 0.5, do: off}]}\n",
         [f"{P}:3:42 rules.prompt_attack.prompt[0].do: 'off' is not one of block, rewrite, log, allow -- "
          "choose one of them"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 0.5}]}\n",
         [f"{P}:3:28 rules.prompt_attack.prompt[0].do: is missing -- add it"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 80, do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: 80 is not a threshold -- "
          "a score goes from 0 to 1: did you mean 0.8?"]),
        ("rules:\n  prompt_attack: {prompt: [{at: .nan, do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: nan is not a threshold -- "
          "write a score from 0 to 1, or strict or balanced or permissive"]),
        ("rules:\n  prompt_attack: {prompt: [{at: -0.1, do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: -0.1 is not a threshold -- "
          "write a score from 0 to 1, or strict or balanced or permissive"]),
        ("rules:\n  prompt_attack: {prompt: [{at: true, do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: true is not a threshold -- write a score from 0 to 1"]),
        ("rules:\n  prompt_attack: {prompt: [{at: '0.5', do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: '0.5' is not a threshold -- remove the quotes"]),
        ("rules:\n  prompt_attack: {prompt: [{at: balance, do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: 'balance' is not a threshold -- did you mean 'balanced'?"]),
        ("rules:\n  prompt_attack: {prompt: [{at: , do: block}]}\n",
         [f"{P}:3:33 rules.prompt_attack.prompt[0].at: has no value -- "
           f"write a score from 0 to 1, or strict or balanced or permissive"]),
        ("rules:\n  prompt_attack: {prompt: {at: 0.5, do: block}}\n",
         [f"{P}:3:27 rules.prompt_attack.prompt: must be a list, not a mapping -- change it"]),
        ("rules: [a]\n", [f"{P}:2:8 rules: must be a mapping, not a list -- change it"]),
        ("rules:\n", [f"{P}:2:7 rules: has no value -- give it one, or remove the key"]),
        ("record_text: on\n",
         [f"{P}:2:14 record_text: must be true or false, not 'on' -- write true: in YAML 1.2 on is a word"]),
        ("record_text: 1\n", [f"{P}:2:14 record_text: must be true or false, not 1 -- change it"]),
        ("refusal: {en: 5}\n", [f"{P}:2:15 refusal.en: must be text, not 5 -- put it in quotes"]),
        ("refusal: {en: ' '}\n", [f"{P}:2:11 refusal.en: is missing -- write the sentence a caller gets instead"]),
        ("on_guard_failure: {prompt: rewrite}\n",
         [f"{P}:2:28 on_guard_failure.prompt: 'rewrite' is not one of block, log, allow -- choose one of them"]),
        ("on_block: eror\n", [f"{P}:2:11 on_block: 'eror' is not one of error, completion -- did you mean 'error'?"]),
        ("regenerate: {attempts: 9}\n", [f"{P}:2:24 regenerate.attempts: must be at most 3, not 9 -- "
          f"change the number"]),
        ("stream: {window: 0}\n", [f"{P}:2:18 stream.window: must be at least 1, not 0 -- change the number"]),
        ("stream: {window: 1.5}\n", [f"{P}:2:18 stream.window: must be a whole number, not 1.5 -- change it"]),
        ("stream: {window: '32'}\n", [f"{P}:2:18 stream.window: must be a whole number, not '32' -- "
          f"remove the quotes"]),
        ("stream: {release_after: .inf}\n",
         [f"{P}:2:25 stream.release_after: must be at most 60, not inf -- change the number"]),
        ("stream: {window: 200}\n",
         [f"{P}:2:18 stream.window: 200 is more than max_window, which is 128 -- change one of them"]),
        ("stream: {max_window: 10}\n",
         [f"{P}:2:22 stream.max_window: 10 is less than window, which is 32 -- change one of them"]),
        ("stream: {timeout: 30}\n",
         [f"{P}:2:19 stream.timeout: 30 is less than idle_timeout, which is 60 -- change one of them"]),
        ("rules:\n  prompt_attack: {prompt: []}\n",
         [f"{P}:3:19 rules.prompt_attack.prompt: has no rule -- "
          "silence would mean allow; to allow, write [{at: 0, do: allow}]"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 0.5, do: block, rewrite: mask}]}\n",
         [f"{P}:3:58 rules.prompt_attack.prompt[0].rewrite: has no effect with `do: block` -- "
          "remove it, or do: rewrite"]),
        ("rules:\n  prompt_attack: {prompt: [{at: 0.5, do: rewrite, rewrite: regenerate}]}\n",
         [f"{P}:3:60 rules.prompt_attack.prompt[0].rewrite: regenerate is for answers: a prompt is the caller's own -- "
          "choose mask or safe_message"]),
        ("rules:\n  prompt_attack: {response: [{at: 0.5, do: rewrite, rewrite: regenerate}]}\n",
         [f"{P}:3:62 rules.prompt_attack.response[0].rewrite: regenerate needs what to tell the model -- "
          "write regenerate.instruction.zh and .en"]),
        ("rules:\n  prompt_attack:\n    prompt:\n    - {at: 0.5, do: block}\n    - {at: 0.50, do: log}\n",
         [f"{P}:6:12 rules.prompt_attack.prompt[1].at: 0.5 is used twice, first in line "
           f"5 -- remove one of the two rules"]),
        ("rules:\n  prompt_attack:\n    prompt:\n    - {at: 0.5, do: block}\n    - {at: 0.9, do: log}\n",
         [f"{P}:6:7 rules.prompt_attack.prompt[1]: this rule never decides: the rule "
           f"in line 5 fires whenever it would, "
          "and does as much -- raise that threshold, or remove this rule"]),
        ("rules:\n  prompt_attack:\n    prompt:\n    - {at: balanced, do: log}\n    - {at: strict, do: block}\n",
         [f"{P}:5:7 rules.prompt_attack.prompt[0]: this rule never decides: the rule "
           f"in line 6 fires whenever it would, "
          "and does as much -- raise that threshold, or remove this rule"]),
        ("rules:\n  prompt_attack:\n    prompt:\n    - {at: 0.9, do: block}\n    - {at: 0.5, do: block}\n",
         [f"{P}:5:7 rules.prompt_attack.prompt[0]: this rule never decides: the rule "
           f"in line 6 fires whenever it would, "
          "and does as much -- raise that threshold, or remove this rule"]),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place_and_what_to_do(write, text: str, mistakes: list[str]) -> None:
    found = write(base=BASE, shop=CHILD + text)
    assert lines(found) == mistakes
    assert set(found.policies) == {"base"}


def test_all_mistakes_of_all_files_are_told_at_once(write) -> None:
    shop = (
        "extends: base\nrecord_txt: true\nrecord_text: yes\nrecord_text: no\n"
        "rules:\n  prompt_attack: {prompt: [{at: 2, do: blok}]}\n  hate_speech_and_abuse: {response: []}\n"
    )
    found = write(base=BASE.replace("0.8", "80", 1), shop=shop, school="extends: base\non_block: maybe\n")
    assert [line.split(": ")[0] for line in sorted(lines(found))] == [
        "policies/base.yaml:4:19 rules.illegal_activities_and_crime.prompt[0].at",
        "policies/school.yaml:2:11 on_block",
        "policies/shop.yaml:2:1 record_txt",
        "policies/shop.yaml:4:1 record_text",
        "policies/shop.yaml:4:14 record_text",
        "policies/shop.yaml:6:33 rules.prompt_attack.prompt[0].at",
        "policies/shop.yaml:6:40 rules.prompt_attack.prompt[0].do",
    ]


def test_mistakes_of_one_kind_do_not_hide_those_of_another(write) -> None:
    """A wrong value is left out, and the rest is still looked at as a whole."""
    text = "extends: base\nrecord_text: 1\nstream: {window: 200}\nrules: {prompt_attack: {prompt: []}}\n"
    assert [line.split(" ")[1] for line in lines(write(base=BASE, shop=text))] == [
        "record_text:",
        "stream.window:",
        "rules.prompt_attack.prompt:",
    ]


def test_a_root_must_state_every_category_in_both_directions(write) -> None:
    half = BASE.replace(f"  prompt_attack:\n{BOTH}", "  prompt_attack: {prompt: [{at: 0, do: allow}]}\n")
    half = half.replace(f"  hate_speech_and_abuse:\n{BOTH}", "")
    advice = "silence would mean allow; to allow, write [{at: 0, do: allow}]"
    assert lines(write(base=half)) == [
        f"policies/base.yaml:2:1 rules.hate_speech_and_abuse.prompt: has no rule -- {advice}",
        f"policies/base.yaml:2:1 rules.hate_speech_and_abuse.response: has no rule -- {advice}",
        f"policies/base.yaml:21:3 rules.prompt_attack.response: has no rule -- {advice}",
    ]


def test_a_root_must_say_its_refusal_in_both_languages(write) -> None:
    assert lines(write(base=BASE.replace("{zh: 抱歉, en: Sorry}", "{zh: 抱歉}"))) == [
        "policies/base.yaml:1:1 refusal.en: is missing -- write the sentence a caller gets instead"
    ]


@pytest.mark.parametrize(
    ("files", "mistakes"),
    [
        ({"shop": "extends: bose\n"}, ["policies/shop.yaml:1:10 extends: there is no policy 'bose' -- "
          "did you mean 'base'?"]),
        ({"shop": "extends: q\n"}, ["policies/shop.yaml:1:10 extends: there is no policy 'q' -- "
          "there are base, shop, balanced, permissive, strict"]),
        ({"shop": "extends: [base]\n"}, ["policies/shop.yaml:1:10 extends: must be text, not a list -- change it"]),
        ({"shop": "extends: ''\n"}, ["policies/shop.yaml:1:10 extends: has no value -- "
          "give it one, or remove the key"]),
        ({"shop": "extends: shop\n"},
         ["policies/shop.yaml:1:10 extends: goes round in a circle: shop -> shop -- let one of them extend nothing"]),
        ({"a": "extends: b\n", "b": "extends: a\n", "c": "extends: a\n"},
         ["policies/a.yaml:1:10 extends: goes round in a circle: a -> b -> a -- let one of them extend nothing",
          "policies/b.yaml:1:10 extends: goes round in a circle: b -> a -> b -- let one of them extend nothing"]),
    ],
)  # fmt: skip
def test_a_chain_of_parents_that_leads_nowhere_is_a_mistake(write, files: dict[str, str], mistakes: list[str]) -> None:
    found = write(base=BASE, **files)
    assert lines(found)[-len(mistakes) :] == mistakes
    assert set(found.policies) == {"base"}
    assert found.names == {"base", *files}


def test_a_missing_or_empty_folder_and_the_other_ending_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = load_policies(Path("policies"))
    assert lines(missing) == ["policies:1:1: is not a folder -- make it, with a base.yaml in it"]
    Path("policies").mkdir()
    Path("policies/shop.yml").write_text(BASE, encoding="utf-8")
    assert lines(load_policies(Path("policies"))) == [
        "policies/shop.yml:1:1: is not read: it ends in .yml -- name it .yaml",
        "policies:1:1: has no policy in it -- write a base.yaml",
    ]


def test_a_child_replaces_lists_and_overrides_the_rest_key_by_key(write) -> None:
    shop = (
        "extends: base\nrefusal: {en: No}\non_unreadable: {response: log}\nstream: {mode: async, window: 64}\n"
        "on_block: completion\nrules:\n  illegal_activities_and_crime:\n"
        "    response: [{at: balanced, do: rewrite, rewrite: mask}, {at: 0.1, do: log}]\n"
    )
    found = write(base=BASE, shop=shop, corner="extends: shop\nstream: {overlap: 8}\n")
    assert lines(found) == []
    base, policy = found.policies["base"], found.policies["corner"]
    assert policy.refusal == {"zh": "抱歉", "en": "No"}
    assert policy.on_block is OnBlock.COMPLETION
    assert (policy.prompt.on_unreadable, policy.response.on_unreadable) == (Action.BLOCK, Action.LOG)
    assert (policy.stream.mode, policy.stream.window, policy.stream.overlap) == (StreamMode.ASYNC, 64, 8)
    assert policy.response.rules[ILLEGAL] == (
        Rule("balanced", Action.REWRITE, Rewrite.MASK, "policies/shop.yaml:8"),
        Rule(0.1, Action.LOG, Rewrite.SAFE_MESSAGE, "policies/shop.yaml:8"),
    )
    assert policy.prompt.rules[ILLEGAL] == base.prompt.rules[ILLEGAL]
    assert base.prompt.rules[ILLEGAL] == (Rule(0.8, Action.BLOCK, place="policies/base.yaml:4"),)


def test_the_hash_is_of_what_a_policy_does_not_of_how_it_is_written(write) -> None:
    same = "# a comment\n" + BASE.replace("0.8", "0.80").replace("refusal: {zh: 抱歉, en: Sorry}\n", "") + (
        "refusal:\n  en: Sorry\n  zh: 抱歉\n"
    )  # fmt: skip
    found = write(base=BASE, same=same, child="extends: base\n", other="extends: base\nexpose_scores: true\n")
    hashes = {name: policy.hash for name, policy in found.policies.items()}
    assert hashes["base"] == hashes["same"] == hashes["child"] != hashes["other"]
    assert hashes["base"] == "f03263532db7"


def test_every_single_value_of_a_policy_moves_its_hash(write) -> None:
    changes = {
        "a": "on_block: completion",
        "b": "refusal: {zh: 不}",
        "c": "regenerate: {instruction: {zh: 再来}}",
        "d": "regenerate: {attempts: 2}",
        "e": "record_text: true",
        "f": "expose_scores: true",
        "g": "on_guard_failure: {response: log}",
        "h": "on_unreadable: {prompt: allow}",
        "i": "stream: {overlap: 1}",
        "j": "rules: {prompt_attack: {prompt: [{at: 0.81, do: block}]}}",
        "k": "rules: {prompt_attack: {prompt: [{at: 0.8, do: log}]}}",
        "l": "rules: {prompt_attack: {response: [{at: 0.8, do: rewrite}]}}",
        "n": "trust: [tools]",
        "o": "trust: [system, tools]",
        "p": "sources: {system: all}",
        "q": "sources: {tools: attacks}",
        "r": "sources: {results: grave}",
        "s": "sources: {history: always}",
        "t": "sources: {blocked_turn: drop}",
        "m": "rules: {prompt_attack: {response: [{at: 0.8, do: rewrite, rewrite: mask}]}}",
    }
    found = write(base=BASE, **{name: f"extends: base\n{text}\n" for name, text in changes.items()})
    assert lines(found) == []
    assert len({policy.hash for policy in found.policies.values()}) == len(changes) + 1


def test_the_rule_model_has_exactly_the_categories() -> None:
    assert tuple(RulesFile.model_fields) == tuple(category.value for category in CATEGORIES)


def test_an_empty_policy_file_states_nothing_and_is_refused(write) -> None:
    assert lines(write(base=BASE, shop="# nothing\n")) == [
        "policies/shop.yaml:1:1: does not hold a mapping -- write `key: value` lines"
    ]


def test_the_schema_is_one_that_draft_7_editors_can_read() -> None:
    text = json.dumps(policy_schema())
    assert policy_schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in text
    assert "prefixItems" not in text
    assert set(policy_schema()["definitions"]["RuleFile"]["required"]) == {"at", "do"}
    assert "required" not in policy_schema()


def test_the_schema_accepts_and_refuses_as_the_loader_does() -> None:
    schema = policy_schema()
    rule = schema["definitions"]["RuleFile"]["properties"]
    assert rule["do"]["enum"] == ["block", "rewrite", "log", "allow"]
    assert rule["at"]["anyOf"] == [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"enum": ["strict", "balanced", "permissive"]},
    ]
    assert all(part["additionalProperties"] is False for part in schema["definitions"].values())


def test_the_shipped_policies_are_sound_and_block_grave_harm_both_ways() -> None:
    found = load_policies(Path(__file__).parents[3] / "policies")
    assert lines(found) == []
    assert {"base", "demo", "research", "school"} <= set(found.policies)
    for name, direction in (("base", Direction.PROMPT), ("demo", Direction.RESPONSE), ("school", Direction.PROMPT)):
        assert _worst(found.policies[name].toward(direction)) is Action.BLOCK
    assert _worst(found.policies["research"].prompt) is Action.LOG
    for policy in found.policies.values():
        _is_kind(policy)


def _worst(policy: DirectionPolicy) -> Action:
    return max(rule.action for rule in policy.rules[ILLEGAL])


def _is_kind(policy: Policy) -> None:
    """A refusal names no score, category or rule."""
    for text in policy.refusal.values():
        assert not any(word in text.lower() for word in ("score", "threshold", "得分", "阈值", "policy", *CATEGORIES))


def test_presets_ship_are_sound_and_can_be_extended(write) -> None:
    found = write(base=BASE, shop="extends: strict\nrefusal: {zh: 不行, en: No}\n")
    assert lines(found) == []
    assert set(found.policies) == {"base", "shop"}
    assert set(found.presets) == {"permissive", "balanced", "strict"}
    assert found.policies["shop"].sources == found.presets["strict"].sources == EVERYTHING
    assert found.presets["balanced"].sources == BALANCED
    assert found.presets["permissive"].sources.trusted == frozenset(Trusted)
    for policy in found.presets.values():
        _is_kind(policy)


def test_the_name_of_a_preset_is_taken(write) -> None:
    assert lines(write(base=BASE, balanced=BASE)) == [
        "policies/balanced.yaml:1:1: balanced is the name of a preset -- give the policy another name"
    ]


def test_the_old_key_trust_means_what_sources_say_now(write) -> None:
    found = write(base=BASE, old="extends: base\ntrust: [system]\n", new="extends: base\nsources: {system: trust}\n")
    assert found.policies["old"].sources == found.policies["new"].sources
    assert found.policies["old"].sources.trusted == {Trusted.SYSTEM}
    assert found.policies["base"].sources == BALANCED


EVERYTHING = Sources(system=Treatment.ALL, tools=Treatment.ALL, results=Treatment.ALL, history=History.ALWAYS)
