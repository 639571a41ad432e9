"""How things are computed: device, threads, precision, and the network that attacks see; not algorithms."""

from generalist.engine.arithmetic import arithmetic as arithmetic
from generalist.engine.compiling import check_compiler as check_compiler
from generalist.engine.compiling import compile_attacks as compile_attacks
from generalist.engine.compiling import compiles as compiles
from generalist.engine.devices import device as device
from generalist.engine.devices import lane as lane
from generalist.engine.devices import threads as threads
from generalist.engine.devices import told as told
from generalist.engine.devices import with_device as with_device
from generalist.engine.networks import FrozenNetwork as FrozenNetwork
from generalist.engine.networks import initial_weights as initial_weights
from generalist.engine.networks import memory_format as memory_format
from generalist.engine.networks import model_with as model_with
from generalist.engine.networks import repeated as repeated
from generalist.engine.process_group import ProcessGroup as ProcessGroup
from generalist.engine.process_group import group as group
from generalist.engine.process_group import join_launched as join_launched
from generalist.engine.process_group import sum_in_rank_order as sum_in_rank_order
from generalist.engine.sync_batchnorm import convert_sync_batchnorm as convert_sync_batchnorm
