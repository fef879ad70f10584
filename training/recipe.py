"""Recipe: everything that decides how a training run goes, read strictly from YAML."""

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from training.data.rows import BadInput
from training.data.strict import Strict


class Mix(Strict):
    """Which rows train, and how much each counts."""

    cap: int = Field(default=1200, ge=1, description="rows at most of one source, language, direction and label")
    caps: dict[str, int] = Field(default_factory=dict, description="the same for one source, instead of `cap`")
    weights: dict[str, float] = Field(default_factory=dict, description="a source's rows count this much")
    weak: float = Field(default=0.7, ge=0, le=1, description="rows of quality `weak` count this much")
    windows: bool = Field(
        default=False, description="of a long text one of serving's windows trains, instead of its ends"
    )


class Attack(Strict):
    """How attacks are trained, and how many of their texts the guard sees after each round."""

    rounds: int = Field(default=2, ge=0)
    updates: int = Field(default=12, ge=1, description="REINFORCE updates a round, of `texts` texts each")
    texts: int = Field(default=192, ge=2)
    rate: float = Field(default=0.3, gt=0)
    entropy: float = Field(default=0.02, ge=0)
    additions: int = Field(default=1500, ge=1, description="disguised harmful rows a round, and as many benign ones")
    measured: int = Field(
        default=400, ge=2, description="half the number of held-out rows that attacks are measured on"
    )
    replay: int = Field(default=6000, ge=0, description="plain rows trained on beside the disguised ones")
    seed: int = 11


class Matching(Strict):
    """What a student learns from its teacher: the teacher's logits and pooled states, beside the labels."""

    logits: float = Field(default=1.0, ge=0)
    states: float = Field(default=1.0, ge=0)
    labels: float = Field(default=0.3, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    taught: tuple[str, ...] = Field(
        default=(), description="sources whose rows the teachers speak to; the others' labels count whole. () is all"
    )


class Hard(Strict):
    """Stage 2's hard rows: those on which dropout passes of the stage-1 guard disagree, or that it gets wrong."""

    passes: int = Field(default=4, ge=2)
    dropout: float = Field(default=0.2, gt=0, lt=1)
    share: float = Field(
        default=0.5, gt=0, le=1, description="the hardest share of the rows, easy ones filling up `easy`"
    )
    easy: float = Field(
        default=0.3, ge=0, le=1, description="share of the other rows that trains along, so nothing is forgotten"
    )


class Recipe(Strict):
    """One training run. Rates are AdamW's; a step is `rows_per_step` rows in passes of `tokens_per_pass` at most."""

    layers: tuple[int, ...] = ()
    sources: bool = Field(default=False, description="the guard is told what a text is; it gets the tokens it lacks")
    neurons: int | None = Field(
        default=None, ge=32, description="feed-forward neurons kept in each layer; all where null"
    )
    max_tokens: int = Field(default=128, ge=16, le=512)
    epochs: float = Field(default=1.0, gt=0)
    rows_per_step: int = Field(default=48, ge=1)
    tokens_per_pass: int = Field(default=1536, ge=64)
    rate: float = Field(default=1e-4, gt=0)
    head_rate: float = Field(default=1e-3, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    warmup: float = Field(default=0.06, ge=0, lt=1)
    decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    smoothing: float = Field(default=0.02, ge=0, lt=0.5)
    category_weight: float = Field(default=0.5, ge=0)
    train_words: bool = False
    bf16: bool = False
    threads: int = Field(default=1, ge=1, description="a process; run one process a core with torchrun")
    seed: int = 7
    checkpoint_minutes: float = Field(default=3.0, gt=0)
    kept: float = Field(default=0, ge=0, lt=1, description="how much of the weights it started from the result holds")
    mix: Mix = Mix()
    hard: Hard | None = None
    matching: Matching = Matching()
    attack: Attack = Attack()


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
