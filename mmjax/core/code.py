"""Which code made a result."""

import functools
import hashlib
from pathlib import Path

import mmjax


@functools.cache
def code_hash(packages: tuple[str, ...]) -> str:
    """A hash of the code of some packages of mmjax, as it was when this process first asked.

    What writes reports decides nothing and is left out.
    """
    package = Path(mmjax.__file__).parent
    files = [f for part in packages for f in sorted((package / part).glob("*.py"))]
    digest = hashlib.sha256()
    for file in files:
        if not file.name.startswith("report"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
