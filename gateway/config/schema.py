"""How config.yaml is written."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo

from gateway.strict.messages import complaint, shown, suggestion
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import HASH_PREFIX
from gateway.upstreams.retries import Retries
from gateway.upstreams.upstream import Timeouts
from guard_runtime.conversation import MediaKind
from guard_runtime.guards.cascade import ABOVE
from guard_runtime.guards.remote import Server
from guard_runtime.serving.breaker import Breaker
from guard_runtime.verdict import Category

_LIMITS = Limits()
_TIMEOUTS = Timeouts()
_RETRIES = Retries()
_SERVER = Server("", "")
_BREAKER = Breaker()

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HASH = re.compile(HASH_PREFIX + "[0-9a-f]{64}")
_VISIBLE = re.compile("[!-~]([ -~]*[!-~])?")
_HOP_HEADERS = frozenset({"authorization", "connection", "content-length", "content-type", "host", "transfer-encoding"})


def _from_environment(value: str, info: ValidationInfo) -> str:
    """`${NAME}` replaced by the environment's NAME; the rest as it is."""
    environment = info.context or {}

    def named(reference: re.Match[str]) -> str:
        name = reference[1]
        if not _NAME.fullmatch(name) or not reference[0].endswith("}"):
            raise complaint("has a ${ that names no variable", "write ${NAME}")
        if not environment.get(name):
            raise complaint(f"the environment variable {name} is not set", f"export {name}=... before the start")
        return str(environment[name])

    return _VARIABLE.sub(named, value)


def _visible(value: str) -> str:
    if not _VISIBLE.fullmatch(value):
        raise complaint("is empty, or holds a line break or a character outside ASCII", "check how it was copied")
    return value


def _url(value: str) -> str:
    try:
        url = urlsplit(value)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise complaint("is not an http or https address", "write it as for the OpenAI SDK: https://host/v1")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        what = "holds more than a host, a port and a path"
        raise complaint(what, "remove user, password, ? and #; a key belongs in api_key")
    return value


def _key_hash(value: object) -> str:
    """Never shows the value: somebody may have written the key itself."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise complaint("is not a key's hash", "take the line `sha256:...` that `libragate keys new TENANT` prints")
    return value


def _models(value: object) -> list[str] | Literal["*"]:
    if value == "*" or (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        return value
    what = "has no value" if value is None else f"must be a list of models, not {shown(value)}"
    raise complaint(what, 'write [name, ...], or "*" for all')


def _label(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
        raise complaint("is not a name", "use up to 64 letters, digits, - _ and .")
    return value


def _model_name(value: str) -> str:
    if len(value) > 128 or not _VISIBLE.fullmatch(value):
        raise complaint("is not a model's name", "use up to 128 letters, digits and signs of ASCII")
    return value


def _header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", value) or value.lower() in _HOP_HEADERS:
        raise complaint("is not a header that may be set here", "the provider's key belongs in api_key")
    return value


def _category(value: str) -> Category:
    if value not in tuple(Category):
        known = tuple(category.value for category in Category)
        raise complaint(f"{shown(value)} is not a category", suggestion(value, known, f"choose of {', '.join(known)}"))
    return Category(value)


def _band(value: list[float]) -> list[float]:
    if len(value) != 2 or not 0 <= value[0] <= value[1] <= ABOVE:
        advice = f"write [low, high] with 0 <= low <= high <= {ABOVE}: libragate guard tune-cascade finds it"
        raise complaint("is not a band", advice)
    return value


CategoryName = Annotated[str, AfterValidator(_category)]
Label = Annotated[str, AfterValidator(_label)]
ModelName = Annotated[str, AfterValidator(_model_name)]
Secret = Annotated[str, AfterValidator(_from_environment), AfterValidator(_visible)]
Address = Annotated[str, AfterValidator(_from_environment), AfterValidator(_url)]
HeaderName = Annotated[str, AfterValidator(_header)]
DeviceName = Literal["cpu", "cuda", "tensorrt"]
RemoteFamily = Literal[
    "libragate", "libra_guard", "instruct", "qwen3guard_gen", "llama_guard_3", "llama_guard_4", "shieldlm"
]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class ListenFile(_File):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


class LimitsFile(_File):
    body_bytes: int = Field(default=_LIMITS.body_bytes, ge=1024, le=1 << 30)
    body_seconds: float = Field(default=_LIMITS.body_seconds, gt=0, le=3600)
    header_seconds: float = Field(default=_LIMITS.header_seconds, gt=0, le=3600)
    messages: int = Field(default=_LIMITS.messages, ge=1, le=1_000_000)
    guard_seconds: float = Field(default=10.0, gt=0, le=3600)


class PlacedFile(_File):
    """Where a model of ours runs (reference/devices.md). `engine_cache` is a folder for what TensorRT builds, relative
    to config.yaml."""

    devices: list[DeviceName] = Field(default=["cpu"], min_length=1, max_length=3)
    degrade: bool = False
    io_binding: bool = False
    engine_cache: str = Field(default="engines", min_length=1)
    threads: int = Field(default=1, ge=1, le=256)
    max_queue: int = Field(default=512, ge=1, le=1_000_000)
    cache_bytes: int = Field(default=16 << 20, ge=0, le=1 << 40)


class ClassifierFile(PlacedFile):
    """`path` is the artefact's folder; without it, the guard of that name that ships with LibraGate. `cache_bytes` is
    for verdicts, 0 for none; `max_queue` counts texts that wait. `sessions`: how many windows of one text are read at a
    time, 0 for as many as the machine has cores."""

    kind: Literal["classifier"]
    name: Label
    path: str = Field(default="", min_length=1)
    sessions: int = Field(default=0, ge=0, le=64)
    first_stage: bool = True
    cuda_graphs: bool = False
    unverified: bool = False


class GenerativeFile(PlacedFile):
    """An artefact of `python -m export`. `memory_bytes` of keys and values are kept for streams. `analysis`: it says
    why in the audit log, where a policy records text."""

    kind: Literal["generative"]
    name: Label
    path: str = Field(min_length=1)
    max_tokens: int = Field(default=4_096, ge=256, le=8_192)
    memory_bytes: int = Field(default=268_435_456, ge=0, le=1 << 40)
    unverified: bool = False
    analysis: bool = False


class RemoteFile(_File):
    """A guard behind an OpenAI-compatible server, or another LibraGate (`family: libragate`). `base_url` as the OpenAI
    SDK takes it, with its /v1."""

    kind: Literal["remote"]
    name: Label
    base_url: Address
    model: ModelName
    family: RemoteFamily
    api_key: Secret | None = Field(default=None, repr=False)
    seconds: float = Field(default=_SERVER.deadline, gt=0, le=3600)
    connections: int = Field(default=_SERVER.connections, ge=1, le=10_000)
    max_queue: int = Field(default=_SERVER.queue, ge=1, le=1_000_000)
    failures: int = Field(default=_BREAKER.failures, ge=1, le=1000)
    pause: float = Field(default=_BREAKER.seconds, gt=0, le=3600)
    temperature: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    bias: float = Field(default=0.0, ge=-1000, le=1000, allow_inf_nan=False)
    cache_bytes: int = Field(default=16 << 20, ge=0, le=1 << 40)


class PersonalDataFile(_File):
    """Its default name is the old one, so that headers, records and metrics stay as they were."""

    kind: Literal["personal_data"]
    name: Label = "rules"


class ScriptedGuardFile(_File):
    kind: Literal["scripted"]
    name: Label = "scripted"
    words: dict[str, CategoryName] = Field(default={})
    score: float = Field(default=0.99, ge=0, le=1, allow_inf_nan=False)


MemberFile = Annotated[ClassifierFile | GenerativeFile | RemoteFile | ScriptedGuardFile, Field(discriminator="kind")]


class CascadeFile(_File):
    """`small` reads everything, `large` what `small` scores in `band`, [low, high): see `guard tune-cascade`."""

    kind: Literal["cascade"]
    name: Label
    small: MemberFile
    large: MemberFile
    band: Annotated[list[float], AfterValidator(_band)]


GuardFile = Annotated[
    ClassifierFile | GenerativeFile | RemoteFile | CascadeFile | PersonalDataFile | ScriptedGuardFile,
    Field(discriminator="kind"),
]


class TimeoutsFile(_File):
    """Seconds."""

    connect: float = Field(default=_TIMEOUTS.connect, gt=0, le=3600)
    first_byte: float = Field(default=_TIMEOUTS.first_byte, gt=0, le=3600)
    idle: float = Field(default=_TIMEOUTS.idle, gt=0, le=3600)
    whole: float = Field(default=_TIMEOUTS.whole, gt=0, le=86_400)


class RetriesFile(_File):
    attempts: int = Field(default=_RETRIES.attempts, ge=1, le=10)
    wait: float = Field(default=_RETRIES.wait, gt=0, le=60)
    longest_wait: float = Field(default=_RETRIES.longest_wait, gt=0, le=300)


class OpenAIFile(_File):
    """`base_url` as the OpenAI SDK takes it, with its /v1."""

    kind: Literal["openai"]
    base_url: Address
    api_key: Secret | None = Field(default=None, repr=False)
    headers: dict[HeaderName, Secret] = Field(default={}, repr=False)
    timeouts: TimeoutsFile = TimeoutsFile()
    retries: RetriesFile = RetriesFile()


class LiteLLMFile(_File):
    """`options` are litellm's own for the vendor, such as `api_version` or `aws_region_name`."""

    kind: Literal["litellm"]
    base_url: Address | None = None
    api_key: Secret | None = Field(default=None, repr=False)
    options: dict[str, Secret] = Field(default={}, repr=False)
    timeouts: TimeoutsFile = TimeoutsFile()
    retries: RetriesFile = RetriesFile()


class DemoFile(_File):
    kind: Literal["demo"]


class ScriptedFile(_File):
    kind: Literal["scripted"]
    says: str = "Hello from LibraGate."


UpstreamFile = Annotated[OpenAIFile | LiteLLMFile | DemoFile | ScriptedFile, Field(discriminator="kind")]


class ModelFile(_File):
    """`model` is what the upstream calls it; without it, as it is called here. `tokenizer` is its tokenizer.json,
    relative to config.yaml: only with it are prompts taken as token ids."""

    upstream: str
    model: str = Field(default="", max_length=256)
    tokenizer: str = Field(default="", min_length=1)


class ReaderFile(_File):
    """A model that puts media into words for the guards. `describe`: a chat model that takes it in a message;
    `transcribe`: a speech model behind `/audio/transcriptions` of an `openai` upstream. `bytes`: the largest
    piece."""

    kind: Literal["describe", "transcribe"] = "describe"
    upstream: str
    model: ModelName
    timeout: float = Field(default=20.0, gt=0, le=600)
    bytes: int = Field(default=4 << 20, ge=1, le=64 << 20)


class ReadersFile(_File):
    """Who reads what. Without a reader, media is what `on_unreadable` answers for."""

    image: ReaderFile | None = None
    audio: ReaderFile | None = None
    file: ReaderFile | None = None

    def each(self) -> dict[MediaKind, ReaderFile]:
        readers = {kind: getattr(self, kind.value) for kind in MediaKind}
        return {kind: file for kind, file in readers.items() if file is not None}


class TenantFile(_File):
    """Either `policy`, a file of the policies folder, or `preset`, a policy that ships. `key_variable` names an
    environment variable that holds one more key; where it is not set, a key is made."""

    policy: str | None = None
    preset: Literal["permissive", "balanced", "strict"] | None = None
    models: Annotated[list[str] | Literal["*"], PlainValidator(_models)] = "*"
    keys: list[Annotated[str, PlainValidator(_key_hash)]] = Field(default=[])
    key_variable: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class ConfigFile(_File):
    listen: ListenFile = ListenFile()
    policies: str = "policies"
    limits: LimitsFile = LimitsFile()
    guards: list[GuardFile] = Field(default=[])
    upstreams: dict[Label, UpstreamFile] = Field(default={})
    models: dict[ModelName, ModelFile] = Field(default={})
    readers: ReadersFile = ReadersFile()
    tenants: dict[Label, TenantFile] = Field(default={})
    key_pepper: Secret = Field(default="", repr=False)
