"""``python -m tests.torture power``: records a trace, cuts the power, prints the score; exit status 1 when a promise broke.

    --images 4000 --seed 1      the first so many images of this seed
    --planted                   every planted fault must be found
    --keep FOLDER               the trace is recorded in this folder and stays there
    --trace FOLDER              no new trace: the one in this folder; the same seed then makes the same images
    --image 17                  this image alone, told in detail; with --keep or --trace it is written beside the trace

A trace is of one run, so an image that failed is made again from its trace, seed and number. Where a promise broke, the
trace is kept without being asked for.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.torture import launcher, load
from tests.torture.power import Cuts, Score

PLANTED_IMAGES = 200


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.torture power", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--fault", default="", choices=["", *launcher.FAULTS], help="record with this fault planted")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.planted:
        return _planted(options.seed)
    folder = options.trace or options.keep or Path(tempfile.mkdtemp(prefix="torture-power-"))
    began = time.monotonic()
    if not options.trace:
        folder.mkdir(parents=True, exist_ok=True)
        load.record(folder, load.WHOLE, options.fault)
    cuts = Cuts(load.recorded(folder), options.seed)
    print(f"a trace of {len(cuts.calls)} calls in {time.monotonic() - began:.0f} s")
    if options.image is not None:
        return _one(cuts, options.image, folder)
    score = cuts.run(options.images, options.processes)
    _print(f"seed {options.seed}", score)
    for index, found in list(score.problems.items())[:20]:
        print(f"  image {index}: {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))
    if score.problems:
        print(f"again: python -m tests.torture power --trace {folder} --seed {options.seed} --image {min(score.problems)}")
    elif not options.keep and not options.trace:
        shutil.rmtree(folder)
    return 1 if score.problems else 0


def _print(what: str, score: Score) -> None:
    kinds = "".join(f"\n    {count} times {kind}" for kind, count in score.kinds().items())
    print(
        f"{what}: {score.images} images in {score.seconds:.0f} s, {score.boundaries} of {score.of_boundaries} durable boundaries, "
        f"{score.acknowledged} acknowledgements; {score.stores} recovered by the store, {score.daemons} by the daemon; "
        f"{len(score.problems)} images broke a promise{kinds}",
        flush=True,
    )


def _one(cuts: Cuts, index: int, folder: Path) -> int:
    """One image in detail."""
    position = cuts.at(index)
    print(f"image {index}: the power fails at {position} of {cuts.last}, after")
    done = [call for call in cuts.calls if call.entered < position]
    for call in done[-8:]:
        state = "" if call.returned < position else " (has not returned)"
        print(f"    {call.entered}..{call.returned} {call.kind} {Path(call.name).name} {call.offset} {len(call.data)} bytes{state}")
    [(_, image)] = cuts.images([index])
    place = folder / f"image-{index}"
    place.mkdir(exist_ok=True)
    for name, content in image.items():
        (place / Path(name).name).write_bytes(content)
        print(f"    {place / Path(name).name}: {len(content)} bytes")
    [(_, found, _)] = cuts.check([index])
    print("\n".join(found) or "every promise is kept")
    return 1 if found else 0


def _planted(seed: int) -> int:
    """Every planted fault, one after the other; the exit status is 1 when one was not found."""
    missed = 0
    for fault in launcher.FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            score = Cuts(load.record(Path(folder), load.Amount(), fault), seed, daemons=False).run(PLANTED_IMAGES)
        _print(fault, score)
        missed += not score.problems
    return 1 if missed else 0
