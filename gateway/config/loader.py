"""config.yaml and its policies, read once into frozen objects; every mistake of every file is told at once."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.config.old_words import renewed
from gateway.config.schema import (
    ConfigFile,
    GuardFile,
    ListenFile,
    ModelFile,
    OpenAIFile,
    ReaderFile,
    TenantFile,
    UpstreamFile,
)
from gateway.errors import ConfigError
from gateway.policy.loader import PolicyFolder, load_policies
from gateway.policy.policy import Policy
from gateway.strict import strict_yaml
from gateway.strict.messages import Checked, check, suggestion
from gateway.strict.strict_yaml import Keys, Mistake, YamlFile
from gateway.tenants.limits import Limits
from gateway.tenants.tenants import Tenant, Tenants, hashed, new_key, weakness
from guard_runtime.conversation import MediaKind

MIN_PEPPER = 32
PEPPER_ADVICE = "key_pepper: ${LIBRAGATE_KEY_PEPPER}, with a long random value: openssl rand -hex 32"


@dataclass(frozen=True, slots=True)
class Config:
    """What config.yaml says. `folder` is where it lies: relative paths start there. `keys` tells, for each tenant whose
    key comes from the environment, how to say it: the key itself where it was made just now, otherwise "$NAME". `notes`
    name what works but is better written in another way."""

    folder: Path
    listen: ListenFile
    limits: Limits
    guard_seconds: float
    guards: tuple[GuardFile, ...]
    upstreams: Mapping[str, UpstreamFile]
    models: Mapping[str, ModelFile]
    policies: Mapping[str, Policy]
    readers: Mapping[MediaKind, ReaderFile]
    tenants: Tenants
    keys: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Raises `ConfigError` with every mistake in config.yaml and in all policies."""
    today = renewed(strict_yaml.read(path))
    file = today.file
    checked = check(ConfigFile, file, environment)
    content = checked.content or ConfigFile()
    needed = not content.tenants or any(tenant.preset is None for tenant in content.tenants.values())
    folder = load_policies(path.parent / content.policies, needed=needed)
    references = _ReferenceCheck(content, file, environment, folder) if checked.content else None
    broken = [m for m in references.mistakes() if not checked.touches(m.keys)] if references else []
    mistakes = [*file.mistakes, *checked.mistakes, *broken, *folder.mistakes]
    if mistakes:
        mistakes.sort(key=lambda mistake: _order(mistake, file))
        raise ConfigError(tuple(map(str, mistakes)))
    config = _config(path, content, environment, folder)
    return replace(config, notes=tuple(map(str, today.notes)))


def _order(mistake: Mistake, config: YamlFile) -> tuple[bool, str, int, int]:
    """config.yaml first, then the policies by name, each from its top."""
    place = mistake.place
    return place.file != config.name, place.file, place.line, place.column


@dataclass(frozen=True, slots=True)
class _ReferenceCheck:
    """Finds mistakes that no single value shows: names of things that are not defined, keys that open nothing."""

    content: ConfigFile
    file: YamlFile
    environment: Mapping[str, str]
    folder: PolicyFolder

    def mistakes(self) -> Iterator[Mistake]:
        yield from self._needed()
        yield from self._guards()
        for name, model in self.content.models.items():
            yield from self._named("upstream", model.upstream, self._names("upstreams"), ("models", name, "upstream"))
        yield from self._readers()
        for name, tenant in self.content.tenants.items():
            keys = ("tenants", name)
            yield from self._policy(tenant, keys)
            for n, model_name in enumerate(tenant.models if tenant.models != "*" else ()):
                yield from self._named("model", model_name, self._names("models"), (*keys, "models", n))
        yield from self._keys()
        yield from self._pepper()

    def _policy(self, tenant: TenantFile, keys: Keys) -> Iterator[Mistake]:
        if tenant.policy is not None and tenant.preset is not None:
            yield self._at((*keys, "preset"), "stands beside policy", "keep one of the two")
        elif tenant.policy is not None:
            yield from self._named("policy", tenant.policy, self.folder.names, (*keys, "policy"))
        elif tenant.preset is None:
            yield self._at(keys, "has no policy", "write preset: balanced, or policy: and the name of a policy file")

    def _needed(self) -> Iterator[Mistake]:
        needed = {
            "guards": "no guard would look at anything: list at least one",
            "upstreams": "no model could answer: name at least one",
            "models": "there is nothing to ask: name at least one",
            "tenants": "nobody could ask: name at least one",
        }
        for key, advice in needed.items():
            if not getattr(self.content, key):
                yield self._at((key,), "is missing or empty", advice)

    def _guards(self) -> Iterator[Mistake]:
        names = [guard.name for guard in self.content.guards]
        for n, name in enumerate(names):
            if name in names[:n]:
                yield self._at(("guards", n, "name"), f"a second guard is called {name}", "give it another name")

    def _readers(self) -> Iterator[Mistake]:
        for kind, reader in self.content.readers.each().items():
            keys = ("readers", kind.value)
            yield from self._named("upstream", reader.upstream, self._names("upstreams"), (*keys, "upstream"))
            if reader.kind == "transcribe" and kind is not MediaKind.AUDIO:
                yield self._at((*keys, "kind"), "only audio can be transcribed", "use describe")
            upstream = self.content.upstreams.get(reader.upstream)
            if reader.kind == "transcribe" and upstream is not None and not isinstance(upstream, OpenAIFile):
                yield self._at((*keys, "upstream"), f"{upstream.kind} cannot transcribe", "use one of kind openai")

    def _named(self, kind: str, name: str, known: frozenset[str], keys: Keys) -> Iterator[Mistake]:
        if name not in known:
            there_are = f"there are {', '.join(sorted(known)) or 'none'}"
            yield self._at(keys, f"there is no {kind} '{name}'", suggestion(name, known, there_are))

    def _names(self, section: str) -> frozenset[str]:
        """As the file has them: one that is itself at fault is not unknown."""
        written = self.file.data.get(section) if isinstance(self.file.data, dict) else None
        return frozenset(written) if isinstance(written, dict) else frozenset()

    def _keys(self) -> Iterator[Mistake]:
        seen: dict[str, str] = {}
        for name, tenant in self.content.tenants.items():
            keys = ("tenants", name)
            for n, value in enumerate(tenant.keys):
                if value in seen:
                    what = f"is a key of the tenant {seen[value]} already"
                    yield self._at((*keys, "keys", n), what, f"make another: libragate keys new {name}")
                seen[value] = name
            if not tenant.keys and not tenant.key_variable:
                yield self._at(keys, "has no key: nobody could use it", f"run: libragate keys new {name}")
            weak = weakness(self.environment[tenant.key_variable]) if tenant.key_variable in self.environment else None
            if weak:
                advice = f"unset it to have a key made at each start, or take one from: libragate keys new {name}"
                yield self._at((*keys, "key_variable"), f"the key in {tenant.key_variable} {weak}", advice)

    def _pepper(self) -> Iterator[Mistake]:
        pepper = self.content.key_pepper
        if not pepper and any(tenant.keys for tenant in self.content.tenants.values()):
            yield self._at(
                ("key_pepper",), "is missing, and the tenants' keys are hashed with it", f"add {PEPPER_ADVICE}"
            )
        elif pepper and len(pepper) < MIN_PEPPER:
            what = f"has {len(pepper)} characters, and needs at least {MIN_PEPPER}"
            yield self._at(("key_pepper",), what, f"write {PEPPER_ADVICE}")

    def _at(self, keys: Keys, what: str, advice: str) -> Mistake:
        return Mistake(self.file.value_place(keys), keys, what, advice)


def _config(path: Path, content: ConfigFile, environment: Mapping[str, str], folder: PolicyFolder) -> Config:
    limits = content.limits.model_dump()
    guard_seconds = limits.pop("guard_seconds")
    # A pepper of this process is enough where no hash is written down: keys from the environment are hashed at start.
    pepper = content.key_pepper.encode() or secrets.token_bytes(MIN_PEPPER)
    hashes: dict[str, Tenant] = {}
    shown: dict[str, str] = {}
    for name, file in content.tenants.items():
        models = content.models if file.models == "*" else file.models
        policy = folder.presets[file.preset] if file.preset else folder.policies[file.policy or ""]
        tenant = Tenant(name, policy, frozenset(models))
        hashes.update({value: tenant for value in file.keys})
        if file.key_variable:
            key = environment.get(file.key_variable) or new_key()
            hashes[hashed(key, pepper)] = tenant
            shown[name] = f"${file.key_variable}" if file.key_variable in environment else key
    return Config(
        folder=path.parent,
        listen=content.listen,
        limits=Limits(**limits),
        guard_seconds=guard_seconds,
        guards=tuple(content.guards),
        upstreams=content.upstreams,
        models=content.models,
        policies={**folder.policies, **{tenant.policy.name: tenant.policy for tenant in hashes.values()}},
        readers=content.readers.each(),
        tenants=Tenants(hashes, pepper),
        keys=shown,
    )


def key_pepper(path: Path, environment: Mapping[str, str]) -> str:
    """The secret that keys are hashed with, whatever else the file says. Raises `ConfigError`."""
    file = strict_yaml.read(path)
    if file.mistakes or not isinstance(file.data, dict):
        raise ConfigError(tuple(map(str, file.mistakes)))
    alone = {key: value for key, value in file.data.items() if key == "key_pepper"}
    checked: Checked[ConfigFile] = check(ConfigFile, replace(file, data=alone), environment)
    mistakes = list(checked.mistakes)
    pepper = checked.content.key_pepper if checked.content else ""
    if not mistakes and len(pepper) < MIN_PEPPER:
        what = f"is shorter than {MIN_PEPPER} characters" if pepper else "is missing"
        mistakes.append(Mistake(file.value_place(("key_pepper",)), ("key_pepper",), what, f"write {PEPPER_ADVICE}"))
    if mistakes:
        raise ConfigError(tuple(map(str, mistakes)))
    return pepper
