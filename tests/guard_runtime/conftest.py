from pathlib import Path

import pytest

from guard_runtime.artefacts.artefact import Artefact
from guard_runtime.guards.classifier import Classifier
from tests.guard_runtime import tiny


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.artefact(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def classifier(folder: Path) -> Classifier:
    return Classifier(Artefact.load(folder))
