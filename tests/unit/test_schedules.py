"""Each schedule that broke an earlier design has a scenario or a test, which exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCHEDULES = [
    *(f"F{number}" for number in range(1, 20)),
    *(f"M{number}" for number in range(1, 4)),
    *(f"R{number}" for number in range(1, 5)),
]


def rows():
    for line in (TESTS / "SCHEDULES.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| schedule", "| ---")):
            schedule, held, end = line[2:].split("|")
            assert not end, line
            yield schedule.strip(), held.strip()


def test_every_schedule_has_a_row():
    named = {schedule.split()[0] for schedule, _ in rows()}
    assert named >= set(SCHEDULES)


def test_whatever_goes_through_a_schedule_is_there():
    for schedule, held in rows():
        file, found = "", 0
        for match in re.finditer(r"([\w/]+\.(?:py|txt))?(?:::(test_\w+))?", held):
            file = match[1] or file
            if match[1]:
                assert (TESTS / file).is_file(), f"{schedule}: {file}"
                found += 1
            if match[2]:
                assert f"def {match[2]}(" in (TESTS / file).read_text(), f"{schedule}: {match[2]}"
        assert found or "no test" in held, schedule
