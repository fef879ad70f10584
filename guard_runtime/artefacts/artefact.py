"""A guard on disk (reference/artefact.md): read once, checked whole, refused when it differs from its manifest."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from guard_runtime.artefacts.manifest import Golden, Manifest, parsed
from guard_runtime.errors import ArtefactRefused, GuardError
from guard_runtime.guard import Model, Passage
from guard_runtime.verdict import Category, Verdict

MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 20
MAX_FILE = 1 << 31


@dataclass(frozen=True, slots=True)
class Artefact:
    """The bytes that were checked are the bytes that are used: no file is opened a second time."""

    manifest: Manifest
    digest: str
    model: bytes
    tokenizer: bytes
    head: bytes | None = None
    first_stage: bytes | None = None

    @classmethod
    def load(cls, folder: Path) -> "Artefact":
        """Raises `ArtefactRefused`, which says what differs from the manifest and where."""
        manifest_bytes = _read(folder / MANIFEST, MAX_MANIFEST)
        manifest = parsed(manifest_bytes, str(folder / MANIFEST))
        _refuse_unlisted(folder, manifest)
        files = {name: _checked(folder / name, digest) for name, digest in manifest.files.items()}
        for name in sorted(name for name in files if name.endswith(".onnx")):
            _refuse_external_data(folder / name, files[name])
        digest = hashlib.sha256(manifest_bytes).hexdigest()
        model, tokenizer = files["model.onnx"], files["tokenizer.json"]
        return cls(manifest, digest, model, tokenizer, files.get("head.onnx"), files.get("first_stage.bin"))


def self_test(manifest: Manifest, model: Model) -> float:
    """Scores the golden rows again and returns how far the worst is off.

    Raises `ArtefactRefused` when it is further off than the manifest tolerates: the weights, the tokenizer, the label
    order or this machine's arithmetic are not what they were where the artefact was made.
    """
    try:
        verdicts = model.predict([_passage(golden) for golden in manifest.golden])
    except GuardError as exc:
        raise ArtefactRefused(f"{manifest.name}: the self-test failed: {exc}") from exc
    if len(verdicts) != len(manifest.golden):
        raise ArtefactRefused(f"{manifest.name}: {len(verdicts)} verdicts for {len(manifest.golden)} golden rows")
    worst = 0.0
    for number, (golden, verdict) in enumerate(zip(manifest.golden, verdicts, strict=True)):
        off, category = _difference(golden, verdict)
        if off > manifest.golden_tolerance:
            raise ArtefactRefused(
                f"{manifest.name}: golden row {number} scores {verdict.scores[category]:.3f} for {category}, "
                f"{golden.scores[category]:.3f} was expected: {off:.3f} off, {manifest.golden_tolerance:g} is tolerated"
            )
        worst = max(worst, off)
    return worst


def _difference(golden: Golden, verdict: Verdict) -> tuple[float, Category]:
    return max((abs(score - verdict.scores[category]), category) for category, score in golden.scores.items())


def _passage(golden: Golden) -> Passage:
    if golden.response is None:
        return Passage(golden.direction, golden.prompt, source=golden.source)
    return Passage(golden.direction, golden.response, golden.prompt, source=golden.source)


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    listed = {MANIFEST, *manifest.files}
    present = {entry.name for entry in folder.iterdir()}
    if unlisted := sorted(present - listed):
        raise ArtefactRefused(f"{folder}: not in the manifest: {', '.join(unlisted)}")
    if missing := sorted(listed - present):
        raise ArtefactRefused(f"{folder}: in the manifest but not here: {', '.join(missing)}")


def _checked(path: Path, digest: str) -> bytes:
    content = _read(path, MAX_FILE)
    actual = hashlib.sha256(content).hexdigest()
    if actual != digest:
        raise ArtefactRefused(f"{path}: sha256 is {actual}, the manifest says {digest}")
    return content


def _read(path: Path, limit: int) -> bytes:
    """The whole of a plain file that has one name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise ArtefactRefused(f"{path}: cannot be read, or is a link: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactRefused(f"{path}: not a plain file")
        if status.st_nlink > 1:
            raise ArtefactRefused(
                f"{path}: has {status.st_nlink} hard links, so it could change under another name; copy the folder "
                "(with uv: UV_LINK_MODE=copy)"
            )
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ArtefactRefused(f"{path}: larger than {limit} bytes")
    return content


def _refuse_external_data(path: Path, model: bytes) -> None:
    """ONNX names a file with weights outside the model under the key "location"; ONNX Runtime opens it through hard
    links (reference/faults.md, N). Nothing else in a model of ours carries that word."""
    if b"location" in model:
        raise ArtefactRefused(f"{path}: keeps weights in another file; save it as one file")
