"""Faults of a source are reported by name; tolerable ones are noted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.sources.image_files import (
    chest,
    deepen,
    draw,
    save,
    series,
    write_folder,
    write_manifest,
    write_npy,
    write_npz,
    write_table,
)
from tuner.errors import DataError, MachineError

Break = Callable[[Path], tuple[str, Path]]
"""Writes files with a fault; returns the kind of source and its path."""


def folder_without(part: str) -> Break:
    """Return a maker of a folder without one of its parts."""

    def make(place: Path) -> tuple[str, Path]:
        write_folder(place / "all")
        return "folder", (place / "all" / part)

    return make


def empty_class(place: Path) -> tuple[str, Path]:
    """Add a class without images."""
    (write_folder(place / "f") / "train" / "other").mkdir()
    return "folder", place / "f"


def one_class(place: Path) -> tuple[str, Path]:
    """Write one class only."""
    save(place / "f" / "train" / "normal" / "a.png", draw("train", 0, 0))
    return "folder", place / "f"


def strange_test_class(place: Path) -> tuple[str, Path]:
    """Write a test class without training images."""
    save(write_folder(place / "f") / "test" / "flu" / "a.png", draw("test", 0, 99))
    return "folder", place / "f"


def broken_image(place: Path) -> tuple[str, Path]:
    """Truncate two images."""
    folder = write_folder(place / "f") / "train" / "normal"
    for name in ("003.png", "004.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
    return "folder", place / "f"


def two_depths(place: Path) -> tuple[str, Path]:
    """Mix images of 8 and 16 bits."""
    save(write_folder(place / "f") / "train" / "normal" / "deep.png", deepen(draw("train", 0, 50)))
    return "folder", place / "f"


def pickled(place: Path) -> tuple[str, Path]:
    """Write an array of objects, which only unpickling could read."""
    np.save(write_npy(place / "n") / "normal.npy", np.array([{}, []], dtype=object))
    return "npy", place / "n"


def pickled_archive(place: Path) -> tuple[str, Path]:
    """Write an archive with an array of objects."""
    path = place / "a.npz"
    np.savez(path, train_images=np.array([{}], dtype=object), train_labels=np.zeros(1))
    return "npz", path


def nan_array(place: Path) -> tuple[str, Path]:
    """Put a NaN into an array."""
    images = series("train", 0).astype(np.float64)
    images[3, 2, 1] = np.nan
    np.save(write_npy(place / "n", lambda a: a / 2) / "normal.npy", images)
    return "npy", place / "n"


def flat_array(place: Path) -> tuple[str, Path]:
    """Write images as rows."""
    np.save(write_npy(place / "n") / "normal.npy", series("train", 0).reshape(20, -1))
    return "npy", place / "n"


def empty_array(place: Path) -> tuple[str, Path]:
    """Write a class without an image."""
    np.save(write_npy(place / "n") / "normal.npy", np.zeros((0, 16, 16), dtype=np.uint8))
    return "npy", place / "n"


def few_labels(place: Path) -> tuple[str, Path]:
    """Write fewer labels than images."""
    arrays = dict(np.load(write_npz(place / "a.npz")))
    np.savez(place / "a.npz", **{**arrays, "train_labels": arrays["train_labels"][:-1]})
    return "npz", place / "a.npz"


def no_labels(place: Path) -> tuple[str, Path]:
    """Write images without labels."""
    np.savez(place / "a.npz", train_images=series("train", 0))
    return "npz", place / "a.npz"


def many_faults(place: Path) -> tuple[str, Path]:
    """Write a table with one fault per line."""
    save(place / "a.png", draw("train", 0, 0))
    rows = [
        {"path": "a.png", "label": "x"},
        {"path": "b.png", "label": "x"},
        {"path": "a.png", "label": "y"},
        {"path": "a.png", "label": ""},
        {"path": "", "label": "x"},
        {"path": "a.png", "label": "x", "split": "exam"},
    ]
    return "manifest", write_table(place / "m.csv", rows, ("path", "label", "split"))


def no_columns(place: Path) -> tuple[str, Path]:
    """Write a table with other columns."""
    return "manifest", write_table(place / "m.csv", [{"file": "a"}], ("file",))


def table_of(*headers: str) -> Break:
    """Return a maker of a table of eight images with these headers."""

    def make(place: Path) -> tuple[str, Path]:
        rows = []
        for n in range(8):
            save(place / f"{n}.png", draw("train", n % 2, n))
            cells = (f"{n}.png", "ab"[n % 2], "test" if n > 5 else "", f"p{n}")
            rows.append(dict(zip(headers, cells, strict=False)))
        return "manifest", write_table(place / "m.csv", rows, headers)

    return make


def semicolons(place: Path) -> tuple[str, Path]:
    """Write a table as a European spreadsheet does."""
    (place / "m.csv").write_text("path;label\na.png;x\n")
    return "manifest", place / "m.csv"


def long_row(place: Path) -> tuple[str, Path]:
    """Write a path with a comma and without quotes."""
    (place / "m.csv").write_text("path,label\na,b.png,x\n")
    return "manifest", place / "m.csv"


def two_spellings(place: Path) -> tuple[str, Path]:
    """Write a class in two ways."""
    rows = []
    for n in range(8):
        save(place / f"{n}.png", draw("train", n % 2, n))
        rows.append({"path": f"{n}.png", "label": ("Normal", "flu", "normal", "flu")[n % 4]})
    return "manifest", write_table(place / "m.csv", rows)


def blank_folder(place: Path) -> tuple[str, Path]:
    """Append a blank to the name of a class's folder."""
    save(write_folder(place / "f") / "train" / "normal " / "a.png", draw("train", 0, 70))
    return "folder", place / "f"


def one_patient(place: Path) -> tuple[str, Path]:
    """Write a class whose images are all of one patient."""
    rows = []
    for n in range(8):
        save(place / f"{n}.png", draw("train", n % 2, n))
        patient = "p" if n % 2 else f"q{n}"
        rows.append({"path": f"{n}.png", "label": "ab"[n % 2], "patient": patient})
    return "manifest", write_table(place / "m.csv", rows, ("path", "label", "patient"))


FAULTS: dict[str, tuple[Break, tuple[str, ...]]] = {
    "no folder": (folder_without("none"), ("there is no folder", "correct data.path")),
    "no train": (folder_without("train"), ("has no folder `train`", "train/CLASS")),
    "empty class": (empty_class, ("train/other has no image", "fill or remove")),
    "one class": (one_class, ("only 'normal'", "two classes are needed")),
    "strange test class": (strange_test_class, ("'flu'", "no training image has")),
    "broken": (broken_image, ("2 images cannot be read", "003.png", "004.png", "skip_unreadable")),
    "two depths": (two_depths, ("8-bit", "16-bit", "deep.png", "convert")),
    "pickled": (pickled, ("normal.npy", "array of numbers")),
    "pickled archive": (pickled_archive, ("NPZ archive of numbers",)),
    "nan": (nan_array, ("normal.npy", "NaN")),
    "flat": (flat_array, ("normal.npy has shape (20, 256)", "expected (images, height, width)")),
    "empty array": (empty_array, ("normal.npy has no image",)),
    "few labels": (few_labels, ("39 labels for 40 images",)),
    "no labels": (no_labels, ("has no array train_labels", "train_images")),
    "many faults": (
        many_faults,
        ("5 faults", "line 3: there is no file", "line 4: a.png is listed in line 2",
         "line 5: label is empty", "line 6: path is empty", "line 7: split is 'exam'"),
    ),
    "column split misspelt": (table_of("path", "label", "splt"), ("'splt'", "mean split?")),
    "patient_id": (table_of("path", "label", "split", "patient_id"), ("mean patient?", "Rename")),
    "PatientID": (table_of("path", "label", "split", "PatientID"), ("mean patient?",)),
    "subset": (table_of("path", "label", "Subset"), ("'Subset'", "mean split?")),
    "class": (table_of("path", "Class"), ("no column label", "'Class'", "mean label?")),
    "column twice": (
        table_of("path", "label", "split", "Split"), ("'split' and 'Split' are both split",),
    ),
    "semicolons": (semicolons, ("separated by ';'", "write commas")),
    "long row": (long_row, ("line 2: it has 3 cells", "names 2")),
    "two spellings": (two_spellings, ("'Normal' and 'normal'", "case or blanks")),
    "blank in a folder": (blank_folder, ("'normal' and 'normal '", "case or blanks")),
    "no columns": (no_columns, ("no column path and no column label", "names file")),
    "one patient": (one_patient, ("class 'b' has only 1 patient", "at least 2 are needed")),
    "no npz": (lambda place: ("npz", place / "no.npz"), ("there is no file",)),
    "no csv": (lambda place: ("manifest", place / "no.csv"), ("there is no file",)),
    "no arrays": (lambda place: ("npy", place / "no"), ("there is no folder",)),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_by_name(case: str, tmp_path: Path) -> None:
    """The message names the thing, its state and what is expected."""
    make, words = FAULTS[case]
    kind, path = make(tmp_path)
    with pytest.raises(DataError) as raised:
        chest(tmp_path / "cache", source=kind, path=str(path))
    message = str(raised.value)
    assert [word for word in words if word not in message] == [], message


def test_a_path_must_be_given(tmp_path: Path) -> None:
    """A source of files requires a path."""
    with pytest.raises(DataError, match=r"needs data\.path"):
        chest(tmp_path, source="folder")


@pytest.mark.parametrize("size", [1, 7])
def test_images_of_no_size_are_refused(size: int, tmp_path: Path) -> None:
    """Images of a few pixels are refused."""
    with pytest.raises(DataError, match="at least 8"):
        chest(tmp_path, source="npy", path=str(write_npy(tmp_path / "n")), image_size=size)


def test_unreadable_images_can_be_left_out(tmp_path: Path) -> None:
    """With skip_unreadable they are counted and named, and every other image is used."""
    kind, path = broken_image(tmp_path)
    data = chest(tmp_path / "cache", source=kind, path=str(path), skip_unreadable=True)
    assert len(data.train.ids) + len(data.val.ids) == 38
    assert not {"train/normal/003.png", "train/normal/004.png"} & {*data.train.ids, *data.val.ids}
    (note,) = [note for note in data.notes if "unreadable" in note]
    assert "2 unreadable images were left out" in note
    assert "003.png" in note
    right = data.train.images[:, :, 8:].mean((1, 2)) - data.train.images[:, :, :8].mean((1, 2))
    assert ((right > 30) == (data.train.labels == 1)).all()


def test_a_changed_file_is_decoded_anew(tmp_path: Path) -> None:
    """A repaired or replaced image is decoded again, not taken from the cache."""
    path = write_folder(tmp_path / "f")
    first = chest(tmp_path / "cache", source="folder", path=str(path))
    save(path / "train" / "normal" / "000.png", draw("train", 0, 77))
    second = chest(tmp_path / "cache", source="folder", path=str(path))
    assert second.fingerprint != first.fingerprint


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    """A flipped bit in the cached pixels is detected."""
    path = write_folder(tmp_path / "f")
    first = chest(tmp_path / "cache", source="folder", path=str(path))
    (kept,) = (tmp_path / "cache" / "images").glob("*.npy")
    body = bytearray(kept.read_bytes())
    body[-5] ^= 1
    kept.write_bytes(body)
    assert chest(tmp_path / "cache", source="folder", path=str(path)).fingerprint == (
        first.fingerprint
    )


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A cache that cannot be written is named, with what to do."""
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(MachineError, match="set TUNER_HOME"):
        chest(tmp_path / "cache", source="folder", path=str(write_folder(tmp_path / "f")))


def test_no_test_set_is_told_once(tmp_path: Path) -> None:
    """Data without test images are valid; a note says what will be missing."""
    path = write_npy(tmp_path / "n")
    for name in ("test_normal.npy", "test_pneumonia.npy"):
        (path / name).unlink()
    data = chest(tmp_path / "cache", source="npy", path=str(path))
    assert data.test is None
    assert sum("no test set" in note for note in data.notes) == 1


def test_sizes_that_differ_are_stretched_to_the_commonest(tmp_path: Path) -> None:
    """The training images decide on the size, and a note counts the changed ones."""
    path = write_folder(tmp_path / "f")
    save(path / "train" / "normal" / "large.png", draw("train", 0, 60, size=48))
    for n in range(30):
        save(path / "test" / "normal" / f"t{n}.png", draw("test", 0, n, size=24))
    data = chest(tmp_path / "cache", source="folder", path=str(path))
    assert data.train.images.shape[1:] == (16, 16)
    assert any("31 of 87 images have another size" in note for note in data.notes)


def test_a_validation_split_is_used_as_found(tmp_path: Path) -> None:
    """val/ is used for validation; only split_seed or folds divide again, with the same share."""
    path = write_folder(tmp_path / "f")
    for label, name in enumerate(("normal", "pneumonia")):
        for n in range(5):
            save(path / "val" / name / f"{n}.png", draw("val", label, n))
    keys = {"source": "folder", "path": str(path)}
    found = chest(tmp_path / "cache", **keys)
    assert {name.split("/")[0] for name in found.val.ids} == {"val"}
    again = chest(tmp_path / "cache", **keys, split_seed=1)
    assert len(again.val.ids) == len(found.val.ids) == 10
    assert {name.split("/")[0] for name in again.val.ids} == {"train", "val"}


def test_a_division_never_parts_a_patient(tmp_path: Path) -> None:
    """All images of a patient are in training, or all in validation, for any seed and folds."""
    keys = {"source": "manifest", "path": str(write_manifest(tmp_path / "m"))}
    for more in ({}, {"split_seed": 1}, {"split_seed": 7}, {"folds": 5, "split_seed": 3}):
        data = chest(tmp_path / "cache", **keys, **more)
        assert set(data.train.patients).isdisjoint(data.val.patients)
        assert len(data.train.patients) == len(data.train.ids)
        assert len(set(data.val.patients)) == 4
        assert "by patient" in " ".join(data.notes)


def test_drawn_splits_are_divided_anew_by_patient() -> None:
    """An objective's own training and validation images stay divided by patient."""
    from tuner.train.objective import Data, Split
    from tuner.train.sources.assemble import redivided

    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4)).astype(np.uint8)
    labels = np.arange(60, dtype=np.int64) // 3 % 2
    whole = Split(
        images, labels, tuple(f"i{n}" for n in range(60)), tuple(f"p{n // 3}" for n in range(60))
    )
    parts = [
        Split(images[mine], labels[mine], whole.ids[mine], whole.patients[mine])
        for mine in (slice(0, 45), slice(45, 60))
    ]
    data = Data(parts[0], parts[1], None, ("a", "b"), "f")
    again = redivided(data, {"val_fraction": 0.25, "folds": 0, "split_seed": 3})
    for split in (again.train, again.val):
        assert split.patients == tuple(f"p{int(name[1:]) // 3}" for name in split.ids)
    assert set(again.val.patients) != set(parts[1].patients)
    assert not set(again.train.patients) & set(again.val.patients)


def test_patients_that_a_table_parts_are_told(tmp_path: Path) -> None:
    """The table's own splits are used, and the patients in several of them are noted."""
    rows = []
    for n in range(24):
        save(tmp_path / f"{n}.png", draw("train", n % 2, n))
        split = ("train", "val", "test")[n // 8]
        patient = "shared" if n in (0, 8, 16) else f"p{n}"
        rows.append({"path": f"{n}.png", "label": "ab"[n % 2], "split": split, "patient": patient})
    table = write_table(tmp_path / "m.csv", rows, ("path", "label", "split", "patient"))
    data = chest(tmp_path / "cache", source="manifest", path=str(table))
    assert [len(split.ids) for split in (data.train, data.val, data.test) if split] == [8, 8, 8]
    assert any("1 patients are in more than one split: shared" in n for n in data.notes)


def test_headers_are_read_without_regard_to_case(tmp_path: Path) -> None:
    """`Split` and ` Patient ` are recognised, and both are noted."""
    kind, path = table_of("Path", "label", "Split", " Patient ")(tmp_path)
    data = chest(tmp_path / "cache", source=kind, path=str(path))
    assert data.test is not None
    assert data.test.ids == ("6.png", "7.png")
    assert data.test.patients == ("p6", "p7")
    (note,) = [note for note in data.notes if "case and blanks" in note]
    assert "'Split' as split, ' Patient ' as patient" in note
    assert "are not kept together" not in " ".join(data.notes)


def test_other_columns_are_ignored_and_noted(tmp_path: Path) -> None:
    """Unknown columns are ignored, and named."""
    kind, path = table_of("path", "label", "Patient Age", "date")(tmp_path)
    data = chest(tmp_path / "cache", source=kind, path=str(path))
    assert any("ignored: Patient Age, date." in note for note in data.notes)
    assert sum("patients are not kept together" in note for note in data.notes) == 1


def test_blanks_and_twins_in_cells_are_noted(tmp_path: Path) -> None:
    """Blanks around cells are removed; patients with two spellings or without a name are noted."""
    rows = []
    for n in range(12):
        save(tmp_path / f"{n}.png", draw("train", n % 2, n))
        patient = {0: "P1", 2: "p1 ", 4: ""}.get(n, f"q{n}")
        rows.append({"path": f"{n}.png", "label": ("a ", "b")[n % 2], "patient": patient})
    table = write_table(tmp_path / "m.csv", rows, ("path", "label", "patient"))
    data = chest(tmp_path / "cache", source="manifest", path=str(table))
    assert data.classes == ("a", "b")
    told = " ".join(data.notes)
    assert "Blanks around 7 cells" in told
    assert "count as different patients: P1 and p1." in told
    assert "1 of 12 images have no patient" in told


def test_colour_arrays_keep_their_channels(tmp_path: Path) -> None:
    """An archive of colour images, channels last, trains a network with three channels."""
    path = write_npz(tmp_path / "a.npz", lambda a: np.stack([a, a // 2, a // 3], axis=3))
    data = chest(tmp_path / "cache", source="npz", path=str(path))
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert (data.train.images[:, 1] == data.train.images[:, 0] // 2).all()
