"""States under the hash of all that decides them, and the checksummed files in which they lie."""

from generalist.store.files import Stored, read_tensors, tensors_digest, write_tensors
from generalist.store.remote import Remote
from generalist.store.states import Entry, Lost, Store, set_aside

__all__ = [
    "Entry",
    "Lost",
    "Remote",
    "Store",
    "Stored",
    "read_tensors",
    "set_aside",
    "tensors_digest",
    "write_tensors",
]
