"""Merges the adapter into the base, quantises the result, and writes it where a boot only has to read it.

scripts/prepare-weights --precision nf4      writes weights/prepared, which the next boot takes

Settings come from the environment, as for a boot; missing files of base and adapter are downloaded first.
Memory stays near one shard, and an interrupted run resumes after its last complete one. At the end the result
is compared with the merged model before quantisation, which has to fit this machine; --skip-quality leaves
that out, and the card then has no quality. On a fault, exits with 1 and an error.
"""

import logging
from pathlib import Path

from safetensors import SafetensorError

from snb.errors import OutOfMemory
from snb.settings import Settings
from snb.weights.lock import alone
from snb.weights.prepared import FOLDER, Card
from tools.command import Fault, command_line
from tools.preparing import preparation

CURE = "scripts/check-quality measures it on a larger machine; --skip-quality here"


def main() -> int:
    """The folder goes to stdout, progress and faults to stderr."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--precision", choices=preparation.KINDS, required=True, help="what the weights are held in")
    add("--output", type=Path, help="default: prepared in the weights' folder, where a boot looks")
    add("--skip-quality", action="store_true", help="do not compare with the merged model")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
    settings = Settings.from_environment()
    output = (asked.output or settings.weights_dir / FOLDER).resolve()
    preparation.check_free(output)
    recipe = preparation.Recipe.of(settings, asked.precision)
    with alone(output.with_name(f"{output.name}.lock")):
        try:
            preparation.prepare(recipe, output)
        except SafetensorError as failure:  # a shard cannot be written
            raise Fault(failure) from failure
        if not (asked.skip_quality or Card.read(output).quality):
            try:
                preparation.measure(output)
            except OutOfMemory as failure:
                raise Fault(f"{output} is whole, but not compared: {failure}\n{CURE}") from failure
    print(output)
    return 0
