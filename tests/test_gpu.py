"""The same code on a CUDA device means the same. Runs where there is one, and says that it was skipped elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Batches, CropFlip, Split
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.models import CNN, ResNet
from saddlepoint.runtime import Runtime, generator, has_fast_bfloat16
from saddlepoint.threat import Threat
from saddlepoint.training.objectives import Adversarial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

NETWORKS = {"cnn": (lambda: CNN(2, generator=generator(0, "init")), (1, 28, 28)),
            "resnet": (lambda: ResNet(1, units=1, generator=generator(0, "init")), (3, 32, 32))}  # fmt: skip


def batch(shape: tuple[int, ...], count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    noise = generator(0, "images")
    return torch.rand(count, *shape, generator=noise), torch.randint(10, (count,), generator=noise)


@pytest.mark.parametrize("name", NETWORKS)
def test_attack_agrees_with_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    make, shape = NETWORKS[name]
    x, y = batch(shape)
    model: nn.Module = make().eval()
    attack = PGD(Threat("l2", 1.0), 5, 0.5, random_start=False)  # l2: no sign to flip on a rounding
    on_cpu = attack(model, x, y)
    on_gpu = attack(copy.deepcopy(model).cuda(), x.cuda(), y.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_attack_is_about_as_strong(name: str) -> None:
    runtime = Runtime("cuda")
    if not has_fast_bfloat16(runtime.torch_device):
        pytest.skip("this GPU has no bfloat16 arithmetic")
    make, shape = NETWORKS[name]
    x, y = (tensor.cuda() for tensor in batch(shape, 256))
    model = make().cuda().eval()
    attack = PGD(Threat("linf", 0.1), 10)
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        with runtime.autocast(dtype):
            x_adv = attack.craft(model, x, y, generator(0, "attack", "cuda"))
        assert x_adv.dtype == torch.float32
        assert attack.threat.contains(x_adv, x).all()
        losses[dtype] = nn.functional.cross_entropy(model(x_adv), y).item()
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.05)


def test_training_step_and_batches_stay_on_the_device() -> None:
    x, y = batch((3, 32, 32), 64)
    split = Split((255 * x).to(torch.uint8), y, 255).to(torch.device("cuda"))
    purposes = {name: generator(0, name, "cuda") for name in ("order", "augment", "attack")}
    batches = Batches(split, 16, purposes["order"], CropFlip(), purposes["augment"])
    images, labels = batches.next()
    assert images.is_cuda
    assert images.shape == (16, 3, 32, 32)
    model = ResNet(1, units=1).cuda()
    objective = Adversarial(PGD(Threat("linf", "8/255"), 2, "2/255", model_mode="train"))
    losses, _ = objective(model, images, labels, purposes["attack"], 1.0)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_evaluation_on_the_gpu() -> None:
    x, y = batch((1, 28, 28), 50)
    split = Split((255 * x).to(torch.uint8), y, 255)
    model = CNN(2).eval()
    on_cpu = evaluate(model, split, None)
    on_gpu = evaluate(copy.deepcopy(model).cuda(), split.to(torch.device("cuda")), None)
    assert on_gpu.loss == pytest.approx(on_cpu.loss, rel=1e-3)
