"""How things are computed: device, threads, precision, and the network that attacks see. Algorithms don't know."""

from generalist.engine.arithmetic import arithmetic
from generalist.engine.compiling import check_compiler, compile_attacks, compiles
from generalist.engine.cuda_graphs import GraphCache
from generalist.engine.devices import device, settled, threads, told
from generalist.engine.frozen_network import FrozenNetwork, memory_format, repeated
from generalist.engine.lanes import lane
from generalist.engine.networks import initial_weights, model_with
from generalist.engine.parallel import Group, group, in_order, launched
from generalist.engine.synchronised import synchronised

__all__ = [
    "FrozenNetwork",
    "GraphCache",
    "Group",
    "arithmetic",
    "check_compiler",
    "compile_attacks",
    "compiles",
    "device",
    "group",
    "in_order",
    "initial_weights",
    "lane",
    "launched",
    "memory_format",
    "model_with",
    "repeated",
    "settled",
    "synchronised",
    "threads",
    "told",
]
