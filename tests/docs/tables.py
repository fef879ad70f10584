"""What stands in each generated table, walked from the code."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import click
from pydantic import BaseModel

from gateway import errors
from gateway.__main__ import COMMANDS, main
from gateway.commands.terminal import Exit
from gateway.config import schema as config
from gateway.dialects.registry import dialects
from gateway.judging.prompt import Seen
from gateway.policy import schema as policy
from gateway.policy.loader import load_policies
from gateway.policy.policy import Reason
from gateway.records.receipts import receipt
from gateway.records.record import Outcome
from guard_runtime.conversation import Direction, Source
from guard_runtime.generative.families.family import Family
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.verdict import CATEGORIES, UnreadReason
from tests.docs.generated import Table
from tests.docs.pages import ROOT
from tests.docs.samples import metric_labels, record

CONFIG: Mapping[str, type[BaseModel]] = {
    "top": config.ConfigFile,
    "listen": config.ListenFile,
    "limits": config.LimitsFile,
    "devices": config.PlacedFile,
    "classifier": config.ClassifierFile,
    "generative": config.GenerativeFile,
    "remote": config.RemoteFile,
    "cascade": config.CascadeFile,
    "personal data": config.PersonalDataFile,
    "scripted guard": config.ScriptedGuardFile,
    "openai": config.OpenAIFile,
    "timeouts": config.TimeoutsFile,
    "retries": config.RetriesFile,
    "litellm": config.LiteLLMFile,
    "demo": config.DemoFile,
    "scripted upstream": config.ScriptedFile,
    "models": config.ModelFile,
    "readers": config.ReadersFile,
    "reader": config.ReaderFile,
    "tenants": config.TenantFile,
}
POLICY: Mapping[str, type[BaseModel]] = {
    "top": policy.PolicyFile,
    "rule": policy.RuleFile,
    "texts": policy.TextsFile,
    "regenerate": policy.RegenerateFile,
    "failure": policy.FailureFile,
    "sources": policy.SourcesFile,
    "stream": policy.StreamFile,
}

_KEYS = {"zh": ("键", "类型", "默认", "意思"), "en": ("Key", "Type", "Default", "Meaning")}
_SAYS = {"zh": ("键", "意思"), "en": ("Key", "Meaning")}
_TYPES = {
    "string": {"zh": "字符串", "en": "string"},
    "integer": {"zh": "整数", "en": "integer"},
    "number": {"zh": "数", "en": "number"},
    "boolean": {"zh": "布尔", "en": "boolean"},
    "array": {"zh": "列表", "en": "list"},
    "object": {"zh": "映射", "en": "map"},
}
_OTHERS = {"zh": "见意思一栏", "en": "see the meaning"}
_NEEDED = {"zh": "必填", "en": "required"}
_NONE = {"zh": "无", "en": "none"}


def tables() -> Iterator[Table]:
    """Every generated table of the reference pages."""
    yield from (_keys("config", name, model) for name, model in CONFIG.items())
    yield from (_keys("policy", name, model) for name, model in POLICY.items())
    yield _named("policy", "categories", CATEGORIES)
    yield _presets()
    yield from _record_tables()
    yield from _http_tables()
    yield _metrics()
    yield from _command_tables()
    yield _families()


def _named(page: str, name: str, keys: Any) -> Table:
    return Table(page, name, _SAYS, tuple((str(key),) for key in keys))


def _keys(page: str, name: str, model: type[BaseModel]) -> Table:
    """The model's own keys, without those of the model it extends."""
    inherited = {key for base in model.__bases__ if issubclass(base, BaseModel) for key in base.model_fields}
    properties = model.model_json_schema()["properties"]
    own = [(field.alias or key, key) for key, field in model.model_fields.items() if key not in inherited]
    rows = [(name, _type(properties[name]), _default(model, key)) for name, key in own]
    return Table(page, name, _KEYS, tuple(rows))


def _type(value: Mapping[str, Any]) -> dict[str, str] | str:
    choices = [choice for choice in value.get("anyOf", ()) if choice.get("type") != "null"]
    match value:
        case {"enum": names}:
            return " ".join(f"`{name}`" for name in names)
        case {"const": name}:
            return f"`{name}`"
        case {"type": "array", "items": {"enum": names}}:
            listed = " ".join(f"`{name}`" for name in names)
            return {language: f"{word}: {listed}" for language, word in _TYPES["array"].items()}
        case {"type": str(kind)}:
            return {language: word + _range(value) for language, word in _TYPES[kind].items()}
        case _ if len(choices) == 1:
            return _type(choices[0])
        case {"$ref": _}:
            return _TYPES["object"]
        case _:
            return _OTHERS


def _range(value: Mapping[str, Any]) -> str:
    least = value.get("minimum", value.get("exclusiveMinimum"))
    most = value.get("maximum")
    if least is None or most is None:
        return ""
    return f", {'>' if 'exclusiveMinimum' in value else ''}{least:.15g} … {most:.15g}"


def _default(model: type[BaseModel], key: str) -> dict[str, str] | str:
    field = model.model_fields[key]
    if field.is_required():
        return _NEEDED
    default = field.default
    if isinstance(default, BaseModel) or default is None or default == "":
        return "-" if isinstance(default, BaseModel) else _NONE
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _presets() -> Table:
    columns = {
        "zh": ("预设", "`system`", "`tools`", "`results`", "`history`", "拦什么"),
        "en": ("Preset", "`system`", "`tools`", "`results`", "`history`", "Stops"),
    }
    presets = load_policies(ROOT / "policies").presets
    sources = {name: presets[name].sources for name in ("permissive", "balanced", "strict")}
    rows = ((name, f"`{s.system}`", f"`{s.tools}`", f"`{s.results}`", f"`{s.history}`") for name, s in sources.items())
    return Table("policy", "presets", columns, tuple(rows))


def _record_tables() -> Iterator[Table]:
    line = record().line()
    yield _named("records", "record", line)
    yield _named("records", "outcome", Outcome)
    yield _named("records", "decisions", line["decisions"][0])
    yield _named("records", "reason", Reason)
    yield _named("records", "decided_by", line["decisions"][0]["decided_by"])
    yield _named("records", "source", Source)
    yield _named("records", "seen", Seen)
    yield _named("records", "unread", line["unread"][0])
    yield _named("records", "unread reason", UnreadReason)
    yield _named("records", "coverage", line["coverage"]["prompt"][0])
    yield _named("records", "characters", line["characters"])
    yield _named("records", "seconds", line["seconds"])
    yield _named("http-api", "receipt", receipt(record()))


def _http_tables() -> Iterator[Table]:
    yield _named("http-api", "routes", [dialect.path for dialect in dialects()])
    columns = {"zh": ("`code`", "状态", "`type`", "什么时候"), "en": ("`code`", "Status", "`type`", "When")}
    found = sorted(_error_classes(errors.GatewayError), key=lambda error: error.status)
    codes = {error.code: (error.code, str(error.status), f"`{error.type}`") for error in found}
    yield Table("http-api", "errors", columns, tuple(codes.values()))


def _error_classes(error: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield error
    for narrower in error.__subclasses__():
        yield from _error_classes(narrower)


def _metrics() -> Table:
    columns = {"zh": ("指标", "类型", "标签", "说什么"), "en": ("Metric", "Type", "Labels", "What it says")}
    return Table("metrics", "metrics", columns, tuple(metric_labels()))


def _command_tables() -> Iterator[Table]:
    columns = {"zh": ("选项", "默认", "意思"), "en": ("Option", "Default", "Meaning")}
    for name, command in _commands():
        rows = [(_usage(parameter), _given(parameter)) for parameter in command.params]
        yield Table("cli", name, columns, tuple(rows))
    yield Table("cli", "exit codes", {"zh": ("退出码", "意思"), "en": ("Exit code", "Meaning")},
                tuple((str(int(code)),) for code in Exit))  # fmt: skip


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group):
            yield name, command
        for leaf, made in command.commands.items() if isinstance(command, click.Group) else ():
            yield f"{name} {leaf}", made


def _usage(parameter: click.Parameter) -> str:
    return parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(click.Context(main))


def _given(parameter: click.Parameter) -> dict[str, str] | str:
    if parameter.required:
        return _NEEDED
    default = parameter.to_info_dict()["default"]
    return _NONE if default in (None, False, [], "") else f"`{default}`"


def _families() -> Table:
    columns = {
        "zh": ("家族", "读", "判定词", "每次判定问几遍", "备注"),
        "en": ("Family", "Reads", "Verdict words", "Times it is asked", "Remarks"),
    }
    return Table("guards", "families", columns, tuple(map(_family, FAMILIES.values())))


def _family(family: Family) -> tuple[str | dict[str, str], ...]:
    ways = [way for way in Direction if way in family.messages]
    reads = {
        "zh": "、".join("提问" if way is Direction.PROMPT else "回答" for way in ways),
        "en": ", ".join("prompts" if way is Direction.PROMPT else "answers" for way in ways),
    }
    heads = dict.fromkeys(chain.from_iterable(head.risks for head in family.heads.values()))
    words = [word.text.strip() for word in family.words] or list(heads)
    times = max((len(asked) for asked in family.questions.values()), default=1)
    return family.name, reads, ", ".join(f"`{word}`" for word in words), str(times)
