"""config.yaml: what it means, and every mistake in it with its place and what to do."""

from pathlib import Path

import pytest

from gateway.config.loader import Config, load_config
from gateway.config.schema import CascadeFile, ClassifierFile, OpenAIFile
from gateway.errors import ConfigError, UnknownKey
from gateway.tenants.tenants import hashed, new_key
from guard_runtime.verdict import CATEGORIES

POLICY = "refusal: {zh: 抱歉, en: Sorry}\nrules:\n" + "".join(
    f"  {category}: {{prompt: [{{at: 0.8, do: block}}], response: [{{at: 0.8, do: block}}]}}\n"
    for category in CATEGORIES
)
PARTS = {
    "guards": "guards: [{kind: scripted}]",
    "upstreams": "upstreams: {up: {kind: scripted}}",
    "models": "models: {demo: {upstream: up}}",
    "tenants": "tenants: {shop: {policy: base, key_variable: SHOP_KEY}}",
}
PEPPER = "0123456789abcdef0123456789abcdef"
HASH = "sha256:" + "0" * 64
TWICE = f"tenants: {{a: {{policy: base, keys: ['{HASH}']}}, b: {{policy: base, keys: ['{HASH}']}}}}"
ENVIRONMENT = {"PEPPER": PEPPER, "PROVIDER_KEY": "sk-provider", "EMPTY": ""}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/base.yaml").write_text(POLICY, encoding="utf-8")

    def loader(extra: str = "", environment: dict[str, str] | None = None, **parts: str) -> Config:
        text = "\n".join(part for part in (PARTS | parts).values() if part)
        Path("config.yaml").write_text(f"{extra}\n{text}\n", encoding="utf-8")
        return load_config(Path("config.yaml"), ENVIRONMENT if environment is None else environment)

    return loader


@pytest.fixture
def mistakes(load):
    def told(*arguments: str, **parts: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*arguments, **parts)
        return list(caught.value.mistakes)

    return told


def test_a_small_config_is_enough(load) -> None:
    config = load()
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 8080)
    assert config.limits.body_bytes == 4_194_304
    assert list(config.models) == ["demo"]
    assert [tenant.id for tenant in config.tenants] == ["shop"]


C = "config.yaml"


@pytest.mark.parametrize(
    ("extra", "parts", "expected"),
    [
        ("limts: {}", {}, [f"{C}:1:1 limts: is not a key that is known here -- did you mean 'limits'?"]),
        ("limits: {body_byte: 1}", {}, [f"{C}:1:10 limits.body_byte: is not a key that is known here -- "
          f"did you mean 'body_bytes'?"]),
        ("limits: {body_bytes: 4MB}", {}, [f"{C}:1:22 limits.body_bytes: must be a whole number, not '4MB' -- "
          f"change it"]),
        ("limits: {guard_seconds: 0}", {}, [f"{C}:1:25 limits.guard_seconds: must be more than 0, not 0 -- "
          f"change the number"]),
        ("listen: {port: 80800}", {}, [f"{C}:1:16 listen.port: must be at most 65535, not 80800 -- change the number"]),
        ("listen: {host: 1}", {}, [f"{C}:1:16 listen.host: must be text, not 1 -- put it in quotes"]),
        ("", {"guards": ""}, [f"{C}:2:1 guards: is missing or empty -- "
          f"no guard would look at anything: list at least one"]),
        ("", {"guards": "guards: []"}, [f"{C}:2:9 guards: is missing or empty -- "
          f"no guard would look at anything: list at least one"]),
        ("", {"guards": "guards: [{kind: clasifier, name: a}]"},
         [f"{C}:2:10 guards[0].kind: 'clasifier' is not one of classifier, generative, remote, cascade, "
           f"personal_data, scripted -- did you mean 'classifier'?"]),
        ("", {"guards": "guards: [{name: a}]"}, [f"{C}:2:10 guards[0].kind: is missing -- add it"]),
        ("", {"guards": "guards: [rules]"}, [f"{C}:2:10 guards[0]: must be a mapping, not 'rules' -- change it"]),
        ("", {"guards": "guards: [{kind: classifier}]"}, [f"{C}:2:10 guards[0].name: is missing -- add it"]),
        ("", {"guards": "guards: [{kind: rules, nme: x}]"},
         [f"{C}:2:24 guards[0].nme: is not a key that is known here -- did you mean 'name'?"]),
        ("", {"guards": "guards: [{kind: rules}, {kind: scripted, name: rules}]"},
         [f"{C}:2:48 guards[1].name: a second guard is called rules -- give it another name"]),
        ("", {"guards": "guards: [{kind: rules, name: a b}]"},
         [f"{C}:2:30 guards[0].name: is not a name -- use up to 64 letters, digits, - _ and ."]),
        ("", {"guards": "guards: [{kind: scripted, words: {x: hate}}]"},
         [f"{C}:2:38 guards[0].words.x: 'hate' is not a category -- choose of {', '.join(CATEGORIES)}"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai}}"}, [f"{C}:3:13 upstreams.up.base_url: is missing -- "
          f"add it"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: example.com}}"},
         [f"{C}:3:42 upstreams.up.base_url: is not an http or https address -- "
           f"write it as for the OpenAI SDK: https://host/v1"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://me:pw@host/v1'}}"},
         [f"{C}:3:42 upstreams.up.base_url: holds more than a host, a port and a path -- "
           f"remove user, password, ? and #; "
          "a key belongs in api_key"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://h/v1', api_key: '${NO_KEY}'}}"},
         [f"{C}:3:67 upstreams.up.api_key: the environment variable NO_KEY is not set -- "
           f"export NO_KEY=... before the start"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://h/v1', api_key: '${EMPTY}'}}"},
         [f"{C}:3:67 upstreams.up.api_key: the environment variable EMPTY is not set -- "
           f"export EMPTY=... before the start"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://h/v1', api_key: '${NO KEY}'}}"},
         [f"{C}:3:67 upstreams.up.api_key: has a ${{ that names no variable -- write ${{NAME}}"]),
        ("", {"upstreams": 'upstreams: {up: {kind: openai, base_url: "https://h/v1", api_key: "a\\nb"}}'},
         [f"{C}:3:67 upstreams.up.api_key: is empty, or holds a line break or a character outside ASCII -- "
           f"check how it was copied"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://h/v1', headers: {Host: x}}}"},
         [f"{C}:3:68 upstreams.up.headers.Host: is not a header that may be set here -- "
           f"the provider's key belongs in api_key"]),
        ("", {"upstreams": "upstreams: {up: {kind: openai, base_url: 'https://h/v1', timeouts: {conect: 1}}}"},
         [f"{C}:3:69 upstreams.up.timeouts.conect: is not a key that is known here -- did you mean 'connect'?"]),
        ("", {"upstreams": "upstreams: {up: {kind: demo, base_url: 'http://h'}}"},
         [f"{C}:3:30 upstreams.up.base_url: is not a key that is known here -- known are kind"]),
        ("", {"models": "models: {demo: {upstream: upp}}"},
         [f"{C}:4:27 models.demo.upstream: there is no upstream 'upp' -- did you mean 'up'?"]),
        ("", {"models": "models: {demo: up}"}, [f"{C}:4:16 models.demo: must be a mapping, not 'up' -- change it"]),
        ("", {"tenants": "tenants: {shop: {policy: bas, key_variable: SHOP_KEY}}"},
         [f"{C}:5:26 tenants.shop.policy: there is no policy 'bas' -- did you mean 'base'?"]),
        ("", {"tenants": "tenants: {shop: {policy: base, key_variable: SHOP_KEY, models: [dmo]}}"},
         [f"{C}:5:65 tenants.shop.models[0]: there is no model 'dmo' -- did you mean 'demo'?"]),
        ("", {"tenants": "tenants: {shop: {policy: base, key_variable: SHOP_KEY, models: demo}}"},
         [f"{C}:5:64 tenants.shop.models: must be a list of models, not 'demo' -- "
           f"write [name, ...], or \"*\" for all"]),
        ("", {"tenants": "tenants: {shop: {key_variable: SHOP_KEY}}"},
         [f"{C}:5:17 tenants.shop: has no policy -- "
          "write preset: balanced, or policy: and the name of a policy file"]),
        ("", {"tenants": "tenants: {shop: {policy: base, preset: strict, key_variable: SHOP_KEY}}"},
         [f"{C}:5:40 tenants.shop.preset: stands beside policy -- keep one of the two"]),
        ("", {"tenants": "tenants: {shop: {preset: balance, key_variable: SHOP_KEY}}"},
         [f"{C}:5:26 tenants.shop.preset: 'balance' is not one of permissive, balanced, strict -- "
          "did you mean 'balanced'?"]),
        ("", {"tenants": "tenants: {shop: {policy: base}}"},
         [f"{C}:5:17 tenants.shop: has no key: nobody could use it -- run: libragate keys new shop"]),
        ("", {"tenants": "tenants: {my shop: {policy: base, key_variable: SHOP_KEY}}"},
         [f"{C}:5:11 tenants.my shop: is not a name -- use up to 64 letters, digits, - _ and ."]),
        ("", {"tenants": f"tenants: {{shop: {{policy: base, keys: ['{HASH}']}}}}"},
         [f"{C}:2:1 key_pepper: is missing, and the tenants' keys are hashed with it -- add key_pepper: "
          "${LIBRAGATE_KEY_PEPPER}, with a long random value: openssl rand -hex 32"]),
        ("key_pepper: short", {},
         [f"{C}:1:13 key_pepper: has 5 characters, and needs at least 32 -- write key_pepper: "
          "${LIBRAGATE_KEY_PEPPER}, with a long random value: openssl rand -hex 32"]),
        ("key_pepper: ${NOT_SET}", {},
         [f"{C}:1:13 key_pepper: the environment variable NOT_SET is not set -- export NOT_SET=... before the start"]),
        ("key_pepper: ${PEPPER}", {"tenants": TWICE},
         [f"{C}:5:138 tenants.b.keys[0]: is a key of the tenant a already -- make another: libragate keys new b"]),
        ("readers: {image: {upstream: upp, model: see}}", {},
         [f"{C}:1:29 readers.image.upstream: there is no upstream 'upp' -- did you mean 'up'?"]),
        ("readers: {image: {kind: transcribe, upstream: up, model: hear}}", {},
         [f"{C}:1:25 readers.image.kind: only audio can be transcribed -- use describe",
          f"{C}:1:47 readers.image.upstream: scripted cannot transcribe -- use one of kind openai"]),
        ("policies: polices", {},
         [f"{C}:5:26 tenants.shop.policy: there is no policy 'base' -- there are none",
          "polices:1:1: is not a folder -- make it, with a base.yaml in it"]),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place_and_what_to_do(
    mistakes, extra: str, parts: dict[str, str], expected: list[str]
) -> None:
    assert mistakes(extra, **parts) == expected


def test_all_mistakes_of_all_files_are_told_at_once_and_in_order(mistakes) -> None:
    Path("policies/shop.yaml").write_text("extends: base\non_blok: error\nrefusal: {en: 1}\n", encoding="utf-8")
    told = mistakes(
        "listen: {port: a}\nlisten: {}",
        guards="guards: [{kind: rules, x: 1}]",
        models="models: {demo: {upstream: nowhere}}",
        tenants="tenants: {shop: {policy: shp}}",
    )
    assert [line.split(": ")[0] for line in told] == [
        "config.yaml:2:1 listen",
        "config.yaml:3:24 guards[0].x",
        "config.yaml:5:27 models.demo.upstream",
        "config.yaml:6:17 tenants.shop",
        "config.yaml:6:26 tenants.shop.policy",
        "policies/shop.yaml:2:1 on_blok",
        "policies/shop.yaml:3:15 refusal.en",
    ]


def test_a_policy_that_is_itself_at_fault_is_not_called_unknown(mistakes) -> None:
    Path("policies/shop.yaml").write_text("extends: base\non_blok: error\n", encoding="utf-8")
    told = mistakes(tenants="tenants: {shop: {policy: shop, key_variable: SHOP_KEY}}")
    assert told == ["policies/shop.yaml:2:1 on_blok: is not a key that is known here -- did you mean 'on_block'?"]


def test_a_key_written_where_its_hash_belongs_is_never_repeated(mistakes) -> None:
    key = new_key()
    told = mistakes("key_pepper: ${PEPPER}", tenants=f"tenants: {{shop: {{policy: base, keys: [{key}]}}}}")
    assert told == [
        "config.yaml:5:39 tenants.shop.keys[0]: is not a key's hash -- "
        "take the line `sha256:...` that `libragate keys new TENANT` prints"
    ]


@pytest.mark.parametrize("key", ["", "demo", "sk-test", "changeme", "Zr8fK2pQ"])
def test_a_weak_key_from_the_environment_stops_the_start_and_is_never_repeated(load, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment={"SHOP_KEY": key})
    (told,) = caught.value.mistakes
    assert told.startswith("config.yaml:5:46 tenants.shop.key_variable: the key in SHOP_KEY ")
    assert told.endswith("unset it to have a key made at each start, or take one from: libragate keys new shop")
    assert not key or key not in told.replace("key_variable", "")


def test_a_key_from_the_environment_opens_the_door_and_is_shown_by_its_name_alone(load) -> None:
    key = new_key()
    config = load(environment={"SHOP_KEY": key})
    assert config.tenants.find(key).id == "shop"
    assert config.keys == {"shop": "$SHOP_KEY"}
    assert key not in repr(config)


def test_without_one_a_new_key_is_made_at_each_start(load) -> None:
    first, second = load(), load()
    assert first.tenants.find(first.keys["shop"]).id == "shop"
    assert first.keys != second.keys
    with pytest.raises(UnknownKey):
        second.tenants.find(first.keys["shop"])


def test_a_hash_from_the_file_opens_the_door_to_its_key(load) -> None:
    key = new_key()
    line = hashed(key, PEPPER.encode())
    config = load(
        "key_pepper: ${PEPPER}", tenants=f"tenants: {{shop: {{policy: base, models: [demo], keys: ['{line}']}}}}"
    )
    assert config.tenants.find(key).may_use("demo")
    assert config.keys == {}


def test_a_star_means_every_model_and_a_list_those_it_names(load) -> None:
    config = load(
        models="models: {a: {upstream: up}, b: {upstream: up}}",
        tenants="tenants: {all: {policy: base, models: '*', key_variable: A}, "
        "one: {policy: base, models: [b], key_variable: B}}",
    )
    models = {tenant.id: set(tenant.models) for tenant in config.tenants}
    assert models == {"all": {"a", "b"}, "one": {"b"}}


def test_the_environment_is_put_in_only_where_it_is_meant(load) -> None:
    config = load(
        upstreams="upstreams: {up: {kind: openai, base_url: 'https://${HOST}/v1', api_key: '${PROVIDER_KEY}', "
        "headers: {X-Team: 'a-${HOST}'}}, say: {kind: scripted, says: '${HOST}'}}",
        environment={**ENVIRONMENT, "HOST": "example.org"},
    )
    up = config.upstreams["up"]
    assert isinstance(up, OpenAIFile)
    assert (up.base_url, up.api_key, up.headers) == (
        "https://example.org/v1",
        "sk-provider",
        {"X-Team": "a-example.org"},
    )
    assert "${HOST}" in repr(config.upstreams["say"])


def test_a_provider_key_is_in_no_repr_of_the_config(load) -> None:
    config = load(upstreams="upstreams: {up: {kind: openai, base_url: 'https://h/v1', api_key: '${PROVIDER_KEY}'}}")
    assert "sk-provider" not in repr(config)


def test_the_shipped_config_is_sound_without_any_environment() -> None:
    config = load_config(Path(__file__).parents[3] / "config.yaml", {})
    assert [guard.name for guard in config.guards] == ["libra-mini", "rules"]
    assert list(config.keys) == ["demo"]


def test_a_config_that_is_not_there_is_a_mistake_not_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("config.yaml"), {})
    assert caught.value.mistakes[0] == (
        "config.yaml:1:1: cannot be read (No such file or directory) -- is it there, and may you read it?"
    )


OLD_WORDS = "guards: [{kind: rules}, {kind: classifier, name: libra-mini, providers: [cuda, cpu]}]"


def test_old_words_still_work_and_each_is_noted_with_its_place(load) -> None:
    config = load(guards=OLD_WORDS)
    personal_data, classifier = config.guards
    assert (personal_data.kind, personal_data.name) == ("personal_data", "rules")
    assert isinstance(classifier, ClassifierFile)
    assert classifier.devices == ["cuda", "cpu"]
    assert config.notes == (
        f"{C}:2:17 guards[0].kind: is an old name, which still works -- write personal_data",
        f"{C}:2:62 guards[1].providers: is an old name, which still works -- write devices",
    )


def test_todays_words_are_not_noted(load) -> None:
    guards = "guards: [{kind: personal_data}, {kind: classifier, name: libra-mini, devices: [cpu]}]"
    assert load(guards=guards).notes == ()


def test_old_words_inside_a_cascade_work_too(load) -> None:
    small = "{kind: classifier, name: libra-mini, providers: [cuda]}"
    config = load(
        guards=f"guards: [{{kind: cascade, name: c, small: {small}, large: {{kind: scripted}}, band: [0, 1]}}]"
    )
    (cascade,) = config.guards
    assert isinstance(cascade, CascadeFile)
    assert isinstance(cascade.small, ClassifierFile)
    assert cascade.small.devices == ["cuda"]
    assert len(config.notes) == 1


@pytest.mark.parametrize(
    ("guard", "told"),
    [
        (
            "{kind: classifier, name: a, devices: [cpu], providers: [cpu]}",
            f"{C}:2:54 guards[0].providers: is the old name of devices, which is there too -- keep one of the two",
        ),
        (
            "{kind: classifier, name: a, providers: [gpu]}",
            f"{C}:2:50 guards[0].devices[0]: 'gpu' is not one of cpu, cuda, tensorrt -- did you mean 'cpu'?",
        ),
        (
            "{kind: classifier, name: a, device: [cpu]}",
            f"{C}:2:38 guards[0].device: is not a key that is known here -- did you mean 'devices'?",
        ),
        ("{kind: personal-data}", "-- did you mean 'personal_data'?"),
    ],
)
def test_words_that_are_neither_old_nor_new_fail_with_todays_word(mistakes, guard: str, told: str) -> None:
    (mistake,) = mistakes(guards=f"guards: [{guard}]")
    assert told in mistake


def test_a_tenant_may_name_a_preset_and_then_needs_no_policy_file(load) -> None:
    for path in Path("policies").iterdir():
        path.unlink()
    Path("policies").rmdir()
    config = load(tenants="tenants: {shop: {preset: strict, key_variable: SHOP_KEY}}")
    (tenant,) = config.tenants
    assert tenant.policy.name == "strict"
    assert set(config.policies) == {"strict"}
