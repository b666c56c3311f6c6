"""Who may read what: the one point that every answer, list and count passes."""

from dataclasses import dataclass
from typing import Protocol

from mirror.oci.names import Name


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. Until readers can authenticate there is only this one."""

    name: str = "anonymous"


ANONYMOUS = Identity()


class Access(Protocol):
    """A rule of who may read which repository."""

    def may_read(self, identity: Identity, name: Name) -> bool:
        """Whether the repository exists for this reader: what may not be read is answered as unknown."""
        ...

    def may_read_all(self, identity: Identity) -> bool:
        """Whether `may_read` is true of any name, so that tens of thousands need not be asked for one by one."""
        ...


class Everyone:
    """Whoever reaches the mirror may read all of it."""

    def may_read(self, identity: Identity, name: Name) -> bool:
        """See `Access.may_read`."""
        return True

    def may_read_all(self, identity: Identity) -> bool:
        """See `Access.may_read_all`."""
        return True
