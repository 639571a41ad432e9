"""What a training refuses before any work starts."""

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from generalist import engine
from generalist.config import Config
from generalist.data import Dataset, last_batch
from generalist.errors import BadInput
from generalist.expert_state import build_auxiliary
from generalist.models import build, outline
from generalist.objectives import Objective
from generalist.tensors import ImageShape, Weights
from generalist.threats import threat_from


def check_threats(config: Config, shape: ImageShape) -> None:
    """Refuse a threat, evaluated or trained against, that is none for images of this shape, or allows all of them."""
    objectives = [expert.objective for expert in config.experts.values()]
    against = [objective.trains_against for objective in objectives if isinstance(objective, Objective)]
    for threat in itertools.chain(config.evaluation.threats, *against):
        threat_from(threat).check_fits((shape.channels, shape.height, shape.width))


def check_tables(tables: Mapping[str, Weights]) -> None:
    """Refuse tables of objectives where several processes share each batch, and see a part of it only."""
    for name, table in tables.items():
        if table and engine.group().size > 1:
            raise BadInput(
                f"experts.{name} remembers what it has seen from step to step, so several processes can't share"
                " its batches: start one process, or one for each expert (training.processes)"
            )


def check_conditions(config: Config) -> None:
    """Refuse conditions and widths where several processes share each batch.

    With a condition a process may hold images of one kind alone; a width's BatchNorms would not be those of all.
    """
    one = "start one process, or one for each expert (training.processes)"
    if config.model.condition is not None and engine.group().size > 1:
        raise BadInput(
            f"model.condition chooses a BatchNorm for each image, so several processes can't share batches: {one}"
        )
    if config.model.widths and engine.group().size > 1:
        raise BadInput(f"model.widths can't be had where several processes share batches: {one}")


def check_widths(config: Config, dataset: Dataset) -> None:
    """Refuse widths where an objective trains a module beside the network: it has the form of one width."""
    if not config.model.widths:
        return
    network = outline(config.model, dataset.shape)
    for name, expert in config.experts.items():
        if isinstance(expert.objective, Objective) and build_auxiliary(expert.objective, network) is not None:
            raise BadInput(
                f"experts.{name}.objective is {expert.objective.name}, which trains a module beside the network of one"
                " width: leave model.widths out"
            )


def check_unlabelled(config: Config, dataset: Dataset) -> None:
    """Refuse data without the unlabelled images that an objective needs."""
    for name, expert in config.experts.items():
        if "unlabelled" in expert.objective.needs and not (dataset.unlabelled and len(dataset.unlabelled)):
            raise BadInput(
                f"the objective of experts.{name} needs images without labels, and the prepared data has none: prepare"
                " it with data.unlabelled"
            )


def check_single_images(config: Config, dataset: Dataset) -> None:
    """Refuse batches of one image, where the network has a BatchNorm that sees one pixel of it; nothing is computed.

    With a condition a batch has two parts, for a BatchNorm each.
    """
    conditional, size = config.model.condition is not None, min(config.training.batch_size, len(dataset.train))
    if conditional:
        size = min(size, last_batch(len(dataset.train), size))
    if size == 1:
        _check_auxiliary_takes_single_images(config, dataset)
    if size > (len(config.model.condition.choices) if config.model.condition else 1):
        return
    if conditional and size == 1:
        raise BadInput(
            f"training.batch_size is {config.training.batch_size} with {len(dataset.train)} images to train on, but"
            " with model.condition a batch needs two: one that is attacked, and one that is not"
        )
    shape = dataset.shape
    model = build(config.model, shape).to("cpu" if conditional else "meta").train()
    images = torch.zeros(1, shape.channels, shape.height, shape.width, device=model.mean.device)
    try:
        if conditional:
            model(images, torch.zeros(1))
        else:
            model(images)
    except ValueError:
        raise BadInput(
            f"training.batch_size is {config.training.batch_size} with {len(dataset.train)} images to train on, and the"
            f" BatchNorm of {config.model.name} can't train on single images: give it two at least"
        ) from None


def _check_auxiliary_takes_single_images(config: Config, dataset: Dataset) -> None:
    network = outline(config.model, dataset.shape)
    for name, expert in config.experts.items():
        beside = build_auxiliary(expert.objective, network) if isinstance(expert.objective, Objective) else None
        if beside is not None and any(isinstance(layer, nn.BatchNorm1d) for layer in beside.modules()):
            raise BadInput(
                f"training.batch_size is {config.training.batch_size} with {len(dataset.train)} images to train on, and"
                f" what {expert.objective.name} of experts.{name} trains beside the network has a BatchNorm, which"
                " can't train on single images: give it two at least"
            )
