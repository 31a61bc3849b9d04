"""What an error has to say to the person at the terminal."""

from pathlib import Path

from kedro.config import MissingConfigException
from kedro.io.core import VersionNotFoundError
from pydantic import ValidationError
from yaml import YAMLError

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import one_line

# packages behind s3://, https://, gs:// and abfs://
_STORES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")


def user_message(error: BaseException | None) -> str | None:
    """Find the one line that says what to do, in the error or in what caused it; None if nobody wrote one."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    remedy = "if it is the result of an earlier step, run the pipeline whole"
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    for link in chain:
        if isinstance(link, ValidationError):  # of a value that is made of settings which fit by themselves
            return one_line(link, link.title)
        if isinstance(link, YAMLError):
            return f"{' '.join(str(link).split())} Mend it there: keys of one block begin in the same column"
    for link in chain:
        if type(link).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
            said = str(link).split(". ")[0]
            return (
                f"the GPU is out of memory ({said}); lower the batch_size of the recipe or of geometry, or memory_share, "
                "or run fewer points at a time; what is finished is kept"
            )
    for link in chain:
        if type(link).__module__.split(".")[0] in _STORES:
            said = str(link).splitlines()[0]
            return f"a store of files cannot be read or written: {said}; check the path, the connection and its credentials"
        if isinstance(link, ImportError) and str(link).startswith("Install "):  # fsspec, of a path's s3:// or gs://
            return f"a path lies in a store of files: {link}"
    for link in chain:
        if isinstance(link, FileNotFoundError) and link.filename:
            if Path(link.filename).parent.name == "01_raw":
                return (
                    f"{link.filename} does not exist; put it there: the bundled ones are packed as data-persona_leakage.tar.gz"
                )
            return f"{link.filename} does not exist; {remedy}"
        if isinstance(link, MissingConfigException):
            said = f"{str(link).splitlines()[0]}; --env names a folder of conf"
            return f"{said}, and a packaged project has conf from the archive that kedro package makes beside the wheel"
        if isinstance(link, VersionNotFoundError):
            return f"{str(link).splitlines()[0]}; {remedy}"
    return None
