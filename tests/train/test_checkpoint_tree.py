"""The tree stores states exactly in a folder, in memory:// and on S3, and checks every file."""

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.blobs import blob_job, write_blobs
from tests.train.checkpoint_cases import MINE, OTHERS, Kept, Trained, kept, s3, state_text, train
from tuner.errors import MachineError, UserError
from tuner.train.checkpoints import manifest as manifests
from tuner.train.checkpoints.keys import FORMAT
from tuner.train.checkpoints.local import LocalPlace
from tuner.train.checkpoints.place import StoredFile
from tuner.train.checkpoints.remote import RemotePlace
from tuner.train.checkpoints.space import owner
from tuner.train.checkpoints.tree import ORPHAN_SECONDS, PARTS_FOLDER, Tree

__all__ = ["kept", "s3"]

Damage = Callable[[bytes], bytes]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of six epochs that overfits, so that its best is not always its last."""
    bench = write_blobs(tmp_path_factory.mktemp("blobs")).workbench()
    return train(bench, blob_job(epochs=6, hidden=64, lr=0.05, data={"contrast": 3.0}))


def part_of(kept: Kept, key: str, name: str) -> str:
    """Return the file of one part of a stored checkpoint."""
    content = kept.place().read(manifests.file_name(key))
    assert content is not None
    return manifests.read(manifests.file_name(key), content).parts[name].file


def flipped(content: bytes) -> bytes:
    """Return the content with one bit in its middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_states_come_back_in_every_bit(kept: Kept, trained: Trained) -> None:
    """Weights, best weights, optimizer and curve are equal when read by another tree."""
    assert any(state.best_epoch < len(state.curve) for state in trained.states)
    trained.store(kept.tree(), *range(1, 7))
    for epoch in range(1, 7):
        stored = kept.tree().longest(trained.path[:epoch])
        assert stored is not None
        assert (stored.epoch, stored.key) == (epoch, trained.path[epoch - 1])
        assert state_text(stored.state) == state_text(trained.states[epoch - 1])
        assert stored.description == trained.description


def test_figures_that_are_no_numbers_come_back(kept: Kept, trained: Trained) -> None:
    """NaN and infinity, which JSON lacks, are stored exactly."""
    state = trained.states[0]
    odd = replace(state.curve[0], val_auc=float("nan"), train_loss=float("-inf"), lr=5e-324)
    kept.tree().store(trained.path[0], replace(state, curve=(odd,)), trained.description)
    stored = kept.tree().longest(trained.path)
    assert stored is not None
    assert repr(stored.state.curve) == repr((odd,))


def test_the_longest_prefix_is_one_of_the_own_path(kept: Kept, trained: Trained) -> None:
    """Gaps do not matter, other keys are ignored, and an empty tree has none."""
    tree = kept.tree()
    assert tree.longest(trained.path) is None
    trained.store(tree, 1, 4)
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 4
    elsewhere = trained.path[:1] + ["0" * 64] * 5
    stored = tree.longest(elsewhere)
    assert stored is not None
    assert stored.epoch == 1
    assert tree.longest(["0" * 64]) is None
    assert tree.has(trained.path[3])
    assert not tree.has(trained.path[2])
    assert tree.known([*trained.path, "0" * 64]) == {trained.path[0], trained.path[3]}


def test_the_listing_says_what_lies_there(kept: Kept, trained: Trained) -> None:
    """Each entry has key, epoch, size and owner; a removed one is gone with its parts."""
    tree = kept.tree()
    trained.store(tree, 2, 3)
    entries = {entry.key: entry for entry in tree.listing()}
    assert {(e.key, e.epoch) for e in entries.values()} == {
        (trained.path[1], 2),
        (trained.path[2], 3),
    }
    assert all(dict(entry.labels) == MINE for entry in entries.values())
    sizes = [file.size for folder in ("", PARTS_FOLDER) for file in kept.place().files(folder)]
    assert sum(entry.bytes for entry in entries.values()) == sum(sizes)
    tree.remove([trained.path[1], "0" * 64])
    assert [entry.key for entry in tree.listing()] == [trained.path[2]]
    tree.remove([trained.path[2]])
    assert kept.place().files() == kept.place().files(PARTS_FOLDER) == []


def test_a_listing_tells_of_a_checkpoint_replaced_meanwhile(kept: Kept, trained: Trained) -> None:
    """A tree's cached manifest is dropped with the file."""
    tree = kept.tree()
    trained.store(tree, 1)
    tree.listing()
    kept.tree().remove([trained.path[0]])
    assert tree.listing() == []
    replace(trained, description=replace(trained.description, labels=OTHERS)).store(kept.tree(), 1)
    assert [dict(entry.labels) for entry in tree.listing()] == [OTHERS]


@pytest.mark.parametrize("part", ["weights", "best_weights", "optimizer", "manifest"])
@pytest.mark.parametrize(
    ("damage", "does"),
    [
        pytest.param("truncate", lambda content: content[:-7], id="truncated"),
        pytest.param("alter", flipped, id="altered"),
        pytest.param("empty", lambda _: b"", id="empty"),
        pytest.param("foreign", lambda _: b'{"format": "somebody else\'s"}', id="foreign"),
        pytest.param("missing", None, id="missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_costs_only_its_epochs(
    kept: Kept,
    trained: Trained,
    caplog: pytest.LogCaptureFixture,
    part: str,
    damage: str,
    does: Damage | None,
) -> None:
    """The next shorter prefix is used; storing again repairs; a removed manifest is no damage."""
    epoch = next(len(s.curve) for s in trained.states if 1 < s.best_epoch + 1 == len(s.curve))
    trained.store(kept.tree(), 1, epoch)
    key = trained.path[epoch - 1]
    file = manifests.file_name(key) if part == "manifest" else part_of(kept, key, part)
    content = kept.place().read(file)
    assert content is not None
    kept.place().remove([file])
    if does is not None:
        kept.place().write(file, does(content))
    with caplog.at_level(logging.WARNING):
        tree = kept.tree()
        for _ in range(2):
            stored = tree.longest(trained.path)
            assert stored is not None
            assert stored.epoch == 1
    silent = part == "manifest" and damage == "missing"
    ours = [record for record in caplog.records if record.name.startswith("tuner.")]
    named = [record for record in ours if key in record.getMessage()]
    assert len(named) == (0 if silent else 1)
    if damage == "truncate" and part != "manifest":
        assert f"{len(content) - 7} of {len(content)} bytes" in caplog.text
    trained.store(tree, epoch)
    healed = tree.longest(trained.path)
    assert healed is not None
    assert healed.epoch == epoch


def test_a_checkpoint_under_another_s_name_is_not_taken(
    tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """A manifest copied to another key's name is ignored, even though it is intact."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1, 3)
    names = [manifests.file_name(trained.path[epoch]) for epoch in (2, 4)]
    (tmp_path / names[1]).write_bytes((tmp_path / names[0]).read_bytes())
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 3
    assert names[1] in caplog.text
    assert len(tree.listing()) == 2


def rewritten(content: bytes, changes: Mapping[str, object]) -> bytes:
    """Return a manifest with other contents and a matching hash."""
    body = {**json.loads(content), **changes}
    del body["sha256"]
    return json.dumps({**body, "sha256": manifests._digest(body)}).encode()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": FORMAT + 1}, "a newer tuner wrote it"),
        ({"format": 0}, "its format is 0"),
        ({"curve": []}, "its curve has gaps"),
        ({"curve": [{"epoch": 1}]}, "is incomplete"),
        ({"epoch": 2}, "its curve has gaps"),
        ({"best_epoch": 7}, "its best epoch"),
        ({"best_epoch": True}, "its best epoch"),
        ({"parts": {}}, "is incomplete"),
        ({"base": None}, "is incomplete"),
        ({"labels": 3}, "is incomplete"),
        (
            {
                "parts": {
                    name: {"file": "../../etc/passwd", "bytes": 1, "sha256": ""}
                    for name in manifests.PARTS
                }
            },
            "parts of another checkpoint",
        ),
    ],
)
def test_a_forged_manifest_is_checked_field_by_field(
    tmp_path: Path,
    trained: Trained,
    caplog: pytest.LogCaptureFixture,
    changes: Mapping[str, object],
    why: str,
) -> None:
    """A matching hash is not enough: versions, kinds, counts and paths are checked."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    file = tmp_path / manifests.file_name(trained.path[0])
    file.write_bytes(rewritten(file.read_bytes(), changes))
    assert tree.longest(trained.path) is None
    assert why in caplog.text


def test_an_altered_figure_is_known(
    tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """If one digit of a figure is changed by hand, the checkpoint is not used."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    file = tmp_path / manifests.file_name(trained.path[0])
    body = json.loads(file.read_bytes())
    body["curve"][0]["val_acc"] += 0.1
    file.write_text(json.dumps(body))
    assert tree.longest(trained.path) is None
    assert "its manifest was altered" in caplog.text


def test_a_part_that_would_run_code_is_never_run(
    tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """An optimizer part that is a pickle of a call is refused in spite of a correct hash."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    key = trained.path[0]
    manifest = tmp_path / manifests.file_name(key)
    evil = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    parts = json.loads(manifest.read_bytes())["parts"]
    (tmp_path / parts["optimizer"]["file"]).write_bytes(evil)
    parts["optimizer"].update(bytes=len(evil), sha256=manifests.sha256(evil))
    manifest.write_bytes(rewritten(manifest.read_bytes(), {"parts": parts}))
    assert tree.longest(trained.path) is None
    assert "its parts cannot be read" in caplog.text
    assert not (tmp_path / "ran").exists()


def test_the_manifest_is_readable(tmp_path: Path, trained: Trained) -> None:
    """In an editor the manifest shows owner, parameters and curve."""
    trained.store(Tree(str(tmp_path)), 2)
    body = json.loads((tmp_path / manifests.file_name(trained.path[1])).read_text())
    assert body["labels"] == MINE
    assert body["base"]["parameters"]["hidden"] == 64
    assert body["base"]["numerics"]["threads"] == "1"
    assert [epoch["epoch"] for epoch in body["curve"]] == [1, 2]
    assert body["parent"] == trained.description.parent


def test_looking_for_a_prefix_takes_one_listing(s3: Kept, trained: Trained) -> None:
    """A path of 500 epochs without stored ones costs one request, not 500."""
    tree = Kept(f"{s3.location}/one-listing", s3.options).tree()
    trained.store(tree, 1)
    place = tree._place
    assert isinstance(place, RemotePlace)
    calls = counted(place)
    assert tree.longest(["0" * 64] * 500) is None
    assert calls == ["ls"]


def test_what_a_peer_stored_meanwhile_is_seen(s3: Kept, trained: Trained) -> None:
    """A listing is not cached: another machine writes to the bucket, too."""
    kept = Kept(f"{s3.location}/peers", s3.options)
    peer = Tree(kept.location, {**kept.options, "skip_instance_cache": True})
    tree = kept.tree()
    trained.store(peer, 1)
    assert tree.known(trained.path) == {trained.path[0]}
    trained.store(peer, 2)
    assert tree.known(trained.path) == set(trained.path[:2])


def counted(place: RemotePlace) -> list[str]:
    """Record the calls that a place makes from now on; each is still made."""
    calls: list[str] = []
    real = place._system

    class Noting:
        def __getattr__(self, name: str) -> object:
            if name in ("ls", "cat", "cat_file", "info", "find", "exists"):
                calls.append(name)
            return getattr(real, name)

    place._system = Noting()
    return calls


def test_two_threads_that_write_one_key_leave_a_whole_checkpoint(
    kept: Kept, trained: Trained
) -> None:
    """The checkpoint read is entirely one writer's; readers meanwhile see no partial one."""
    tree = kept.tree()
    trained.store(tree, 1)
    threads = [threading.Thread(target=trained.store, args=(kept.tree(), 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert tree.longest(trained.path[:1]) is not None
    for thread in threads:
        thread.join()
    stored = tree.longest(trained.path)
    assert stored is not None
    assert state_text(stored.state) == state_text(trained.states[0])
    assert len(tree.listing()) == 1


class Removing(LocalPlace):
    """A place where a peer removes everything after a manifest was read, before its parts are."""

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Let the peer remove everything, then read."""
        peer = Tree(self.name)
        peer.remove([entry.key for entry in peer.listing()])
        return super().read_many(names)


def test_a_checkpoint_removed_while_it_is_read_is_no_damage(
    tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """If space was freed meanwhile, no damage is reported, and the training starts again."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    tree._place = Removing(tmp_path)
    assert tree.longest(trained.path) is None
    assert caplog.text == ""


def test_trimming_keeps_to_the_limit(kept: Kept, trained: Trained) -> None:
    """A dry run removes nothing and reports the same; the newest of a running trial stays."""
    tree = kept.tree()
    trained.store(tree, 1, 2, 3)
    newest = max(tree.listing(), key=lambda entry: entry.epoch)
    arguments = (newest.bytes, [owner(MINE)], [trained.path[0]])
    dry = tree.trim(*arguments, dry=True)
    assert [entry.epoch for entry in dry] == [2, 1]
    assert len(tree.listing()) == 3
    assert tree.trim(*arguments) == dry
    assert [entry.key for entry in tree.listing()] == [newest.key]
    assert len(kept.place().files(PARTS_FOLDER)) <= 3


def test_only_what_no_manifest_names_for_an_hour_is_swept(tmp_path: Path, trained: Trained) -> None:
    """Replaced parts and old temporary files are removed; young, own and foreign files stay."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    beaten = {file.name for file in tree._place.files(PARTS_FOLDER)}
    trained.store(tree, 1, 3)
    young = f"{PARTS_FOLDER}/.tmp-young"
    dead = {".tmp-dead", f"{PARTS_FOLDER}/.tmp-dead"}
    foreign = {"notes.txt", f"{PARTS_FOLDER}/notes.txt"}
    for name in (young, *dead, *foreign):
        (tmp_path / name).write_text("x")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != tmp_path / young:
            age = path.stat().st_mtime - ORPHAN_SECONDS - 60
            os.utime(path, (age, age))
    assert {file.name for file in tree.sweep(dry=True)} == beaten | dead
    assert {file.name for file in tree.sweep()} == beaten | dead
    assert tree.sweep() == []
    assert all((tmp_path / name).exists() for name in (young, *foreign))
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 3


def test_the_parts_of_a_newer_tuner_s_checkpoint_are_not_swept(
    tmp_path: Path, trained: Trained
) -> None:
    """Files of a newer version that cannot be read are left alone."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    manifest = tmp_path / manifests.file_name(trained.path[0])
    manifest.write_bytes(rewritten(manifest.read_bytes(), {"format": FORMAT + 1}))
    parts = list((tmp_path / PARTS_FOLDER).iterdir())
    for path in (*parts, manifest):
        os.utime(path, (0, 0))
    assert tree.sweep() == []
    assert all(path.exists() for path in parts)


def test_remote_orphans_are_dated_by_the_place_s_own_clock(kept: Kept, trained: Trained) -> None:
    """A file written a moment ago is no orphan, whatever our clock says."""
    tree = kept.tree()
    trained.store(tree, 1)
    trained.store(tree, 1)
    files = kept.place().files(PARTS_FOLDER)
    now = kept.place().now()
    assert all(abs(file.modified - now) < ORPHAN_SECONDS for file in files)
    assert tree.sweep() == []
    assert all(isinstance(file, StoredFile) for file in files)


def test_a_use_is_noted_on_a_disk(tmp_path: Path, trained: Trained) -> None:
    """Reading a checkpoint makes it the most recently used."""
    tree = Tree(str(tmp_path))
    trained.store(tree, 1)
    os.utime(tmp_path / manifests.file_name(trained.path[0]), (0, 0))
    assert tree.listing()[0].last_used == 0
    assert tree.longest(trained.path) is not None
    assert tree.listing()[0].last_used > 0


@pytest.mark.parametrize(
    ("location", "message"),
    [("nonsense://x", "is not a place for checkpoints"), ("gs://bucket/x", "cannot be stored at")],
)
def test_a_location_that_cannot_be_opened_is_the_person_s_error(
    location: str, message: str
) -> None:
    """An unknown protocol, or a missing library, is reported with the next step."""
    with pytest.raises(UserError, match=message):
        Tree(location)


def test_a_store_that_does_not_answer_costs_only_time(
    s3: Kept, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """With a missing bucket a look-up finds nothing, and writing gives the reason."""
    tree = Tree("s3://nobody-made-this/x", s3.options)
    with pytest.raises(MachineError, match=r"s3://nobody-made-this/x could not be written"):
        trained.store(tree, 1)
    assert tree.longest(trained.path) is None
    unreachable = Tree("s3://checkpoints", {**s3.options, "endpoint_url": "http://127.0.0.1:9"})
    assert unreachable.longest(trained.path) is None
    assert caplog.text.count("could not be listed") == 1


def test_a_password_in_a_url_is_not_shown() -> None:
    """Messages name the location without its credentials."""
    assert RemotePlace("memory://me:secret@host/x", {}).name == "memory://***@host/x"
    assert Tree("file:///somewhere").name == "/somewhere"
