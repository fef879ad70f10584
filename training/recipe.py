"""Recipe: everything that decides how a training run goes, read strictly from YAML."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.rows import BadInput


class Strict(BaseModel):
    """Frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mix(Strict):
    """Which rows train, and how much each counts."""

    cap: int = Field(1200, ge=1, description="rows at most of one source, language, direction and label")
    caps: dict[str, int] = Field(default_factory=dict, description="the same for one source, instead of `cap`")
    weights: dict[str, float] = Field(default_factory=dict, description="a source's rows count this much")
    weak: float = Field(0.7, ge=0, le=1, description="rows of quality `weak` count this much")


class Recipe(Strict):
    """One training run. Rates are AdamW's; a step is `rows_per_step` rows in passes of `tokens_per_pass` at most."""

    layers: tuple[int, ...] = ()
    max_tokens: int = Field(128, ge=16, le=512)
    epochs: float = Field(1.0, gt=0)
    rows_per_step: int = Field(48, ge=1)
    tokens_per_pass: int = Field(1536, ge=64)
    rate: float = Field(1e-4, gt=0)
    head_rate: float = Field(1e-3, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    warmup: float = Field(0.06, ge=0, lt=1)
    decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    smoothing: float = Field(0.02, ge=0, lt=0.5)
    category_weight: float = Field(0.5, ge=0)
    train_words: bool = False
    bf16: bool = False
    threads: int = Field(2, ge=1)
    seed: int = 7
    checkpoint_minutes: float = Field(3.0, gt=0)
    mix: Mix = Mix()


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises BadInput naming each key that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(data or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
    except ValidationError as exc:
        lines = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise BadInput("\n".join(lines)) from exc
