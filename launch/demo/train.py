"""Train the demo family: `python -m launch.demo.train small medium giant --out DIR`.

Seeded and resumable. A run writes `train.safetensors` (float32 weights and the step) every few
minutes, and goes on from the weights alone. When a tier is done it is exported as a bf16 checkpoint
that vLLM serves. Hidden matrices are optimised by Muon, the rest by AdamW.
"""

import argparse
import json
import logging
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from launch.demo.family import CONTEXT_TOKENS, FAMILY, DemoTier
from launch.demo.packing import (
    IGNORED,
    STEP_TOKENS,
    Batch,
    encode_example,
    packed_batches,
    training_batches,
)
from launch.demo.questions import TASKS, distinct_questions
from launch.demo.tokenizer import END, PAD, VOCABULARY_SIZE, build_tokenizer

log = logging.getLogger(__name__)
_SAVE_EVERY_S = 240.0
_MUON_LEARNING_RATE = 0.02
_ADAMW_LEARNING_RATE = 3e-3
_LEAST_TASK_WEIGHT = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Hold the options of a run."""

    out: Path
    seed: int
    n_training_tokens: int | None
    compile: bool
    start_from: Path | None
    peak_rate: float


def build_model(tier: DemoTier, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a freshly initialised Llama of the tier's shape, in float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=tier.hidden_size,
            intermediate_size=tier.intermediate_size,
            num_hidden_layers=tier.n_layers,
            num_attention_heads=tier.n_heads,
            num_key_value_heads=tier.n_heads,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )


def learning_rate_factor(progress: float) -> float:
    """Return the factor: rising over the first 2 %, constant, linear to zero over the last 60 %."""
    return min(progress / 0.02, 1.0) * min((1 - progress) / 0.6, 1.0)


class Trainer:
    """Train one tier: model, optimisers and step counter are saved and resumed together."""

    def __init__(self, tier: DemoTier, options: Options) -> None:
        torch.manual_seed(options.seed)
        self.tier = tier
        self.folder = options.out / tier.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = build_tokenizer()
        self.model = build_model(tier, self.tokenizer)
        self.seed = options.seed
        self.peak_rate = options.peak_rate
        tokens = options.n_training_tokens or tier.n_training_tokens
        self.n_steps = max(1, tokens // STEP_TOKENS)
        self.task_weights = {name: float(task.share) for name, task in TASKS.items()}
        self.step = self._resume(options.start_from)
        self._forward = torch.compile(self.model, dynamic=False) if options.compile else self.model
        self._optimizers = self._build_optimizers()

    def _build_optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for name, weight in self.model.named_parameters():
            is_hidden_matrix = weight.ndim == 2 and "layers" in name
            (matrices if is_hidden_matrix else rest).append(weight)
        return [
            torch.optim.Muon(matrices, lr=_MUON_LEARNING_RATE, weight_decay=0.05),
            torch.optim.AdamW(rest, lr=_ADAMW_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def _resume(self, start_from: Path | None) -> int:
        """Load what an earlier run saved, and return the step that it had reached.

        Without one it starts at step 0, from the weights of the checkpoint `start_from` if given;
        the curriculum is then behind them and is left out.
        """
        state = self.folder / "train.safetensors"
        if start_from is not None and not state.exists():
            self.model.load_state_dict(load_file(start_from / "model.safetensors"))
        if start_from is not None:
            self.tier = replace(self.tier, curriculum_fraction=0.0)
        if not state.exists():
            return 0
        tensors = load_file(state)
        step = int(tensors.pop("step").item())
        self.model.load_state_dict(tensors)
        return step

    def save(self) -> None:
        """Write the float32 weights and the step; a torn write leaves the last save whole."""
        tensors = {name: weight.contiguous() for name, weight in self.model.state_dict().items()}
        partial = self.folder / "train.partial"
        save_file({**tensors, "step": torch.tensor(self.step)}, partial)
        partial.replace(self.folder / "train.safetensors")

    def run(self) -> None:
        """Train to the last step, with a validation line and a save every few minutes."""
        rng = random.Random(f"{self.tier.name}:{self.seed}:{self.step}")
        batches = training_batches(
            self.tier, self.tokenizer, rng, lambda: self.step / self.n_steps, self.task_weights
        )
        started_s, saved_s, first_step = time.monotonic(), time.monotonic(), self.step
        while self.step < self.n_steps:
            loss = self._train_on(next(batches))
            self.step += 1
            if self.step % 50 == 0:
                trained_tokens = (self.step - first_step) * STEP_TOKENS
                rate = trained_tokens / (time.monotonic() - started_s)
                progress = (self.tier.name, self.step, self.n_steps, loss, rate)
                log.info("%s step %d/%d loss %.4f %.0f tokens/s", *progress)
            if time.monotonic() - saved_s > _SAVE_EVERY_S:
                self.save()
                exact = self.exact_match(400)
                self._weigh_tasks(exact)
                log.info("%s step %d exact %s", self.tier.name, self.step, json.dumps(exact))
                saved_s = time.monotonic()
        self.save()

    def _weigh_tasks(self, exact: dict[str, float]) -> None:
        """Draw a task more often, the more of it is still wrong; measurements do not."""
        for name, task in TASKS.items():
            self.task_weights[name] = task.share * (_LEAST_TASK_WEIGHT + 1 - exact.get(name, 0.0))

    def _train_on(self, batch: Batch) -> float:
        factor = self.peak_rate * learning_rate_factor(self.step / self.n_steps)
        for optimizer, rate in zip(
            self._optimizers, (_MUON_LEARNING_RATE, _ADAMW_LEARNING_RATE), strict=True
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._logits(batch)
        loss = cross_entropy(
            logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED
        )
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return float(loss.detach())

    def _logits(self, batch: Batch) -> torch.Tensor:
        output = self._forward(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
        return output.logits

    def exact_match(self, n_questions: int) -> dict[str, float]:
        """Return by task the share of validation questions whose whole greedy output is right.

        Greedy decoding writes the reference exactly when each of its tokens is the arg max given
        the ones before it, so one forward pass is enough. A trace that errs and recovers counts as
        wrong, which makes this a lower bound of the answer accuracy.
        """
        stream = distinct_questions("validation", seed=0)
        right: dict[str, list[bool]] = {}
        for _ in range(n_questions):
            question = next(stream)
            example = encode_example(
                question,
                self.tier,
                self.tokenizer,
                with_check=self.tier.learns_check(self.step / self.n_steps),
            )
            batch = next(
                packed_batches(iter([example, example]), n_rows=1, row_tokens=len(example.ids))
            )
            predicted = self.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
            ).logits.argmax(-1)
            learnt = batch.labels != IGNORED
            right.setdefault(question.task, []).append(
                bool((predicted == batch.labels)[learnt].all())
            )
        everything = [value for values in right.values() for value in values]
        shares = {
            name: round(sum(values) / len(values), 3) for name, values in sorted(right.items())
        }
        return {"all": round(sum(everything) / len(everything), 3), **shares}

    def export(self) -> Path:
        """Write the bf16 checkpoint with tokenizer and chat template, as vLLM loads it.

        Greedy decoding is its default: sums are no matter of taste.
        """
        target = self.folder / "checkpoint"
        self.model.to(torch.bfloat16).save_pretrained(target)
        self.tokenizer.save_pretrained(target)
        defaults = target / "generation_config.json"
        settings = json.loads(defaults.read_text(encoding="utf-8"))
        settings["temperature"] = 0.0
        defaults.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return target


def main() -> None:
    """Train the tiers named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiers", nargs="+", choices=sorted(FAMILY))
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for weights and checkpoints"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tokens", type=int, default=None, help="override the tier's training length"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--start-from", type=Path, help="folder of a checkpoint whose weights to go on from"
    )
    parser.add_argument(
        "--peak-rate",
        type=float,
        default=1.0,
        help="share of the full learning rates to peak at; below 1 spares what --start-from knows",
    )
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    options = Options(
        out=arguments.out,
        seed=arguments.seed,
        n_training_tokens=arguments.tokens,
        compile=not arguments.no_compile,
        start_from=arguments.start_from,
        peak_rate=arguments.peak_rate,
    )
    for name in arguments.tiers:
        trainer = Trainer(FAMILY[name], options)
        trainer.run()
        log.info("%s exact %s", name, json.dumps(trainer.exact_match(1000)))
        log.info("%s written to %s", name, trainer.export())


if __name__ == "__main__":
    main()
