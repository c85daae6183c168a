"""Downloading the originals into the cache, with their checksums verified."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import UsageError, WseError
from .containers import one_line
from .search import downloads_folder
from .sources import Download, Source, get_source

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 18


def fetch(name: str, *, progress: bool = True) -> Path:
    """Download the files of an image set into the cache; a file that is there and intact is kept.

    A file gets its final name only after its checksum was found right.

    Args:
        name: One of `IMAGE_SET_NAMES`.
        progress: Whether to draw a progress bar per file on stderr.

    Returns:
        The folder that holds the files; `locate` finds it from now on.

    Raises:
        UsageError: `name` is unknown, or names a set that comes in a package.
        WseError: The network or the server fails, a checksum is wrong, or the cache cannot be written.
    """
    source = get_source(name)
    check_download(source)
    folder = downloads_folder() / name
    for download in source.downloads:
        _fetch_file(download, folder, progress=progress)
    return folder


def check_download(source: Source) -> None:
    """Refuse a set that comes in a package.

    Raises:
        UsageError: it does.
    """
    if source.package is not None:
        raise UsageError(
            f"image set {source.name!r} is no download, it comes with {source.package}; get it with `{source.how}`"
        )


def _fetch_file(download: Download, folder: Path, *, progress: bool) -> None:
    import pooch

    # The caller says what is going on, and errors are raised: pooch need not log either.
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=_CHUNK_BYTES,
        timeout=_TIMEOUT_SECONDS,
        # The checksums are of the compressed files: nothing on the way may unpack them.
        headers={"Accept-Encoding": "identity"},
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            download.url,
            known_hash=f"md5:{download.md5}",
            fname=download.file,
            path=folder,
            downloader=downloader,
        )
    except ValueError as error:
        raise WseError(
            f"{download.url}: wrong checksum (expected md5 {download.md5}), nothing was kept; "
            f"try again, or put the original {download.file} in {folder}"
        ) from error
    except OSError as error:
        # The errors of requests are OSErrors as well, but only those of the file system carry a number.
        if error.errno is not None:
            reason = error.strerror or str(error)
            raise WseError(
                f"cannot write to the cache folder {folder} ({reason}); set WSE_CACHE to one with space"
            ) from error
        raise WseError(
            f"{download.url}: download failed ({_network_reason(error)}); check the network, or put the file "
            f"in {folder}"
        ) from error


def _network_reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        response.close()  # pooch leaves the connection of a refused request open
        return f"the server answered {response.status_code}"
    cause: BaseException | None = error
    while cause is not None:  # what the system said is told best, and lies deepest
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    reason = one_line(error)
    return type(error).__name__ if len(reason) > 80 else reason
