"""How things are computed: device, threads, precision, and the network that attacks see. Algorithms don't know."""

from generalist.engine.attacking import attack_network, channels_last, fast_attack_network
from generalist.engine.compiling import check_compiler, compile_passes, compiles
from generalist.engine.dense import condensed
from generalist.engine.devices import device, threads
from generalist.engine.lanes import lane
from generalist.engine.networks import initial_weights, model_with
from generalist.engine.parallel import Group, group, launched
from generalist.engine.program import Program
from generalist.engine.recording import recorded
from generalist.engine.synchronised import synchronised

__all__ = [
    "Group",
    "Program",
    "attack_network",
    "channels_last",
    "check_compiler",
    "compile_passes",
    "compiles",
    "condensed",
    "device",
    "fast_attack_network",
    "group",
    "initial_weights",
    "lane",
    "launched",
    "model_with",
    "recorded",
    "synchronised",
    "threads",
]
