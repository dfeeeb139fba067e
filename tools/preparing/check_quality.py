"""Compares two precisions or checkpoints by their next-token scores on fixed French texts.

scripts/check-quality bf16 nf4                       base and adapter, merged, in two precisions
scripts/check-quality fp32 weights/prepared          prepared weights, of whatever they were made
scripts/check-quality weights/old owner/name         two models as they are, without the adapter

The second is held against the first. One after the other is in memory, in a process of its own; only the
scores are kept, 0.5 GB with Qwen's vocabulary. Base and adapter are those that a boot here would take: the
stand-in where there is no GPU, unless SNB_BASE_MODEL says otherwise. Precisions: bf16, fp16, fp32, int8, nf4.
"""

import argparse

from tools.preparing.comparison import Side, compare, table
from tools.preparing.quality import NAME
from tools.serving import local


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", type=Side.of)
    parser.add_argument("other", type=Side.of)
    options = parser.parse_args()
    figures = compare(options.reference, options.other, local.settings())
    print(table(options.reference, options.other, figures))
    print(f"texts: {NAME}")
    return 0
