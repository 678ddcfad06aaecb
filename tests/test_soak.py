"""What the soak calls wrong. That it finds nothing is for hours, and not for here."""

import sys

import pytest

from experiments import fuzz_format, soak
from gaussjax import files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is of kills and limits that Windows lacks")


def test_what_is_half_written_changed_or_lost_is_found(tmp_path):
  whole = fuzz_format.small_file()
  (tmp_path / "there").mkdir()
  (tmp_path / "there" / "a.gjx").write_bytes(whole)
  (tmp_path / "there" / f"{files.TEMPORARY}x").write_bytes(whole[:9])
  (tmp_path / "set.npz").write_bytes(files.npz_bytes({"x": 1}, {"y": [1.0]}))
  soak.check_whole(tmp_path)
  assert soak.left_over(tmp_path) == 1
  soak.check_same(tmp_path / "there" / "a.gjx", tmp_path / "there" / "a.gjx")
  for name, data in (("a.gjx", whole[:-1]), ("b.npz", b"PK"), ("c.png", b"\x89PNG"), ("d.json", b"[")):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(soak.WrongError, match=f"{name} is half written"):
      soak.check_whole(tmp_path)
    (tmp_path / name).unlink()
  with pytest.raises(soak.WrongError, match="is lost"):
    soak.check_same(tmp_path / "none", tmp_path / "set.npz")
  with pytest.raises(soak.WrongError, match="differs"):
    soak.check_same(tmp_path / "there" / "a.gjx", tmp_path / "set.npz")


def row(kind, kills=0, **more):
  return {"kind": kind, "kills": kills, "seconds": 60.0, **more}


def test_the_status_is_that_of_the_rows(capsys):
  good = [row(kind, 5) for kind in soak.KILLED]
  alive = [row("living on", process=7, memory=2**28 + 2**20 * (i % 3), handles=9) for i in range(12)]
  assert soak.summarise(good + alive, 5) == 0 and "9 rounds: memory" in capsys.readouterr().out
  assert soak.summarise(good, 6) == 1 and "fewer kills than 6" in capsys.readouterr().out
  assert soak.summarise([*good, row("batch", wrong="lost")], 5) == 1
  leaking = [one | {"memory": one["memory"] + index * 2**24} for index, one in enumerate(alive)]
  assert soak.summarise(good + leaking, 5) == 1
  begun_anew = [one | {"process": index} for index, one in enumerate(leaking)]  # each life is too short to tell
  assert soak.summarise(good + begun_anew, 5) == 0


def test_those_that_lack_kills_come_first():
  rows, seen = [], []
  for _ in range(30):
    kind = soak.next_kind(rows, 9)
    seen.append(kind)
    rows.append(row(kind, 3 * (kind in soak.KILLED)))
  assert set(seen) == set(soak.OPERATIONS)
  assert all(soak.killed(rows, kind) >= 9 for kind in soak.KILLED)
