"""``python -m tests.torture power``: records a trace, cuts the power, prints the score; exit status 1 when a promise broke.

    --images 4000 --seed 1      the first so many images of this seed
    --again 5                   on so many of these images the daemon works on, and the power fails a second time
    --planted                   instead: every planted fault must be found
    --failing 5                 every fifth fsync fails, and what it was to write never reaches the disk
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
from collections.abc import Iterator
from pathlib import Path

from tests.torture import launcher, load
from tests.torture.power import Cuts, Score

PLANTED_IMAGES, AGAIN_IMAGES = 200, 200


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.torture power", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", type=int)
    parser.add_argument("--again", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--fault", default="", choices=["", *launcher.FAULTS], help="record with this fault planted")
    parser.add_argument("--failing", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.planted:
        return _planted(options.seed)
    folder = options.trace or options.keep or Path(tempfile.mkdtemp(prefix="torture-power-"))
    began = time.monotonic()
    if not options.trace:
        folder.mkdir(parents=True, exist_ok=True)
        load.record(folder, load.FAILING if options.failing else load.WHOLE, options.fault, failing=options.failing)
    cuts = Cuts(load.recorded(folder), options.seed, daemons=not options.failing)
    print(f"a trace of {len(cuts.calls)} calls in {time.monotonic() - began:.0f} s")
    if options.image is not None:
        return _one(cuts, options.image, folder)
    broke = _run(cuts, f"seed {options.seed}", options.images, options.processes, folder)
    for second in again(cuts, 0 if options.failing else options.again, folder):
        broke += _run(Cuts(load.recorded(second), options.seed), second.name, AGAIN_IMAGES, options.processes, second)
    if not broke and not options.keep and not options.trace:
        shutil.rmtree(folder)
    return 1 if broke else 0


def _run(cuts: Cuts, what: str, images: int, processes: int, folder: Path) -> int:
    """Judges images and tells how it went; how many broke a promise."""
    score = cuts.run(images, processes)
    _print(what, score)
    for index, found in list(score.problems.items())[:20]:
        print(f"  image {index}: {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))
    if score.problems:
        print(f"again: python -m tests.torture power --trace {folder} --seed {cuts.seed} --image {min(score.problems)}")
    return len(score.problems)


def again(cuts: Cuts, count: int, folder: Path) -> Iterator[Path]:
    """Records what the daemon does on some images: each recording's folder."""
    for index, image in cuts.images(range(count)):
        second = folder / f"again-{index}"
        second.mkdir()
        load.record(second, load.AGAIN, base=image, promised=cuts.promises.before(cuts.at(index)).made())
        yield second


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
