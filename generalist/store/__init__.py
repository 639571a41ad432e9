"""States under the hash of all that decides them, and the checksummed files in which they lie."""

from generalist.store.files import Stored as Stored
from generalist.store.files import read_tensors as read_tensors
from generalist.store.files import tensors_digest as tensors_digest
from generalist.store.files import write_tensors as write_tensors
from generalist.store.remote import Remote as Remote
from generalist.store.state_store import Entry as Entry
from generalist.store.state_store import StateLost as StateLost
from generalist.store.state_store import Store as Store
from generalist.store.state_store import set_aside as set_aside
