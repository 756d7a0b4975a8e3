"""Opens the store that the settings name, to look at what is in it."""

from __future__ import annotations

from everturn.journal.reading import Journals
from everturn.log.encryption import Keys
from everturn.log.objects import run
from everturn.log.stores import connect, visit
from everturn.settings import Settings
from everturn.transcripts.archive import Archive


def open_archive(settings: Settings, keys: Keys | None = None) -> Archive:
    """Open a store to look at its sessions. Blocks for one request and writes nothing.

    Raises:
        NotFound: There is no store of ours.
        Invalid: The URL is not one we know, or the store has another format version.
    """
    label = settings.store_url()
    objects = connect(label, settings, keys)
    run(visit(objects, label))
    return Archive(objects, label)


def open_journals(settings: Settings, keys: Keys | None = None) -> Journals:
    """Open a store to look at its journals. Blocks for one request and writes nothing.

    Raises:
        EverturnError: As `open_archive`.
    """
    archive = open_archive(settings, keys)
    return Journals(archive.objects, archive.label)
