"""How things are computed: device, threads, precision, and the network that attacks see. Algorithms don't know."""

from generalist.engine.arithmetic import arithmetic as arithmetic
from generalist.engine.compiling import check_compiler as check_compiler
from generalist.engine.compiling import compile_attacks as compile_attacks
from generalist.engine.compiling import compiles as compiles
from generalist.engine.devices import device as device
from generalist.engine.devices import lane as lane
from generalist.engine.devices import settled as settled
from generalist.engine.devices import threads as threads
from generalist.engine.devices import told as told
from generalist.engine.networks import AttackNetwork as AttackNetwork
from generalist.engine.networks import initial_weights as initial_weights
from generalist.engine.networks import memory_format as memory_format
from generalist.engine.networks import model_with as model_with
from generalist.engine.networks import repeated as repeated
from generalist.engine.parallel import Group as Group
from generalist.engine.parallel import group as group
from generalist.engine.parallel import launched as launched
from generalist.engine.synchronised import synchronised as synchronised
