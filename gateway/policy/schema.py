"""How a policy file is written, and what it means to the gateway."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from gateway.policy.policy import (
    Action,
    DirectionPolicy,
    OnBlock,
    Policy,
    Rewrite,
    Rule,
    StreamMode,
    StreamSettings,
)
from gateway.policy.sources import BlockedTurn, History, Sources, Treatment
from gateway.strict.messages import complaint, shown, suggestion
from gateway.strict.strict_yaml import Keys
from guard_runtime.conversation import Direction
from guard_runtime.guard import POINTS
from guard_runtime.verdict import CATEGORIES, Category

_STREAM = StreamSettings()

ActionName = Literal["block", "rewrite", "log", "allow"]
RewriteName = Literal["mask", "safe_message", "regenerate"]
FailureAction = Literal["block", "log", "allow"]
TreatmentName = Literal["all", "attacks", "grave", "trust"]

_SOURCES = Sources()


def _threshold(value: object) -> float | str:
    match value:
        case str() if value in POINTS:
            return value
        case str():
            unquoted = value.replace(".", "", 1).isdigit()
            advice = "remove the quotes" if unquoted else suggestion(value, POINTS, "write a score from 0 to 1")
        case bool():
            advice = "write a score from 0 to 1"
        case int() | float() if 0 <= value <= 1:
            return float(value)
        case int() | float() if 1 < value <= 100:
            advice = f"a score goes from 0 to 1: did you mean {value / 100:g}?"
        case _:
            advice = f"write a score from 0 to 1, or {' or '.join(POINTS)}"
    raise complaint(f"{shown(value)} is not a threshold" if value is not None else "has no value", advice)


Threshold = Annotated[
    float | str,
    PlainValidator(_threshold),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"enum": list(POINTS)}]}),
]


FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RuleFile(_File):
    """一条规则：得分达到阈值就处置。One rule: from this score on, do this."""

    at: Threshold = Field(
        description="阈值：0 到 1，或护栏自带的 permissive / balanced / strict。A score, or a guard's own point."
    )
    do: ActionName = Field(description="处置：拦截、改写、记录、放行。What to do.")
    rewrite: RewriteName = Field(
        default="safe_message", description="改写方式（do: rewrite 时）。How, with do: rewrite."
    )


class CategoryFile(_File):
    prompt: list[RuleFile] = Field(default=[], description="对提问的规则。Rules for what is asked.")
    response: list[RuleFile] = Field(default=[], description="对回答的规则。Rules for what is answered.")


class RulesFile(_File):
    illegal_activities_and_crime: CategoryFile = Field(
        default=CategoryFile(), description="违法犯罪 illegal activity, crime"
    )
    bias_and_discrimination: CategoryFile = Field(default=CategoryFile(), description="偏见歧视 bias, discrimination")
    privacy_and_property: CategoryFile = Field(default=CategoryFile(), description="隐私与财产 privacy, property")
    rumors_and_misinformation: CategoryFile = Field(
        default=CategoryFile(), description="谣言与虚假信息 rumours, misinformation"
    )
    hate_speech_and_abuse: CategoryFile = Field(default=CategoryFile(), description="仇恨与辱骂 hate, abuse")
    ethics_and_morality: CategoryFile = Field(default=CategoryFile(), description="伦理道德 ethics, morality")
    physical_and_mental_health: CategoryFile = Field(
        default=CategoryFile(), description="身心健康 physical and mental health"
    )
    prompt_attack: CategoryFile = Field(default=CategoryFile(), description="对模型的攻击 attacks on the model itself")


class TextsFile(_File):
    """同一句话的中文和英文。One sentence in Chinese and in English."""

    zh: str = Field(default="", description="中文", max_length=2000)
    en: str = Field(default="", description="English", max_length=2000)


class RegenerateFile(_File):
    instruction: TextsFile = Field(
        default=TextsFile(), description="重答时给模型的话。What the model is told when asked again."
    )
    attempts: int = Field(default=1, ge=1, le=3, description="最多重答几次。How often at most.")


class FailureFile(_File):
    prompt: FailureAction = "block"
    response: FailureAction = "block"


class SealedFile(_File):
    prompt: FailureAction = "log"
    response: FailureAction = "log"


class StreamFile(_File):
    """窗口以估计的词元计，时间以秒计。Windows in estimated tokens, times in seconds."""

    mode: Literal["hold", "async"] = Field(
        default="hold", description="hold：检过才放出。hold: nothing leaves unchecked."
    )
    first_window: int = Field(default=_STREAM.first_window, ge=1, le=4096, description="首个窗口 first window")
    window: int = Field(default=_STREAM.window, ge=1, le=4096, description="之后的窗口 later windows")
    max_window: int = Field(default=_STREAM.max_window, ge=1, le=8192, description="窗口上限 largest window")
    overlap: int = Field(
        default=_STREAM.overlap, ge=0, le=4096, description="每次重读的前文 text read again with each check"
    )
    release_after: float = Field(
        default=_STREAM.release_after, ge=0.01, le=60, description="最多等多久就检 longest wait"
    )
    max_held: int = Field(
        default=_STREAM.max_held, ge=1024, le=16_777_216, description="最多暂扣多少字节 most bytes held"
    )
    idle_timeout: float = Field(
        default=_STREAM.idle_timeout, ge=1, le=3600, description="上游静默多久算断 silent upstream"
    )
    timeout: float = Field(default=_STREAM.timeout, ge=1, le=86_400, description="整个流的时限 whole stream")


class SourcesFile(_File):
    """每一种文字按什么来判。What each kind of text is judged for."""

    system: TreatmentName = Field(
        default=_SOURCES.system.value, description="开头的系统提示 the leading system prompt", validate_default=True
    )
    tools: TreatmentName = Field(
        default=_SOURCES.tools.value, description="工具定义和 schema tool definitions, schemas"
    )
    results: TreatmentName = Field(
        default=_SOURCES.results.value, description="工具结果和文档 tool results and documents"
    )
    history: Literal["always", "once"] = Field(
        default=_SOURCES.history.value,
        description="once：判过并放行的旧轮次不再判。once: an earlier turn that was let through is not judged again.",
    )
    blocked_turn: Literal["block", "drop", "ignore"] = Field(
        default=_SOURCES.blocked_turn.value,
        description="旧轮次该拦时：block 拦、drop 去掉、ignore 不管。An earlier turn that would be blocked.",
    )

    def sources(self) -> Sources:
        """As the gateway uses it."""
        return Sources(
            system=Treatment(self.system),
            tools=Treatment(self.tools),
            results=Treatment(self.results),
            history=History(self.history),
            blocked_turn=BlockedTurn(self.blocked_turn),
        )


class PolicyFile(_File):
    """LibraGate 策略文件。A LibraGate policy file."""

    extends: str = Field(
        default="", min_length=1, description="父策略的名字（不带 .yaml）。The parent's name, without .yaml."
    )
    on_block: Literal["error", "completion"] = Field(
        default="error", description="提问被拦：400，或一条 200 的拒答。400 or a 200."
    )
    refusal: TextsFile = Field(
        default=TextsFile(), description="拒答，按对话语言选用。The refusal, by the caller's language."
    )
    regenerate: RegenerateFile = Field(
        default=RegenerateFile(), description="rewrite: regenerate 的设置。Its settings."
    )
    record_text: bool = Field(default=False, description="记录里写入原文。Write the text itself into records.")
    expose_scores: bool = Field(
        default=False, description="把得分告诉调用方。Tell the caller scores: it helps an attacker."
    )
    annotations: bool = Field(
        default=False,
        description="回答里附上 Azure 式的过滤结果。Azure's filter results beside every answer.",
    )
    trust: list[Literal["system", "tools"]] = Field(
        default=[],
        description="旧写法，同 sources.system / tools: trust。The old way to write sources.system / tools: trust.",
    )
    sources: SourcesFile = Field(
        default=SourcesFile(), description="每一种文字按什么来判。What each kind of text is judged for."
    )
    on_guard_failure: FailureFile = Field(
        default=FailureFile(), description="护栏失灵时。When a guard gives no verdict."
    )
    on_unreadable: FailureFile = Field(
        default=FailureFile(), description="有护栏读不了的内容时。When a part cannot be read."
    )
    on_sealed: SealedFile = Field(
        default=SealedFile(),
        description="只有模型厂商能解开的内容（如加密的思考）。What only the provider can read.",
    )
    on_unknown_answer_field: Literal["drop", "block"] = Field(
        default="drop",
        description="回答里不认识的字段：drop 去掉，block 按 on_unreadable 处置。An unknown field of an answer.",
    )
    pass_fields: list[FieldName] = Field(
        default=[],
        alias="pass",
        max_length=64,
        description="回答里这些字段不经检查就放行。Fields of an answer that are let through unread.",
    )
    rules: RulesFile = Field(default=RulesFile(), description="八类，每类两个方向。Eight categories, two directions.")
    stream: StreamFile = Field(default=StreamFile(), description="流式回答。Streamed answers.")

    def rule_files(self, category: Category, direction: Direction) -> list[RuleFile]:
        both: CategoryFile = getattr(self.rules, category.value)
        return both.prompt if direction is Direction.PROMPT else both.response

    def policy(self, name: str, place: Callable[[Keys], str]) -> Policy:
        """What the file says, as what the gateway uses. `place` says where a value was written (base.yaml:14)."""
        unhashed = Policy(
            name=name,
            hash="",
            prompt=self._toward(Direction.PROMPT, place),
            response=self._toward(Direction.RESPONSE, place),
            on_block=OnBlock(self.on_block),
            refusal=self.refusal.model_dump(),
            regenerate_instruction=self.regenerate.instruction.model_dump(),
            max_regenerations=self.regenerate.attempts,
            record_text=self.record_text,
            expose_scores=self.expose_scores,
            annotations=self.annotations,
            drop_unknown=self.on_unknown_answer_field == "drop",
            passed_fields=frozenset(self.pass_fields),
            sources=self._sources(),
            stream=StreamSettings(**self.stream.model_dump() | {"mode": StreamMode(self.stream.mode)}),
        )
        return replace(unhashed, hash=fingerprint(unhashed))

    def _sources(self) -> Sources:
        """`sources`, with the old key `trust` laid over it."""
        sources = self.sources.sources()
        if "system" in self.trust:
            sources = replace(sources, system=Treatment.TRUST)
        if "tools" in self.trust:
            sources = replace(sources, tools=Treatment.TRUST)
        return sources

    def _toward(self, direction: Direction, place: Callable[[Keys], str]) -> DirectionPolicy:
        rules = {
            category: tuple(
                Rule(file.at, Action[file.do.upper()], Rewrite(file.rewrite), place(rule_keys(category, direction, n)))
                for n, file in enumerate(self.rule_files(category, direction))
            )
            for category in CATEGORIES
        }
        return DirectionPolicy(
            rules,
            on_guard_failure=Action[getattr(self.on_guard_failure, direction).upper()],
            on_unreadable=Action[getattr(self.on_unreadable, direction).upper()],
            on_sealed=Action[getattr(self.on_sealed, direction).upper()],
        )


def rule_keys(category: Category, direction: Direction, *rest: str | int) -> Keys:
    return ("rules", category.value, direction.value, *rest)


def fingerprint(policy: Policy) -> str:
    """12 hex digits of SHA-256 over everything a policy does: not its name, nor where its rules were written."""
    meaning = {key: value for key, value in asdict(policy).items() if key not in ("name", "hash")}
    written = json.dumps(_placeless(meaning), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def _placeless(value: Any) -> Any:
    match value:
        case dict():
            return {key: _placeless(inner) for key, inner in value.items() if key != "place"}
        case list() | tuple():
            return [_placeless(inner) for inner in value]
        case frozenset():
            return sorted(value)
        case _:
            return value


def policy_schema() -> dict[str, Any]:
    """JSON Schema for editors, in draft 7, the newest that yaml-language-server reads."""
    schema = PolicyFile.model_json_schema(ref_template="#/definitions/{model}")
    return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": schema.pop("$defs"), **schema}
