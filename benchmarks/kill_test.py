"""Kill a run with ``kill -9`` at random moments, go on each time, and compare the zoo with one never disturbed.

    python benchmarks/kill_test.py [--kills 200] [--repairs 20] [--device cpu] [--seed 0]

Members of a few dozen epochs train on the digits, and are checkpointed after every epoch, so that many kills
fall into writes. When a zoo is complete before all kills are done, it is compared and another is begun. A kill
counts as *inside a write* when it leaves a temporary file. Leaves with 1 if any zoo is not the undisturbed one,
byte for byte but for times, or if anything was found damaged. Then repairs of a damaged zoo are killed in the same
way: each time its tables must be readable as before, and in the end it must have every byte back.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from zoo_content import but_times, content

from wse.engine.zoo import Zoo

SPACE = [
    "--preset", "nws-fixed", "--datasets", "digits", "--set", "filter_size=3", "--set", "width_conv=4",
    "--set", "width_fc=16", "--set", "epochs=40", "--set", "images_per_epoch=512", "--set", "snapshots=5",
    "--set", "training_images=100", "--set", "validation_images=100", "--set", "test_images=100",
    "--set", "early_stopping=true", "--set", "min_epochs=20", "--set", "stop_worse=4", "--set", "stop_below=10",
    "--set", "stop_flat=4",
]  # fmt: skip
MOST_SECONDS = 3.0  # of training before a kill
AT_ANY_TIME = 0.1  # of the kills: from the start of the process, not of training


def start(folder: Path, device: str, models: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wse.cli", "generate", *SPACE, "--models", str(models), "--device", device]
    command += ["--threads", "2", "--checkpoint-interval", "0", "--quiet", "--out", str(folder)]
    return subprocess.Popen(command + ["--resume"] * (folder / "zoo.json").exists(), stdout=subprocess.DEVNULL)


def events(folder: Path) -> Counter[str]:
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(json.loads(line)["event"] for line in lines)


def kill_once(folder: Path, device: str, models: int, draw: random.Random) -> str:
    """Train until a random moment; what the kill met."""
    sittings = events(folder)["start"]
    process = start(folder, device, models)
    if draw.random() >= AT_ANY_TIME:
        while process.poll() is None and events(folder)["start"] == sittings:
            time.sleep(0.02)
    time.sleep(draw.uniform(0, MOST_SECONDS))
    process.kill()
    if process.wait() == 0:
        return "too late: the zoo was complete"
    if process.returncode > 0:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    inside = any(folder.rglob("*.tmp"))
    return "inside a write" if inside else "between writes"


def kill_repairs(folder: Path, kills: int, draw: random.Random) -> tuple[int, int]:
    """Damage a zoo and kill its repair until one comes to its end, over and over; kills, and zoos that differ."""
    whole, killed, different = content(folder), 0, 0
    while killed < kills:
        shard = min((folder / "shards").iterdir())
        shard.write_bytes(shard.read_bytes()[: draw.randrange(1, shard.stat().st_size)])
        (folder / "snapshots.parquet").unlink()
        code = None
        while code != 0:
            command = [sys.executable, "-m", "wse.cli", "verify", "--repair", "--quiet", str(folder)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                code = process.wait(draw.uniform(1, 4 * MOST_SECONDS) if killed < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
                killed += 1
            if code > 0:
                raise SystemExit(f"the repair failed with exit code {code}")
            if Zoo.open(folder).members.num_rows != len(Zoo.open(folder)):
                raise SystemExit("members cannot be read any more")
        different += content(folder) != whole
    return killed, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--repairs", type=int, default=20, help="kills of repairs")
    parser.add_argument("--models", type=int, default=60)
    parser.add_argument("--device", default="cpu", choices=["cpu", "reference"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    met: Counter[str] = Counter()
    found: Counter[str] = Counter()
    zoos = different = 0
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Path(name) / "undisturbed"
        if start(undisturbed, options.device, options.models).wait():
            raise SystemExit("the undisturbed run failed")
        expected = but_times(undisturbed)
        kills = 0
        while kills < options.kills:
            folder = Path(name) / f"zoo-{zoos}"
            complete = False
            while not complete and kills < options.kills:
                outcome = kill_once(folder, options.device, options.models, draw)
                complete = outcome.startswith("too late")
                kills += not complete
                met[outcome] += 1
            if not complete and start(folder, options.device, options.models).wait():
                raise SystemExit("the last run failed")
            zoos += 1
            different += but_times(folder) != expected
            found += events(folder)
        killed, unmended = kill_repairs(undisturbed, options.repairs, draw)
    print(f"{kills} kills: {met['inside a write']} inside a write, {met['between writes']} between writes")
    print(f"{zoos} zoos of {options.models} members; {found['resumed']} members went on from a checkpoint")
    print(f"{found['note']} notes of damage; {different} zoos differ from the undisturbed one")
    print(f"{killed} kills of repairs; {unmended} zoos differ afterwards")
    sys.exit(bool(different or unmended or found["note"]))


if __name__ == "__main__":
    main()
