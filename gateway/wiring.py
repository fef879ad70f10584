"""From what config.yaml says to the guards, the upstreams and the gateway made of them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from gateway.api.runtime import Gateway, Runtime, Snapshot
from gateway.config.loader import Config
from gateway.config.schema import (
    CascadeFile,
    ClassifierFile,
    DemoFile,
    GenerativeFile,
    GuardFile,
    LiteLLMFile,
    OpenAIFile,
    PersonalDataFile,
    PlacedFile,
    ReaderFile,
    RemoteFile,
    ScriptedFile,
    ScriptedGuardFile,
    UpstreamFile,
)
from gateway.dialects.prompts import Decoder
from gateway.dialects.registry import dialects
from gateway.errors import ConfigError
from gateway.exchange import Route
from gateway.judging.judge import Judge
from gateway.judging.media import MediaDescriber, MediaReader, MediaReaders, Transcriber
from gateway.telemetry.metrics import Metrics
from gateway.upstreams.demo import Demo
from gateway.upstreams.litellm import LiteLLM, Vendor
from gateway.upstreams.openai import Endpoint, OpenAICompatible
from gateway.upstreams.retries import Retries
from gateway.upstreams.upstream import Scripted, Timeouts, Upstream
from guard_runtime.artefacts.shipped import MODELS, shipped_names
from guard_runtime.generative.families.published import FAMILIES
from guard_runtime.guard import Explainable, Guard
from guard_runtime.guards.cascade import Band, Cascade
from guard_runtime.guards.classifier import ClassifierOptions
from guard_runtime.guards.passage_guard import PassageGuard
from guard_runtime.guards.personal_data import PersonalData
from guard_runtime.guards.remote import ChatGuard, Dialogue, LibraGate, Server, load_remote
from guard_runtime.guards.scripted import ScriptedGuard, words
from guard_runtime.loading.classifier import load_classifier
from guard_runtime.loading.generative import limits_on, load_generative
from guard_runtime.loading.options import ServingOptions
from guard_runtime.onnx.devices import Device, Placement
from guard_runtime.serving.batch_observer import BatchObserver
from guard_runtime.serving.breaker import Breaker
from guard_runtime.verdict import Category


def judge_of(config: Config, observer: BatchObserver | None = None) -> Judge:
    """All guards, loaded and self-tested; `observer` is told of their batches. Raises `ArtefactRefused` or
    `ConfigError`."""
    guards = [_guard(file, config.folder, observer) for file in config.guards]
    return Judge(guards, deadline=config.guard_seconds)


def gateway_of(config: Config, judge: Judge, version: str, metrics: Metrics | None = None) -> Gateway:
    """`metrics` are those in which the guards' batches are counted. Raises `ConfigError` when an upstream lacks
    something on this machine."""
    runtime = runtime_of(config, judge, version, metrics or Metrics())
    return Gateway(runtime, snapshot_of(config, runtime))


def runtime_of(config: Config, judge: Judge, version: str, metrics: Metrics) -> Runtime:
    """What lives as long as the process. Of the upstreams, those that a model or a reader uses."""
    used = {file.upstream for file in config.models.values()} | {file.upstream for file in config.readers.values()}
    upstreams = {name: _upstream(name, file) for name, file in config.upstreams.items() if name in used}
    return Runtime(
        judge,
        upstreams,
        readers=MediaReaders({kind: _reader(file, upstreams[file.upstream]) for kind, file in config.readers.items()}),
        dialects=dialects(decoders_of(config)),
        explaining=[
            explainer for guard in judge.guards if isinstance(guard, Explainable) for explainer in guard.explainers
        ],
        version=version,
        metrics=metrics,
    )


def snapshot_of(config: Config, runtime: Runtime) -> Snapshot:
    """What a reload may replace. Raises `ConfigError` for a model whose upstream this process did not start."""
    mistakes = [
        f"model {name}: the upstream {file.upstream} was not there at the start -- restart the gateway"
        for name, file in config.models.items()
        if file.upstream not in runtime.upstreams
    ]
    if mistakes:
        raise ConfigError(tuple(mistakes))
    routes = {name: Route(runtime.upstreams[file.upstream], file.model or name) for name, file in config.models.items()}
    return Snapshot(config.tenants, routes, config.limits)


def decoders_of(config: Config) -> Mapping[str, Decoder]:
    """The tokenizer of each model that takes token ids. Raises `ConfigError`."""
    return {name: _decoder(name, config.folder / m.tokenizer) for name, m in config.models.items() if m.tokenizer}


def _decoder(model: str, path: Path) -> Decoder:
    """What turns token ids back into text. An id that the tokenizer lacks is a `KeyError`: `decode` would drop it."""
    try:
        tokenizer = Tokenizer.from_buffer(path.read_bytes())
    except OSError as exc:
        raise ConfigError((f"model {model}: its tokenizer {path} cannot be read ({exc.strerror})",)) from exc
    except Exception as exc:  # `tokenizers` raises bare Exception for a malformed file
        raise ConfigError((f"model {model}: {path} is no tokenizer.json ({exc})",)) from exc

    def decode(ids: Sequence[int]) -> str:
        for number in ids:
            if tokenizer.id_to_token(number) is None:
                raise KeyError(number)
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    return decode


def _guard(file: GuardFile, folder: Path, observer: BatchObserver | None) -> Guard:
    match file:
        case ClassifierFile():
            return _classifier(file, folder, observer)
        case GenerativeFile():
            return _generative(file, folder, observer)
        case RemoteFile():
            return _remote(file)
        case CascadeFile():
            small, large = (_guard(inner, folder, observer) for inner in (file.small, file.large))
            return Cascade(small, large, Band(*file.band), name=file.name)
        case PersonalDataFile():
            return PersonalData(file.name)
        case ScriptedGuardFile():
            categories = {word: Category(category) for word, category in file.words.items()}
            return ScriptedGuard(words(categories, file.score), name=file.name)


def _classifier(file: ClassifierFile, folder: Path, observer: BatchObserver | None) -> Guard:
    path = folder / file.path if file.path else MODELS / file.name
    if not path.is_dir():
        shipped = ", ".join(shipped_names()) or "none"
        advice = "check its path" if file.path else f"give its path, or use one that ships: {shipped}"
        raise ConfigError((f"guard {file.name}: {path} is not a folder -- {advice}",))
    guard = load_classifier(
        path,
        place=replace(_place(file, folder), cuda_graphs=file.cuda_graphs),
        serving=ServingOptions(file.max_queue, file.cache_bytes, observer=observer),
        options=ClassifierOptions(
            threads=file.sessions or os.cpu_count() or 1, first_stage=file.first_stage, unverified=file.unverified
        ),
    )
    return _named(guard, file.name, path)


def _generative(file: GenerativeFile, folder: Path, observer: BatchObserver | None) -> Guard:
    path = folder / file.path
    if not path.is_dir():
        raise ConfigError((f"guard {file.name}: {path} is not a folder -- make one: python -m export",))
    place = _place(file, folder)
    guard = load_generative(
        path,
        place=place,
        limits=replace(limits_on(place), tokens=file.max_tokens, cache_bytes=file.memory_bytes),
        serving=ServingOptions(file.max_queue, file.cache_bytes, file.analysis, observer),
        unverified=file.unverified,
    )
    require_explanations(file, guard)
    return _named(guard, file.name, path)


def require_explanations(file: GenerativeFile, guard: PassageGuard) -> None:
    """Raises `ConfigError` when the config asks for explanations of a guard that has none."""
    if file.analysis and not guard.explainers:
        problem = f"guard {file.name}: analysis: this guard writes no explanation"
        raise ConfigError((f"{problem} -- use libra_guard or instruct, exported with its head",))


def _place(file: PlacedFile, folder: Path) -> Placement:
    devices = tuple(Device(name) for name in file.devices)
    return Placement(devices, file.threads, file.degrade, folder / file.engine_cache, binding=file.io_binding)


def _named(guard: PassageGuard, name: str, path: Path) -> PassageGuard:
    if guard.name != name:
        raise ConfigError((f"guard {name}: the artefact in {path} is called {guard.name} -- use that name",))
    return guard


def _remote(file: RemoteFile) -> Guard:
    server = Server(
        url=file.base_url,
        model=file.model,
        key=file.api_key or "",
        deadline=file.seconds,
        connections=file.connections,
        queue=file.max_queue,
    )
    dialogue: Dialogue = LibraGate()
    if file.family != "libragate":
        dialogue = ChatGuard(FAMILIES[file.family], file.temperature, file.bias)
    breaker = Breaker(failures=file.failures, seconds=file.pause)
    return load_remote(file.name, server, dialogue, breaker, cache_bytes=file.cache_bytes)


def _reader(file: ReaderFile, upstream: Upstream) -> MediaReader:
    if file.kind == "transcribe" and isinstance(upstream, OpenAICompatible):
        return Transcriber(upstream, file.model, file.timeout, file.bytes)
    return MediaDescriber(upstream, file.model, file.timeout, file.bytes)


def _upstream(name: str, file: UpstreamFile) -> Upstream:
    match file:
        case OpenAIFile():
            return OpenAICompatible(name, _endpoint(file))
        case LiteLLMFile():
            return LiteLLM(name, _vendor(file))
        case DemoFile():
            return Demo(name)
        case ScriptedFile():
            return Scripted.saying(file.says, name)


def _endpoint(file: OpenAIFile) -> Endpoint:
    return Endpoint(
        base_url=file.base_url,
        key=file.api_key,
        headers=file.headers,
        timeouts=Timeouts(**file.timeouts.model_dump()),
        retries=Retries(**file.retries.model_dump()),
    )


def _vendor(file: LiteLLMFile) -> Vendor:
    return Vendor(
        key=file.api_key,
        base_url=file.base_url,
        options=file.options,
        timeouts=Timeouts(**file.timeouts.model_dump()),
        retries=Retries(**file.retries.model_dump()),
    )
