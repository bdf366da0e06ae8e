"""The attack's speed against torchattacks, foolbox and adversarial-robustness-toolbox: make benchmark

Every contender runs PGD on the same weights, images and settings, in turn, repeatedly. Before any is timed they are
shown to solve the same problem: without a random start their final losses agree. "Plain" is the same network as people
write it, in torch's default layout, in a process that knows nothing of ours: how this project's users would run the
other library. The peers also attack our network in our process, which shows what the library alone costs.
The ceiling is this machine's rate for a large matrix product, measured in the same run.
The robustness package's training step is not compared: 1.2.1 moves every batch to a GPU unconditionally, and its
data sets import torchvision.models.utils, which torchvision no longer has.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.profiler import profile, supported_activities
from torch.utils.flop_counter import FlopCounterMode

from saddlepoint.attacks import PGD
from saddlepoint.build import build
from saddlepoint.cli import entry
from saddlepoint.data import Batches, Data, Split, load
from saddlepoint.files import write_json
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.models import CNN
from saddlepoint.runtime import Runtime, generator, has_fast_bfloat16, processor, provenance
from saddlepoint.show.charts import STYLE, print_figure
from saddlepoint.show.names import COLOURS
from saddlepoint.show.table import Cell, Table
from saddlepoint.threat import Threat
from saddlepoint.tracking import Tracker
from saddlepoint.training import Monitor, Recipe, Trainer
from saddlepoint.training.checkpoint import RunDirectory
from saddlepoint.training.objectives import Adversarial
from saddlepoint.training.schedules import Constant

log = logging.getLogger("benchmark")

Contender = Callable[[], Tensor]
RATES = ("image_steps_per_second", "slowest", "fastest")  # of every contender


def plain_copy(model: nn.Module) -> nn.Module:
    """The same function as people write it: textbook order of layers, torch's own convolutions and default layout."""
    if not isinstance(model, CNN):
        return copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()
    channels, size = model.conv2.out_channels, round((model.fc1.in_features / model.conv2.out_channels) ** 0.5)
    first = nn.Conv2d(model.conv1.in_channels, model.conv1.out_channels, 5, padding=2)
    first.load_state_dict(model.conv1.state_dict())
    fully = copy.deepcopy(model.fc1)  # whose inputs come as channels, rows, columns from nn.Flatten
    fully.weight.data = model.fc1.weight.data.view(-1, size, size, channels).permute(0, 3, 1, 2).flatten(1).contiguous()
    pool = nn.MaxPool2d(2)
    layers = [first, nn.ReLU(), pool, copy.deepcopy(model.conv2), nn.ReLU(), pool, nn.Flatten(), fully, nn.ReLU()]
    plain = nn.Sequential(*layers, copy.deepcopy(model.fc2))
    return plain.to(memory_format=torch.contiguous_format).to(model.fc1.weight.device).eval()


def bare_loop(model: nn.Module, x: Tensor, y: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    """PGD as a careful person types it."""
    x_adv = x.clone()
    for _ in range(steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = (x_adv.detach() + step_size * grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return x_adv


def peer(name: str, model: nn.Module, x: Tensor, y: Tensor, attack: PGD) -> Contender:
    """The same PGD by another library."""
    eps, step_size, steps = attack.threat.eps, attack.alpha, attack.steps
    if name == "torchattacks":
        import torchattacks

        theirs = torchattacks.PGD(model, eps=eps, alpha=step_size, steps=steps, random_start=False)
        return lambda: theirs(x, y)
    if name == "foolbox":
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        pgd = foolbox.attacks.LinfPGD(abs_stepsize=step_size, steps=steps, random_start=False)
        return lambda: pgd.run(wrapped, x, foolbox.criteria.Misclassification(y), epsilon=eps)
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    device = "gpu" if x.is_cuda else "cpu"
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), x.shape[1:], 10, clip_values=(0, 1), device_type=device
    )
    pgd = ProjectedGradientDescentPyTorch(
        classifier, np.inf, eps, step_size, max_iter=steps, batch_size=len(x), num_random_init=0, verbose=False
    )
    images, labels = x.cpu().numpy(), F.one_hot(y, 10).cpu().numpy()
    return lambda: torch.from_numpy(pgd.generate(images, labels)).to(x.device)


def problem(case: DictConfig, device: torch.device) -> tuple[nn.Module, Tensor, Tensor, PGD]:
    """Network, images, labels and attack: the same whenever it is called."""
    model = build(case.network, generator=generator(0, "init")).to(device).eval()
    noise = generator(0, "images")
    x = torch.rand(case.batch, *case.shape, generator=noise).to(device)
    y = torch.randint(10, (case.batch,), generator=noise).to(device)
    return model, x, y, PGD(Threat("linf", case.eps), case.steps, case.step_size, random_start=False)


def plain_contenders(case: DictConfig, peers: list[str], device: torch.device) -> dict[str, Contender]:
    """As people would run them."""
    model, x, y, attack = problem(case, device)
    plain = plain_copy(model)
    bare = functools.partial(bare_loop, plain, x, y, attack.threat.eps, attack.alpha, attack.steps)
    return {"bare loop, plain": bare, **{f"{name}, plain": peer(name, plain, x, y, attack) for name in peers}}


def own_contenders(case: DictConfig, peers: list[str], runtime: Runtime) -> dict[str, Contender]:
    """Ours, and the peers on our network."""
    model, x, y, attack = problem(case, runtime.torch_device)

    def ours(dtype: torch.dtype) -> Tensor:
        with runtime.autocast(dtype):
            return attack.craft(model, x, y)

    runs: dict[str, Contender] = {"saddlepoint, float32": functools.partial(ours, torch.float32)}
    if has_fast_bfloat16(runtime.torch_device):
        runs["saddlepoint, bfloat16"] = functools.partial(ours, torch.bfloat16)
    return runs | {f"{name}, our network": peer(name, model, x, y, attack) for name in peers}


def serve(connection: Connection, case: DictConfig, peers: list[str], device: torch.device, threads: int) -> None:
    """The plain contenders in a process of their own: for each name, seconds and examples, until None comes."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        Runtime(str(device))  # the device, and float32 that is float32; on a CPU it would bring our memory's habits
    runs = plain_contenders(case, peers, device)
    while name := connection.recv():
        taken, made = timed(runs[name], device)
        connection.send((taken, made.detach().cpu().numpy()))


@contextmanager
def elsewhere(
    case: DictConfig, peers: list[str], device: torch.device
) -> Iterator[Callable[[str], tuple[float, Tensor]]]:
    """Runs a plain contender by name, and returns its seconds and what it made."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    arguments = (there, case, peers, device, torch.get_num_threads())
    process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
    process.start()

    def run(name: str) -> tuple[float, Tensor]:
        here.send(name)
        while not here.poll(1):
            if not process.is_alive():
                raise RuntimeError(f"the process of {name} died; its message is above")
        taken, made = here.recv()
        return taken, torch.from_numpy(made)

    try:
        yield run
    finally:
        here.send(None)
        process.join()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    synchronise(device)
    started = time.perf_counter()
    made = run()
    synchronise(device)
    return time.perf_counter() - started, made


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    return timed(run, device)[0]


def ceiling(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-adds a second of a large product, by torch.mm or as a 1x1 convolution, whichever is faster."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    pixels = a.view(-1, 32, 64, size).permute(0, 3, 1, 2)  # channels last
    kernel = torch.randn(size, size, 1, 1, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    best = min(seconds(run, device) for run in (lambda: a @ a, lambda: F.conv2d(pixels, kernel)) for _ in range(5))
    return size**3 / best


def multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Of one forward pass of one image through the convolutions and matrices."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x[:1])
    return counter.get_total_flops() // 2


def measure(name: str, case: DictConfig, cfg: DictConfig, runtime: Runtime) -> list[dict[str, Any]]:
    """One row for each contender; raises if they do not find the same losses."""
    device, peers = runtime.torch_device, list(cfg.peers)
    model, x, y, _ = problem(case, device)
    own = own_contenders(case, peers, runtime)
    names = [*own, "bare loop, plain", *(f"{peer}, plain" for peer in peers)]
    with elsewhere(case, peers, device) as plain:

        def run(contender: str) -> tuple[float, Tensor]:
            return timed(own[contender], device) if contender in own else plain(contender)

        losses = {}
        for contender in names:
            _, x_adv = run(contender)  # also the warm-up
            with torch.no_grad():
                losses[contender] = F.cross_entropy(model(x_adv.to(device)), y).item()
        reference = losses["bare loop, plain"]
        for contender, loss in losses.items():
            tolerance = 0.05 if "bfloat16" in contender else 0.01
            if abs(loss - reference) > tolerance * reference:
                raise RuntimeError(f"{name}: {contender} ends at loss {loss:.4f}, the bare loop at {reference:.4f}")
        times: dict[str, list[float]] = {contender: [] for contender in names}
        for repeat in range(cfg.repeats):
            for contender in random.Random(repeat).sample(names, len(names)):  # none always after the same one
                times[contender].append(run(contender)[0])
    needed = 2 * multiply_adds(plain_copy(model), x) * case.batch * case.steps  # forward, and the input's gradient
    ceilings = {"float32": ceiling(torch.float32, device)}
    if has_fast_bfloat16(device):
        ceilings["bfloat16"] = ceiling(torch.bfloat16, device)
    rows = []
    for contender, values in times.items():
        median = statistics.median(values)
        precision = "bfloat16" if "bfloat16" in contender else "float32"
        rows.append(
            {
                "case": name,
                "contender": contender,
                "image_steps_per_second": case.batch * case.steps / median,
                "slowest": case.batch * case.steps / max(values),
                "fastest": case.batch * case.steps / min(values),
                "precision": precision,
                "gflops": 2 * needed / median / 1e9,
                "ceiling_gflops": 2 * ceilings[precision] / 1e9,  # at this moment; see with_shares
                "final_loss": losses[contender],
            }
        )
        log.info("%-18s %-28s %9.0f image-steps/s", name, contender, rows[-1]["image_steps_per_second"])
    return rows


def with_shares(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each record with its share of the ceiling: the fastest product of the whole run, for moments differ."""
    ceilings = {record["precision"]: 0.0 for record in records}
    for record in records:
        ceilings[record["precision"]] = max(ceilings[record["precision"]], record["ceiling_gflops"])
    return [{**record, "fraction_of_ceiling": record["gflops"] / ceilings[record["precision"]]} for record in records]


def table(records: list[dict[str, Any]], machine: str) -> Table:
    """Two rows for each case: the peers on the plain network and on ours; how many times faster we are in brackets."""
    contenders = dict.fromkeys(record["contender"] for record in records)
    peers = list(dict.fromkeys(name.split(",")[0] for name in contenders if not name.startswith("saddlepoint")))
    rows = []
    for case in dict.fromkeys(record["case"] for record in records):
        found = {record["contender"]: record for record in records if record["case"] == case}
        ours = [found[name] for name in ("saddlepoint, bfloat16", "saddlepoint, float32") if name in found]
        for network in ("plain", "our network"):
            cells = [
                f"{own['image_steps_per_second']:,.0f} ({own['fraction_of_ceiling']:.0%})" if network == "plain" else ""
                for own in ours
            ]
            for peer in peers:
                theirs = found.get(f"{peer}, {network}")
                if theirs is None:
                    cells.append("")
                    continue
                rate = theirs["image_steps_per_second"]
                times = ", ".join(f"{own['image_steps_per_second'] / rate:.1f}x" for own in ours)
                cells.append(f"{rate:,.0f} ({times})")
            rows.append([case if network == "plain" else f"{case}, our network", *cells])
    precisions = [name.split(", ")[1] for name in contenders if name.startswith("saddlepoint")]
    header = ["Image-steps/s", *(f"ours, {precision}" for precision in sorted(precisions)), *peers]
    rates = {p: max(r["ceiling_gflops"] for r in records if r["precision"] == p) for p in precisions}
    notes = [
        f"{machine}. Medians of interleaved repeats; an image-step is one PGD step of one image. "
        "Ours, in brackets: share of the ceiling, the fastest large matrix product of the same run in that precision "
        f"({' and '.join(f'{rates[precision]:,.0f}' for precision in sorted(precisions))} GFLOP/s).",
        f"Others, in brackets: how many times as fast ours is in {' and '.join(sorted(precisions))}. They attack the "
        "same network as people write it, in a process of their own; in the second row our network, in our process.",
    ]
    return Table("PGD, l_inf, without a random start", header, [[*map(Cell, row)] for row in rows], notes, records)


def attack_speed(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The benchmark's image-steps a second: a panel for each case, a bar for each contender with its spread.

    `records`: case, contender, and the median, slowest and fastest rate of each.
    """
    cases = list(dict.fromkeys(record["case"] for record in records))
    contenders = list(dict.fromkeys(record["contender"] for record in records))
    contenders.sort(key=lambda name: name.endswith("our network"))  # stable: ours, the plain network's, then the rest
    columns = min(3, len(cases))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            -(-len(cases) // columns),
            columns,
            figsize=(2.4 * columns + 1.6, (0.19 * len(contenders) + 0.7) * -(-len(cases) // columns)),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for case, axis in zip(cases, axes.flat, strict=False):
            found = {record["contender"]: record for record in records if record["case"] == case}
            for position, name in enumerate(contenders):
                if name not in found:
                    continue
                rate, slowest, fastest = (found[name][key] for key in RATES)
                axis.barh(
                    position,
                    rate,
                    xerr=[[rate - slowest], [fastest - rate]],
                    color=COLOURS["pgd" if name.startswith("saddlepoint") else "fgsm"],
                    alpha=0.55 if name.endswith("our network") else 1,
                    error_kw={"elinewidth": 0.8},
                )
            axis.set_title(case)
            axis.set_yticks(range(len(contenders)), contenders)
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[0, 0].invert_yaxis()  # shared: ours above
        for axis in axes.flat[len(cases) :]:
            axis.set_visible(False)
        figure.supxlabel("image-steps a second; whiskers: slowest and fastest repeat", fontsize=9)
    return figure


def attack_profile(name: str, case: DictConfig, needed: dict[str, float], runtime: Runtime) -> Table:
    """Where our attack's time goes, by operation and shapes of its tensors, for each precision.

    `needed`: precision -> share of the ceiling, from `measure`.
    """
    runs = own_contenders(case, [], runtime)
    kinds = {each for each in supported_activities() if each.name in ("CPU", runtime.torch_device.type.upper())}
    spent_in: dict[str, dict[tuple[str, str], float]] = {}  # precision -> (operation, shapes) -> ms a step
    for precision in needed:
        run = runs[f"saddlepoint, {precision}"]
        run()
        with profile(activities=kinds, record_shapes=True) as profiler:
            run()
        operations = spent_in[precision] = {}
        for event in profiler.key_averages(group_by_input_shape=True):
            if event.device_type.name != "CPU":
                continue  # a GPU's kernel, whose time its operation has too
            shapes = ", ".join("x".join(map(str, shape)) for shape in event.input_shapes if shape)
            spent = event.self_device_time_total if runtime.torch_device.type == "cuda" else event.self_cpu_time_total
            operation = (event.key.removeprefix("aten::"), shapes)
            operations[operation] = operations.get(operation, 0) + spent / 1000 / case.steps
    totals = {precision: sum(operations.values()) for precision, operations in spent_in.items()}

    def share(operation: tuple[str, str], precision: str) -> float:
        return spent_in[precision].get(operation, 0) / totals[precision]

    everything = dict.fromkeys(operation for operations in spent_in.values() for operation in operations)
    shown = [each for each in everything if max(share(each, precision) for precision in spent_in) >= 0.02]
    shown.sort(key=lambda each: -max(share(each, precision) for precision in spent_in))
    rows = []
    for operation in shown:
        cells = [
            f"{spent_in[p][operation]:.2f} ({share(operation, p):.0%})" if operation in spent_in[p] else ""
            for p in spent_in
        ]
        rows.append([f"{operation[0]} ({operation[1]})", *cells])
    others = {p: totals[p] - sum(spent_in[p].get(each, 0) for each in shown) for p in spent_in}
    rows.append(["everything else", *(f"{others[p]:.2f} ({others[p] / totals[p]:.0%})" for p in spent_in)])
    rows.append(["sum", *(f"{totals[p]:.2f}" for p in spent_in)])
    products = ("convolution", "mm")  # addmm and the backward operations among them
    notes = [
        f"In {precision} products (convolutions and matrices) take "
        f"{sum(share(each, precision) for each in everything if any(word in each[0] for word in products)):.0%}; "
        f"the whole step reaches {needed[precision]:.0%} of the ceiling."
        for precision in spent_in
    ]
    records = [
        {"operation": operation, "shapes": shapes, "precision": p, "ms_per_step": round(spent, 4)}
        for p, operations in spent_in.items()
        for (operation, shapes), spent in operations.items()
    ]
    header = [f"{name}, ms a step", *spent_in]
    return Table(
        f"Where the time of a PGD step goes: {name}, {machine(runtime)}",
        header,
        [[*map(Cell, row)] for row in rows],
        notes,
        records,
    )


def trainer_overhead(repeats: int, runtime: Runtime) -> dict[str, Any]:
    """The trainer's step against its k + 1 passes and the optimiser's step alone: MNIST wide, batch 50, PGD-7."""
    device, noise = runtime.torch_device, generator(0, "images")
    pixels = torch.randint(256, (2000, 1, 28, 28), generator=noise, dtype=torch.uint8)
    split = Split(pixels, torch.randint(10, (2000,), generator=noise), 255).to(device)
    model = CNN(16, generator=generator(0, "init")).to(device)
    attack = PGD(Threat("linf", 0.3), 7)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            Adversarial(attack),
            Data(split, split, split),
            Recipe(
                50, functools.partial(torch.optim.Adam, lr=1e-3), Constant(1e-3), steps=100_000, precision="bfloat16"
            ),
            runtime=runtime,
            directory=RunDirectory(folder),
            tracker=Tracker(),
            monitor=Monitor(attack, 100),
            metadata={},
            seed=0,
        )
    x, y = trainer.batches.next()

    def passes() -> None:
        model.train()
        with runtime.autocast(trainer.dtype):
            logits = model(attack.craft(model, x, y, trainer.generators["attack"]))
            loss = F.cross_entropy(logits.float(), y)
        trainer.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trainer.optimizer.step()

    times = [(seconds(trainer._step, device), seconds(passes, device)) for _ in range(20 * repeats)][repeats:]
    step, bare = (statistics.median(values) for values in zip(*times, strict=True))
    return {"step_seconds": step, "passes_seconds": bare, "overhead": step / bare - 1}


def retirement(runtime: Runtime) -> dict[str, Any]:
    """PGD-100 x 20 restarts on a naturally trained network of digits, with and without retiring broken examples."""
    device = runtime.torch_device
    data = load("digits", "data", 197).to(device)
    model = CNN(16, image_size=8, generator=generator(0, "init")).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = Batches(data.train, 50, generator(0, "order", device))
    for _ in range(500):
        x, y = batches.next()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    attack = PGD(Threat("linf", "4/16"), 100, restarts=20)
    once = dataclasses.replace(attack, restarts=1)
    found: dict[str, np.ndarray] = {}

    def retiring() -> None:
        found["retiring"] = evaluate(model, data.test, attack).correct

    def every_restart_on_all() -> None:
        runs = [evaluate(model, data.test, once, seed=seed).correct for seed in range(attack.restarts)]
        found["all"] = np.logical_and.reduce(runs)

    fast, slow = seconds(retiring, device), seconds(every_restart_on_all, device)
    accuracies = {name: float(correct.mean()) for name, correct in found.items()}
    return {"retiring_seconds": fast, "all_seconds": slow, "speedup": slow / fast, "accuracies": accuracies}


def machine(runtime: Runtime) -> str:
    """What it was measured on, in words."""
    return f"{runtime.describe()}; {processor()}; torch {torch.__version__}"


@entry("benchmark")
def main(cfg: DictConfig) -> None:
    runtime: Runtime = build(cfg.runtime)
    records = with_shares([row for name, case in cfg.cases.items() for row in measure(str(name), case, cfg, runtime)])
    folder = Path(cfg.folder)
    shown = table(records, machine(runtime))
    name = f"attack-{runtime.torch_device.type}"
    provided: dict[str, Any] = {
        "machine": machine(runtime),
        "repeats": cfg.repeats,
        "provenance": provenance(runtime),
        "trainer": trainer_overhead(cfg.repeats, runtime),
        "retirement": retirement(runtime),
        "rows": records,
    }
    write_json(folder / f"run-{runtime.torch_device.type}.json", provided)
    paths = shown.write(folder, name) + print_figure(attack_speed(records), folder, name)
    for case in cfg.profiled:
        if case in cfg.cases:
            reached = {
                row["contender"].removeprefix("saddlepoint, "): row["fraction_of_ceiling"]
                for row in records
                if row["case"] == case and row["contender"].startswith("saddlepoint")
            }
            spent = attack_profile(str(case), cfg.cases[case], reached, runtime)
            paths += spent.write(folder, f"profile-{case}-{runtime.torch_device.type}")
            log.info("\n%s", spent.text())
    log.info("\n%s\n\nwrote %s", shown.text(), ", ".join(map(str, paths)))
    log.info("training step: %.1f%% over its passes", 100 * provided["trainer"]["overhead"])
    log.info("retiring broken examples: %.1f times as fast", provided["retirement"]["speedup"])


if __name__ == "__main__":
    main()
