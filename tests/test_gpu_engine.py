"""The engine's fast paths on a GPU; without one nothing here runs."""

import logging
import threading

import jaxtyping
import pytest
import torch

from generalist import engine
from generalist.attacks import pgd
from generalist.attacks.losses import Loss, cross_entropy, kl_divergence
from generalist.config import EngineOptions
from generalist.engine import fallback
from generalist.expert_state import ExpertSpec, initial_state
from generalist.experts import Expert
from generalist.tensors import Batch
from generalist.threats import Threat
from tests.model_factory import GREY, RGB, made, numbers, settle
from tests.training_factory import small

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
LABELS = torch.arange(6) % 10


@pytest.mark.parametrize("loss", [cross_entropy, kl_divergence])
def test_a_cuda_graph_finds_what_single_steps_find(loss: Loss) -> None:
    """On a GPU: it is recorded, follows the weights, and stays in the ball."""
    model = made("resnet18", RGB, width=64).to(CUDA).eval()
    twin = made("resnet18", RGB, width=64)
    network = engine.FrozenNetwork(model, EngineOptions())
    assert network.graphs is not None
    graphs = network.graphs
    images, labels = numbers(6, RGB).to(CUDA), LABELS.to(CUDA)
    reference = labels if loss is cross_entropy else torch.rand(6, 10, device=CUDA).log_softmax(1)
    threat = Threat("linf", 8 / 255)
    for seed in range(4):
        settle(twin, seed)
        for buffer, other in zip(model.buffers(), twin.buffers(), strict=True):
            buffer.copy_(other)  # in place, as optimizers write
        draws = [torch.Generator(CUDA).manual_seed(seed) for _ in range(2)]
        with engine.arithmetic(CUDA):
            network.graphs = graphs
            found = pgd(network, images, reference, threat, steps=5, loss=loss, generator=draws[0])
            network.graphs = None
            expected = pgd(network, images, reference, threat, steps=5, loss=loss, generator=draws[1])
        assert ((found - expected).abs() <= 1e-4).float().mean() >= 0.99
        assert (threat.distance(found, images) <= 8 / 255 + 1e-6).all()
    assert graphs.recordings == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_compiled_attacks_are_recorded(precision: str, caplog: pytest.LogCaptureFixture) -> None:
    """Compiled code inside a graph, in channels_last, with the experts in threads and lanes of their own."""
    model = made("resnet18", width=64)
    assert engine.memory_format(model) == torch.channels_last
    config = small("experts.robust.objective.attack.steps=2", f"engine.precision={precision}", "model={name: resnet18}")
    weights = engine.initial_weights(config.model, GREY, 0)
    losses: dict[str, float] = {}
    fallback.warn_once.cache_clear()
    jaxtyping.config.update("jaxtyping_disable", True)  # compilers can't read those checks

    def work(name: str) -> None:
        spec = ExpertSpec(config.experts[name], None, 0, 8, 10, config.engine)
        with engine.lane(CUDA):
            expert = Expert(spec, initial_state(weights, spec), config.model, GREY, CUDA)
            labels = torch.arange(8, device=CUDA)
            for index in range(4):
                loss, _ = expert.step(Batch(numbers(8).to(CUDA), labels, labels), index + 1, index)
            losses[name] = float(loss)
            if name == "robust":
                assert isinstance(expert.learner.frozen, engine.FrozenNetwork)
                assert expert.learner.frozen.graphs is not None
                losses["recordings"] = expert.learner.frozen.graphs.recordings

    threads = [threading.Thread(target=work, args=(name,)) for name in config.experts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert losses["recordings"] == 1
    assert all(torch.tensor(own).isfinite() for own in losses.values())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
