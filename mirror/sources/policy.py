"""What an upstream's configuration allows, and how long its answers stand."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from mirror.oci.errors import Denied, ManifestUnknown, NameUnknown
from mirror.oci.names import Name, is_repository, is_tag


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. `stale_for_seconds` None: for ever. `refuse_gone`: 401, 403, 404 and 410 count.

    `allow` and `deny` are globs over repository names; an empty `allow` allows all that `deny` does not name.
    `private`: what credentials opened is not for shared caches on the way. `prefetch_referrers`: what refers to an
    image is fetched along with it.
    """

    tag_ttl_seconds: float = 60
    referrers_ttl_seconds: float = 60
    unknown_ttl_seconds: float = 5
    stale_after_seconds: float = 1
    stale_for_seconds: float | None = None
    refuse_gone: bool = False
    offline: bool = False
    private: bool = False
    prefetch_referrers: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def denied_by(self, repository: str) -> str | None:
        """The rule that denies a repository, for the log; None where it is allowed."""
        for glob in self.deny:
            if fnmatchcase(repository, glob):
                return f"deny: {glob}"
        if self.allow and not any(fnmatchcase(repository, glob) for glob in self.allow):
            return "allow: none of its globs matches"
        return None


def check_askable(name: Name, tag: str | None = None) -> None:
    """Only names and tags of the specification's grammar go upstream; others are unknown there.

    Raises NameUnknown or ManifestUnknown.
    """
    if not is_repository(name.repository):
        raise NameUnknown({"name": str(name)})
    if tag is not None and not is_tag(tag):
        raise ManifestUnknown({"name": str(name), "tag": tag[:300]})


def denied(name: Name) -> Denied:
    """The error for a name that a rule denies; which rule is the operator's business."""
    return Denied({"name": str(name)})
