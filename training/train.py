"""Trains Pearl: one command, seeded, resumable. `python training/train.py` writes the model folder that ships."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import export
import gate
import network
import optimizer
import seal
import torch
import vocabulary
from batches import Part, Shelves
from mix import FINISH, SHARES
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sample import Sample
from tokenizers import Tokenizer
from torch.nn import functional

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = REPOSITORY / "training" / "runs" / "pearl"
SHIPPED = REPOSITORY / "src" / "holdfast" / "shipped" / "pearl"


@dataclass(frozen=True)
class Stage:
    """A stretch of steps on one mix: the rate rises for `warm_steps`, is level to the half, then falls straight to 2 %."""

    begins: int
    ends: int
    warm_steps: int
    lr: float
    shares: dict[str, float]

    def rate(self, step: int) -> float:
        done = (step - self.begins) / (self.ends - self.begins)
        return self.lr * min(1.0, (step - self.begins + 1) / self.warm_steps, max(0.02, 2 * (1 - done)))


@dataclass(frozen=True)
class Plan:
    out: Path
    work: Path
    seed: int
    steps: int
    parts: int
    lr: float
    threads: int
    look_every: int
    keep_every: int

    def stage(self, step: int) -> Stage:
        """Two thirds on the whole mix, then a third on what is learned last, at half the rate."""
        turn = self.steps * 2 // 3
        if step < turn:
            return Stage(0, turn, 100, self.lr, SHARES)
        return Stage(turn, self.steps, 50, self.lr / 2, FINISH)


class Trainer:
    """Weights are kept in fp32 and used in bf16, the form in which they ship."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        self.tokenizer = self._tokenizer()
        self.vocab = self.tokenizer.get_vocab_size()
        self.master = network.build(self.vocab).to(self.device)
        self.model = network.build(self.vocab)
        self.model.load_state_dict(self.master.state_dict())
        self.model.set_attn_implementation("eager")
        self.model.to(self.device, torch.bfloat16).train()
        for name, buffer in self.master.named_buffers():
            if name.endswith("e_score_correction_bias"):
                owner = self.model.get_submodule(name.rsplit(".", 1)[0])
                owner.e_score_correction_bias = buffer  # one bias, in fp32, for both
        self.balance = network.Balance(self.model, rate=1e-3)
        self.optimizers = optimizer.make(self.master, plan.lr)
        self.step = 0

    def _tokenizer(self) -> Tokenizer:
        path = self.plan.out / "tokenizer.json"
        if not path.exists():
            self.plan.out.mkdir(parents=True, exist_ok=True)
            vocabulary.save(vocabulary.build(), self.plan.out)
        return Tokenizer.from_file(str(path))

    def rate(self) -> float:
        return self.plan.stage(self.step).rate(self.step)

    def learn(self, parts: list[Part]) -> float:
        total = sum(float(part.weights.sum()) for part in parts)
        loss_sum = 0.0
        for part in parts:
            ids, labels = part.ids.to(self.device), part.labels.to(self.device)
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = functional.linear(hidden, self.model.lm_head.weight).float().view(-1, self.vocab)
            each = functional.cross_entropy(logits, labels.view(-1), reduction="none")
            loss = (each * part.weights.to(self.device).view(-1)).sum() / total
            torch.autograd.backward(loss)
            loss_sum += float(loss.detach())
        self._update()
        self.step += 1
        return loss_sum

    def _update(self) -> None:
        pairs = list(zip(self.master.parameters(), self.model.parameters(), strict=True))
        for master, used in pairs:
            assert used.grad is not None
            master.grad = used.grad.float()
        torch.nn.utils.clip_grad_norm_(self.master.parameters(), 1.0)
        for each in self.optimizers:
            for group in each.param_groups:
                group["lr"] = self.rate()
            each.step()
        self.balance.settle()
        with torch.no_grad():
            for master, used in pairs:
                used.copy_(master)
                used.grad = None

    def keep(self) -> None:
        """The checkpoint, replaced whole or not at all."""
        state = {
            "step": self.step,
            "master": self.master.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        self.plan.work.mkdir(parents=True, exist_ok=True)
        draft = self.plan.work / "checkpoint.new"
        torch.save(state, draft)
        draft.replace(self.plan.work / "checkpoint.pt")

    def resume(self) -> None:
        path = self.plan.work / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.master.load_state_dict(state["master"])
        for mine, saved in zip(self.optimizers, state["optimizers"], strict=True):
            mine.load_state_dict(saved)
        with torch.no_grad():
            for master, used in zip(self.master.parameters(), self.model.parameters(), strict=True):
                used.copy_(master)
        self.step = int(state["step"])
        self.console.print(f"resumed at step {self.step}")

    def shelves(self) -> Shelves:
        """Fresh samples, seeded by the step at which the last checkpoint was kept: an interruption leaves no trace in them."""
        shares = self.plan.stage(self.step).shares
        return Shelves(Random(self.plan.seed * 1_000_003 + self.step), shares, self.tokenizer)

    def look(self, cases: list[Sample]) -> dict[str, tuple[int, int]]:
        return gate.shares(cases, gate.right(self.model, self.tokenizer, cases, self.device))


def table_of(scores: dict[str, tuple[int, int]], title: str) -> Table:
    table = Table("task", "right", "of", "share", title=title)
    for task, (yes, all_of) in scores.items():
        table.add_row(task, str(yes), str(all_of), f"{yes / all_of:.3f}")
    return table


def train(plan: Plan) -> None:
    console = Console(width=200)
    (plan.out / "manifest.json").unlink(missing_ok=True)  # while the weights change it would be wrong
    trainer = Trainer(plan, console)
    trainer.resume()
    cases = gate.build()
    gate.write(cases, plan.out / "gate.jsonl")
    some = [case for at, case in enumerate(cases) if at % 4 == 0]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    started, recent = time.monotonic(), 0.0
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("training", total=plan.steps, completed=trainer.step)
        shelves = trainer.shelves()
        while trainer.step < plan.steps:
            loss = trainer.learn(shelves.take(plan.parts))
            recent = loss if not recent else 0.98 * recent + 0.02 * loss
            progress.update(bar, completed=trainer.step, description=f"loss {recent:.4f}")
            if trainer.step % 50 == 0:
                spent = time.monotonic() - started
                console.print(f"step {trainer.step} loss {recent:.4f} lr {trainer.rate():.5f} {spent:.0f} s")
            if trainer.step % plan.keep_every == 0 or trainer.step == plan.steps:
                trainer.keep()
                shelves = trainer.shelves()
            if trainer.step % plan.look_every == 0:
                export.save(trainer.master, plan.out, trainer.vocab)
                scores = trainer.look(some)
                console.print(f"step {trainer.step} " + " ".join(f"{t} {y / n:.2f}" for t, (y, n) in scores.items()))
    export.save(trainer.master, plan.out, trainer.vocab)
    seal.seal(plan.out)
    console.print(table_of(trainer.look(cases), f"gate after {trainer.step} steps"))


def plan_from(argv: list[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(description="Train Pearl, the model that ships with Holdfast.")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "training" / "runs" / "pearl", help="where the checkpoint is kept"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--parts", type=int, default=2, help="parts of 1920 tokens a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--look-every", type=int, default=400)
    parser.add_argument("--keep-every", type=int, default=200)
    args = parser.parse_args(argv)
    return Plan(**vars(args))


if __name__ == "__main__":
    train(plan_from())
