"""Trainer: the one loop behind pre-training, fine-tuning and distillation; CPU and CUDA, checkpoints, curves."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.learning.batches import Batch, Example, collate, steps
from training.learning.model import GuardModel
from training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
Objective = Callable[[GuardModel, Batch], Tensor]


@dataclass(frozen=True, slots=True)
class LabelLoss:
    """Each row's loss against its labels: `unsafe`, and the categories where an unsafe row names them."""

    smoothing: float
    category_weight: float

    def __call__(self, model: GuardModel, batch: Batch) -> Tensor:
        """float [rows], weighted."""
        return self.of(model(batch.input_ids, batch.attention_mask), batch)

    def of(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of logits that are already there."""
        targets = batch.targets * (1 - 2 * self.smoothing) + self.smoothing
        losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        categories = losses[:, 1:].mean(1) * batch.knows_categories
        return (losses[:, 0] + self.category_weight * categories) * batch.weights


class Trainer:
    """Trains `model` on examples by `recipe`. An interrupted run continues from `folder` and ends the same."""

    def __init__(self, model: GuardModel, recipe: Recipe, folder: Path) -> None:
        torch.set_num_threads(recipe.threads)
        self.recipe = recipe
        self.folder = folder
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision="bf16" if recipe.bf16 else "no"
        )
        set_seed(recipe.seed)
        model.encoder.embeddings.word_embeddings.weight.requires_grad_(recipe.train_words)
        model.dropout.p = recipe.dropout
        self.model = model.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare_optimizer(_optimizer(model, recipe))

    def train(self, found: Sequence[Example], objective: Objective) -> GuardModel:
        """The trained model, on the CPU, in evaluation mode; `kept` of it is what it was before."""
        plan = self._plan(found)
        before = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        done, saved = self._resume(), time.monotonic()
        writer = SummaryWriter(str(self.folder / "curves"), purge_step=done)
        self.model.train()
        quiet = not self.accelerator.is_main_process
        with tqdm(total=len(plan), initial=done, unit="step", mininterval=5, ncols=100, disable=quiet) as bar:
            for number in range(done, len(plan)):
                loss = self._step(plan[number], objective, _rate(number, len(plan), self.recipe.warmup))
                writer.add_scalar("loss", loss, number)
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update()
                if time.monotonic() - saved > self.recipe.checkpoint_minutes * 60:
                    self._save(number + 1)
                    saved = time.monotonic()
        writer.close()
        self._save(len(plan))
        trained: GuardModel = self.model.cpu().eval()
        now, kept = trained.state_dict(), self.recipe.kept
        trained.load_state_dict({name: torch.lerp(now[name], old, kept) for name, old in before.items()})
        return trained

    def _plan(self, found: Sequence[Example]) -> list[list[list[Example]]]:
        recipe = self.recipe
        plan: list[list[list[Example]]] = []
        for epoch in range(math.ceil(recipe.epochs)):
            epoch_steps = steps(found, recipe.rows_per_step, recipe.tokens_per_pass, recipe.seed * 1000 + epoch)
            share = min(1.0, recipe.epochs - epoch)
            plan += epoch_steps[: max(1, round(share * len(epoch_steps)))]
        return plan

    def _step(self, groups: Sequence[Sequence[Example]], objective: Objective, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        rows = sum(len(group) for group in groups)
        total = 0.0
        for group in _shared(groups, self.accelerator.num_processes)[self.accelerator.process_index]:
            with self.accelerator.autocast():
                loss = objective(self.model, collate(group).to(self.accelerator.device)).sum() / rows
            self.accelerator.backward(loss)
            total += loss.item()
        if self.accelerator.num_processes > 1:
            total = self._gathered(total)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _gathered(self, total: float) -> float:
        """Add up all processes' gradients, so that a step is the same however many processes share it."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        held = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.flatten() for gradient in held] + [held[0].new_tensor([total])])
        summed = self.accelerator.reduce(flat, "sum")
        for parameter, part in zip(parameters, summed.split([p.numel() for p in parameters] + [1])[:-1], strict=True):
            parameter.grad = part.view_as(parameter)
        return float(summed[-1])

    def _save(self, done: int) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "done": done,
            "recipe": self.recipe.model_dump(mode="json"),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        partial = self.folder / (CHECKPOINT + ".part")
        torch.save(state, partial)
        partial.replace(self.folder / CHECKPOINT)

    def _resume(self) -> int:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return 0
        state = torch.load(path, weights_only=True)
        if state["recipe"] != self.recipe.model_dump(mode="json"):
            path.unlink()
            return 0
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        done: int = state["done"]
        return done


def processes() -> PartialState:
    """This process among those that torchrun started: one, unless it started several."""
    return PartialState(cpu=not torch.cuda.is_available())


def _optimizer(model: GuardModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; lower layers are slower by `layer_decay`, norms and biases do not decay, the head has its own rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depth = model.encoder.config.num_hidden_layers
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("head."):
            rate = recipe.head_rate
        else:
            layer = int(name.split(".")[3]) if name.startswith("encoder.encoder.layer.") else -1
            rate = recipe.rate * recipe.layer_decay ** (depth - 1 - layer)
        decay = recipe.decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": ps, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
    )


def _shared(groups: Sequence[Sequence[Example]], processes: int) -> list[list[Sequence[Example]]]:
    """The passes of a step dealt out so that every process has about as many padded tokens to read."""
    shares: list[list[Sequence[Example]]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for group in sorted(groups, key=lambda g: -len(g) * len(g[-1].tokens)):
        lightest = loads.index(min(loads))
        shares[lightest].append(group)
        loads[lightest] += len(group) * len(group[-1].tokens)
    return shares


def _rate(step: int, total: int, warmup: float) -> float:
    """Linear up over the first `warmup` share of steps, then linear down to a hundredth."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return max(0.01, (total - step) / max(1, total - rising))
