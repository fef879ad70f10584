"""Adversarial rounds: a policy trained by REINFORCE learns which disguises fool the guard, which learns from them."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from pypinyin import lazy_pinyin
from rapidfuzz.distance import Levenshtein
from tokenizers import Tokenizer
from torch import Tensor, nn

from evaluation.perturbations import PERTURBATIONS, STRENGTHS, Place
from guard_runtime.text.normalise import normalise
from guard_runtime.text.scripts import is_han
from training.data.disguises import MOVES, saying, spoken
from training.data.rows import BadInput, Row, read_rows, write_rows
from training.learning import model as models
from training.learning.batches import collate, examples, passes, sampled
from training.learning.model import GuardModel, pooled
from training.learning.scores import TOKENS_PER_PASS, logits_of
from training.learning.trainer import LabelLoss, Trainer
from training.recipe import Attack, Mix, Recipe, read_recipe

Margins = npt.NDArray[np.float32]
MEANING_LAYERS = 2
"""Lower layers are enough to tell a disguise from other words, and cheap."""

KEPT = 0.5
"""A disguise that keeps less of the meaning than this is no attack: it earns nothing and is never trained on."""


class AttackPolicy(nn.Module):
    """Probabilities of every move for a text, linear in its features: operator, place and strength logits added up."""

    FEATURES = 5

    def __init__(self) -> None:
        super().__init__()
        self.operator = nn.Linear(self.FEATURES, len(PERTURBATIONS))
        self.place = nn.Linear(self.FEATURES, len(Place))
        self.strength = nn.Linear(self.FEATURES, len(STRENGTHS))
        for layer in (self.operator, self.place, self.strength):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [texts, 5] -> log-probabilities [texts, moves], in the order of MOVES."""
        parts = (self.operator(features), self.place(features), self.strength(features))
        operator, place, strength = (torch.log_softmax(part, -1) for part in parts)
        joint = operator[:, :, None, None] + place[:, None, :, None] + strength[:, None, None, :]
        return joint.flatten(1)


def features(rows: Sequence[Row], margins: Margins) -> Tensor:
    """What the policy knows of a text: constant, Chinese share, length, an answer or not, how sure the guard is."""
    texts = [spoken(row) for row in rows]
    han = [sum(map(is_han, text)) / max(len(text), 1) for text in texts]
    return torch.tensor(
        [
            [1.0, h, min(len(t), 400) / 200, float(row.direction == "response"), float(np.tanh(m / 4))]
            for h, t, row, m in zip(han, texts, rows, margins, strict=True)
        ]
    ).reshape(-1, AttackPolicy.FEATURES)


class Target:
    """The guard under attack, as serving runs it: raw and normalised text are scored, the higher margin counts."""

    def __init__(self, model: GuardModel, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens

    def margins(self, rows: Sequence[Row]) -> Margins:
        """The margin of `unsafe`, [rows]; above zero is flagged."""
        plain = [saying(row, normalise(spoken(row)).text or " ", "n") for row in rows]
        raw = logits_of(self.model, self.tokenizer, rows, self.max_tokens)[:, 0]
        changed = [i for i, (a, b) in enumerate(zip(rows, plain, strict=True)) if spoken(a) != spoken(b)]
        if changed:
            folded = logits_of(self.model, self.tokenizer, [plain[i] for i in changed], self.max_tokens)[:, 0]
            raw[changed] = np.maximum(raw[changed], folded)
        return raw


class Meaning:
    """How much of a text survives a disguise: cosine in the untrained encoder, and how alike the two read aloud."""

    def __init__(self, base: GuardModel, tokenizer: Tokenizer) -> None:
        self.base, self.tokenizer = base.eval(), tokenizer

    def kept(self, before: Sequence[Row], after: Sequence[Row]) -> npt.NDArray[np.float64]:
        """From 0 to 1, [rows]. Untrained cosines live between 0.7 and 1, so they are stretched over 0 to 1."""
        normalised = [saying(row, normalise(spoken(row)).text or " ", "n") for row in after]
        cosines = (self._states(before) * self._states(normalised)).sum(1)
        alike = np.clip((cosines - 0.7) / 0.3, 0, 1)
        read = [1 - _distance(spoken(a), spoken(b)) for a, b in zip(before, normalised, strict=True)]
        kept: npt.NDArray[np.float64] = 0.5 * alike + 0.5 * np.array(read)
        return kept

    def _states(self, rows: Sequence[Row]) -> Margins:
        out = np.zeros((len(rows), self.base.encoder.config.hidden_size), np.float32)
        with torch.inference_mode():
            for group in passes(examples(self.tokenizer, rows, 64, Mix()), TOKENS_PER_PASS):
                batch = collate(group)
                state = self.base.encoder(batch.input_ids, batch.attention_mask).last_hidden_state
                out[batch.indices.numpy()] = nn.functional.normalize(pooled(state, batch.attention_mask)).numpy()
        return out


def _distance(before: str, after: str) -> float:
    """Edit distance of two texts read aloud, from 0 to 1; text only added around the old costs little."""
    one, other = "".join(lazy_pinyin(before)), "".join(lazy_pinyin(after))
    if one in other:
        return 0.1
    return float(Levenshtein.normalized_distance(one, other))


Chooser = Callable[[Sequence[Row], Margins], list[int]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Disguised rows, whether each fooled the guard with its meaning kept, and the reward: fooled times meaning."""

    rows: Sequence[Row]
    fooled: npt.NDArray[np.bool_]
    rewards: npt.NDArray[np.float64]


class Arena:
    """Attacks a target with a policy, and trains the policy on what comes back."""

    def __init__(self, target: Target, meaning: Meaning, recipe: Attack) -> None:
        self.target, self.meaning, self.recipe = target, meaning, recipe
        self.policy = AttackPolicy()
        self._random = Random(recipe.seed)
        self._generator = torch.Generator().manual_seed(recipe.seed)

    def trained(self, rows: Sequence[Row], margins: Margins) -> AttackPolicy:
        """REINFORCE with a mean baseline and an entropy bonus, on flagged harmful rows; without any, as it was."""
        if not rows:
            return self.policy
        optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.recipe.rate)
        for _ in range(self.recipe.updates):
            places = self._random.sample(range(len(rows)), min(self.recipe.texts, len(rows)))
            group = [rows[i] for i in places]
            logs = self.policy(features(group, margins[places]))
            moves = torch.multinomial(logs.detach().exp(), 1, generator=self._generator)
            outcome = self.attacked(group, moves[:, 0].tolist())
            advantage = torch.tensor(outcome.rewards - outcome.rewards.mean(), dtype=torch.float32)
            chosen = logs.gather(1, moves)[:, 0]
            entropy = -(logs.exp() * logs).sum(1).mean()
            loss = -(advantage * chosen).mean() - self.recipe.entropy * entropy
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.policy

    def attacked(self, rows: Sequence[Row], moves: Sequence[int]) -> Outcome:
        """Every row disguised by its move, scored, and compared with what it said."""
        disguised = [
            saying(row, MOVES[move](spoken(row), self._random), MOVES[move].operator)
            for row, move in zip(rows, moves, strict=True)
        ]
        kept = self.meaning.kept(rows, disguised)
        fooled = (self.target.margins(disguised) <= 0) & (kept >= KEPT)
        return Outcome(disguised, fooled, np.where(fooled, kept, 0.0))

    def learned(self, rows: Sequence[Row], margins: Margins) -> list[int]:
        """Moves drawn from the trained policy."""
        with torch.no_grad():
            chances = self.policy(features(rows, margins)).exp()
        return [int(i) for i in torch.multinomial(chances, 1, generator=self._generator)[:, 0]]

    def guessed(self, rows: Sequence[Row], margins: Margins) -> list[int]:
        """Moves drawn evenly: the random policy."""
        return [self._random.randrange(len(MOVES)) for _ in rows]


def report(arena: Arena, rows: Sequence[Row], name: str) -> str:
    """Attack success on flagged rows, and false alarms of benign rows before and after the same disguises."""
    margins = arena.target.margins(rows)
    harmful = [i for i, row in enumerate(rows) if row.unsafe and margins[i] > 0]
    benign = [i for i, row in enumerate(rows) if not row.unsafe]
    lines = []
    for policy, choose in (("trained", arena.learned), ("random", arena.guessed)):
        fooled = _attack(arena, rows, margins, harmful, choose).fooled.mean() if harmful else 0.0
        calm = _attack(arena, rows, margins, benign, choose)
        alarms = (arena.target.margins(calm.rows) > 0).mean()
        lines.append(
            f"{name:16s} {policy:8s} attack success {fooled:.3f}   "
            f"benign false alarms {(margins[benign] > 0).mean():.3f} -> {alarms:.3f}"
        )
    return "\n".join(lines)


def _attack(arena: Arena, rows: Sequence[Row], margins: Margins, places: list[int], choose: Chooser) -> Outcome:
    group = [rows[i] for i in places]
    return arena.attacked(group, choose(group, margins[places]))


def additions(arena: Arena, rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` disguised harmful rows and as many benign ones, by both policies; some as serving normalises them."""
    random = Random(seed)
    found: list[Row] = []
    for unsafe in (True, False):
        pool = [row for row in rows if row.unsafe is unsafe]
        group = random.sample(pool, min(count, len(pool)))
        margins = arena.target.margins(group)
        for half, choose in ((group[::2], arena.learned), (group[1::2], arena.guessed)):
            part = margins[::2] if choose == arena.learned else margins[1::2]
            disguised = [
                saying(r, MOVES[m](spoken(r), random), "x") for r, m in zip(half, choose(half, part), strict=True)
            ]
            kept = arena.meaning.kept(half, disguised)
            found += [row for row, k in zip(disguised, kept, strict=True) if k >= KEPT]
    return [saying(row, normalise(spoken(row)).text or " ", "n") if random.random() < 0.4 else row for row in found]


@dataclass(frozen=True, slots=True)
class Work:
    """Where a run reads and writes: the guard's folder, the untouched encoder's, and the folder for results."""

    guard: Path
    base: Path
    out: Path


def rounds(work: Work, rows: Sequence[Row], recipe: Recipe) -> list[str]:
    """Attack, add, fine-tune, attack again; the hardened guard ends in `work.out`. Returns the printed lines."""
    attack = recipe.attack
    model, tokenizer = models.load(work.guard).eval(), models.load_tokenizer(work.guard)
    untouched = models.load(work.base)
    models.with_layers(untouched.encoder, tuple(range(MEANING_LAYERS)))
    meaning = Meaning(untouched, models.load_tokenizer(work.base))
    order = sorted(rows, key=lambda row: Random(f"{attack.seed} {row.id}").random())
    held, learning = order[: attack.measured * 2], order[attack.measured * 2 :]
    replay = sampled(learning, recipe.mix, attack.seed)
    replay = Random(attack.seed).sample(replay, min(attack.replay, len(replay)))
    lines: list[str] = []
    added: list[Row] = []
    for number in range(1, attack.rounds + 1):
        arena = Arena(Target(model, tokenizer, recipe.max_tokens), meaning, attack)
        pool = [row for row in learning if row.unsafe][: attack.texts * attack.updates]
        margins = arena.target.margins(pool)
        flagged = [i for i, margin in enumerate(margins) if margin > 0]
        arena.trained([pool[i] for i in flagged], margins[flagged])
        lines.append(report(arena, held, f"round {number} before"))
        print(lines[-1], flush=True)
        added += additions(arena, learning, attack.additions, attack.seed + number)
        found = examples(tokenizer, [*replay, *added], recipe.max_tokens, recipe.mix)
        trainer = Trainer(model, recipe, work.out / f"round-{number}")
        model = trainer.train(found, LabelLoss(recipe.smoothing, recipe.category_weight))
        arena.target.model = model
        lines.append(report(arena, held, f"round {number} after"))
        print(lines[-1], flush=True)
    write_rows(work.out / "adversarial.jsonl", added)
    models.save(model, tokenizer, work.out)
    return lines


def main() -> int:
    """`python -m training.learning.adversarial --recipe R.yaml --guard DIR --base DIR --rows F.jsonl --out DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True, help="how the guard is fine-tuned after each attack")
    parser.add_argument("--guard", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True, help="the untouched encoder, which judges meaning")
    parser.add_argument("--rows", type=Path, required=True, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        recipe = read_recipe(given.recipe)
        rows = [row for path in given.rows for row in read_rows(path)]
        rounds(Work(given.guard, given.base, given.out), rows, recipe)
    except BadInput as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
