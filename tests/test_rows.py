"""Rows of results: kept once, found again, and each says which code it is of."""

import json
import shutil
import subprocess
from collections import Counter

from experiments import rate_distortion, rowfile, sweep

WANTED = {"image": "a1.png", "setting": {"variant": "fast", "seed": 0}}


def test_a_row_is_measured_once_and_again_only_for_another_commit(tmp_path, monkeypatch):
  path, figures = tmp_path / "rows.jsonl", iter(range(10))
  kept = lambda source: rowfile.kept(path, WANTED, lambda: {"psnr": next(figures)}, source)
  path.write_text(json.dumps(WANTED | {"recipe": "08b81ca2436f", "psnr": -1}) + "\n")
  monkeypatch.setattr(rowfile, "commit", lambda: "aaaaaaa")
  usual, fresh = rowfile.source(), rowfile.source(fresh=True)
  assert kept(usual)["psnr"] == -1
  assert [kept(fresh)["psnr"] for _ in range(2)] == [0, 0]
  monkeypatch.setattr(rowfile, "commit", lambda: "bbbbbbb+")
  assert kept(usual)["psnr"] == 0 and kept(fresh)["psnr"] == 1
  assert usual.commits == Counter({rowfile.EARLIER: 1, "aaaaaaa": 1})
  assert fresh.commits == Counter({"aaaaaaa": 2, "bbbbbbb+": 1})
  rows = rowfile.read(path)
  assert [row["psnr"] for row in rows] == [-1, 0, 1]  # none is written anew
  assert rowfile.latest([*rows, WANTED | {"image": "b.png"}], ("image", "setting"))[0]["psnr"] == 1
  assert rows[-1]["machine"] and rows[-1]["environment"]["jax"] and rows[-1]["date"].startswith("20")
  assert rowfile.find(rows, {"image": "b.png"}) is None


def test_other_codecs_are_not_encoded_again_for_a_commit_of_ours():
  fresh = rowfile.source(fresh=True)
  assert rate_distortion.of_ours("gaussjax", fresh).fresh and not rate_distortion.of_ours("webp", fresh).fresh


def test_a_commit_is_named_with_a_plus_if_the_code_is_changed(tmp_path, monkeypatch):
  """Rows that are appended do not change it; outside of a repository it is unknown."""
  git = lambda *words: subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True)
  folder = tmp_path / "experiments"
  (folder / "results").mkdir(parents=True)
  shutil.copy(rowfile.__file__, folder / "rowfile.py")
  (folder / "results" / "rows.jsonl").write_text("{}\n")
  named = rowfile.commit.__wrapped__
  monkeypatch.setattr(rowfile, "__file__", str(folder / "rowfile.py"))
  monkeypatch.setattr(rowfile, "RESULTS", folder / "results")
  monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
  assert named() == "unknown"
  git("init", "--quiet")
  git("add", ".")
  git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=x")
  head = git("rev-parse", "--short", "HEAD").stdout.strip()
  (folder / "results" / "rows.jsonl").write_text("{}\n{}\n")
  assert named() == head
  (folder / "rowfile.py").write_text("")
  assert named() == head + "+"


def test_summaries_are_of_the_last_row_of_each_thing_and_say_whose(tmp_path, capsys):
  setting = sweep.Setting("fast", 100, 0, None, None)._asdict()
  row = lambda image, psnr, **more: {
    "image": image, "setting": setting, "psnr": psnr, "ssim": 0.5, "seconds": 1.0, "num_gaussians": 100,
    "curve": [[0, 0.1, 10.0], [10, 1.0, psnr]], **more,
  }  # fmt: skip
  rows = [row("a1.png", 20.0, recipe="x"), row("a1.png", 31.0, recipe="y"), row("a2.png", 33.0, commit="abcdef1")]
  sweep.summarise(rows, tmp_path / "plot.png")
  printed = capsys.readouterr().out
  assert "rows of an earlier commit (1), abcdef1 (1)" in printed
  assert "32.00" in printed and "20.00" not in printed and "of 2)" in printed
