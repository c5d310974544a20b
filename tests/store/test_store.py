"""What the store promises: files whole or absent, one lock holder, a bounded events log, sockets where they fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.domain.event import ProcessDied, ReplicaJoined
from holdfast.domain.ports import Sighting
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import BadSettings, Gateway, ReplicaSettings, Settings, Site
from holdfast.domain.settings_overload import Smaller
from holdfast.store import snapshot
from holdfast.store.births import Births
from holdfast.store.events import EventLog, recent
from holdfast.store.folder import SOCKET_BYTES_MAX, folder_of, keep_settings, kept_settings
from holdfast.store.lock import SiteLock, Taken, holder
from holdfast.store.logs import last_words
from holdfast.store.settings_file import load_settings, with_model


def test_a_snapshot_comes_back_and_leaves_no_scraps(tmp_path):
    path = tmp_path / "roster.json"
    roster = Roster(epoch=3, places=(Place(replica="a", address="unix:/a", boot="1"),))
    snapshot.put(path, Roster())
    snapshot.put(path, roster)
    assert snapshot.take(path, Roster) == roster
    assert [file.name for file in tmp_path.iterdir()] == ["roster.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"epoch": "x"}', b"\xff"])
def test_a_damaged_snapshot_is_no_snapshot(tmp_path, content):
    path = tmp_path / "roster.json"
    path.write_bytes(content)
    assert snapshot.take(path, Roster) is None
    assert snapshot.take(tmp_path / "absent", Roster) is None


def test_a_snapshot_that_can_not_be_put_leaves_the_old_one(tmp_path):
    path = tmp_path / "folder" / "roster.json"
    with pytest.raises(OSError, match="No such file"):
        snapshot.put(path, Roster())


def test_the_lock_has_one_holder_and_dies_with_it(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) == 0
    code = (
        "import sys; from pathlib import Path; from holdfast.store.lock import SiteLock; "
        "lock = SiteLock(Path(sys.argv[1])); lock.take(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert holder(path) == other.pid
        with pytest.raises(Taken) as taken:
            SiteLock(path).take()
        assert taken.value.pid == other.pid
        other.kill()
        other.wait()
    assert holder(path) == 0
    mine = SiteLock(path)
    mine.take()
    assert holder(path) == os.getpid()
    mine.release()
    assert holder(path) == 0


def test_events_are_stamped_by_the_store_and_come_back_in_order(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", unix_s=iter([10.0, 11.5]).__next__)
    kept = log.append(ProcessDied(name="replica-0", pid=7, why="it crashed"))
    log.append(ReplicaJoined(replica="replica-0", why="it is back"))
    assert kept.at == 10.0
    assert [(event["event"], event["at"], event["why"]) for event in recent(tmp_path / "events.jsonl", 9)] == [
        ("process_died", 10.0, "it crashed"),
        ("replica_joined", 11.5, "it is back"),
    ]


def test_the_events_log_is_bounded_and_the_last_ones_are_there(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, unix_s=lambda: 1.0, rotate_bytes=2000)
    for number in range(200):
        log.append(ProcessDied(name=f"replica-{number}", pid=number, why="it crashed"))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2200
    assert [event["pid"] for event in recent(path, 5)] == [195, 196, 197, 198, 199]


def test_a_torn_line_of_the_events_log_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "a"}\n{"event": \n{"event": "b"}\n')
    assert [event["event"] for event in recent(path, 9)] == ["a", "b"]


def test_a_full_disk_stops_no_event(tmp_path):
    log = EventLog(tmp_path / "absent" / "events.jsonl", unix_s=lambda: 1.0)
    assert log.append(ProcessDied(name="replica-0", pid=7, why="it crashed")).at == 1.0


def test_births_come_back_until_they_are_removed(tmp_path):
    births = Births(tmp_path)
    one = Sighting(name="replica-0", pid=7, start_ticks=99, token="t", alive=True)
    births.write(one)
    (tmp_path / "torn.json").write_text("{")
    (found,) = births.read()
    assert (found.name, found.pid, found.start_ticks, found.token) == ("replica-0", 7, 99, "t")
    births.remove("replica-0")
    births.remove("replica-0")
    assert births.read() == []


def test_the_state_folder_is_for_its_owner_only(tmp_path):
    folder = folder_of(Settings(site=Site(state_dir=str(tmp_path / "s"))))
    folder.make()
    folder.make()
    keep_settings(folder, Settings(gateway=Gateway(key="secret")))
    assert kept_settings(folder.settings).gateway.key == "secret"
    assert folder.root.stat().st_mode & 0o077 == 0
    assert folder.settings.stat().st_mode & 0o077 == 0


def test_sockets_move_where_their_path_is_short_enough(tmp_path):
    short = folder_of(Settings(site=Site(state_dir="/s")))
    assert short.sockets == Path("/s/sock")
    long = folder_of(Settings(site=Site(state_dir=str(tmp_path / ("x" * 100)))))
    assert len(os.fsencode(long.socket("replica-63"))) <= SOCKET_BYTES_MAX
    assert long.sockets != folder_of(Settings(site=Site(state_dir=str(tmp_path / ("y" * 100))))).sockets


def test_a_socket_folder_that_others_may_write_to_is_refused(tmp_path):
    folder = folder_of(Settings(site=Site(state_dir=str(tmp_path / "s"))))
    folder.make()
    folder.sockets.chmod(0o777)
    with pytest.raises(BadSettings, match="is not a folder that only we may write to"):
        folder.make()


def test_a_state_folder_that_can_not_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match=r"can't be made: Not a directory\. Choose another with \[site\] state_dir"):
        folder_of(Settings(site=Site(state_dir=str(tmp_path / "file" / "s")))).make()


def test_the_last_words_of_a_child(tmp_path):
    log = tmp_path / "replica-0.log"
    assert last_words(log) == ""
    log.write_text("x" * 10_000 + "\nholdfast replica: no config.json in /m\n\n")
    assert last_words(log) == "no config.json in /m"
    log.write_text("Traceback\nValueError: bad\n")
    assert last_words(log) == "ValueError: bad"
    record = "2026-11-29 19:57:26,287 holdfast.replica connection of gateway-0 ended: it outlived its replica\n"
    log.write_text(f"{record}holdfast replica: the engine was ended by SIGKILL\n{record}{record}")
    assert last_words(log) == "the engine was ended by SIGKILL"
    log.write_text(record)
    assert last_words(log) == record.strip()


def test_a_named_settings_file_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()
    with pytest.raises(BadSettings, match="there is no such settings file"):
        load_settings("my.toml")
    (tmp_path / "holdfast.toml").write_text("[replica]\ncount = 5\n")
    assert load_settings().replica.count == 5
    monkeypatch.setenv("HOLDFAST_KEY", "k")
    assert load_settings().gateway.key == "k"


def test_the_model_gets_its_folder_and_its_name(tmp_path):
    scripted = Settings(replica=ReplicaSettings(engine="scripted"))
    shipped = with_model(scripted).model
    assert (Path(shipped.path).name, shipped.name) == ("pearl", "pearl")
    folder = tmp_path / "deepseek-nano"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({}))
    toml = tmp_path / "a.toml"
    toml.write_text(f'[model]\npath = "{folder}"\n')
    with pytest.raises(BadSettings, match=r"holds no config\.json"):
        with_model(load_settings(str(toml)))


def test_a_smaller_model_is_looked_for_likewise_and_needs_a_name_of_its_own(tmp_path):
    folder = tmp_path / "pearl-mini"
    folder.mkdir()
    scripted = Settings(replica=ReplicaSettings(engine="scripted"), smaller=Smaller(path=str(folder)))
    with pytest.raises(BadSettings, match=r"\[smaller\] path: .* holds no tokenizer\.json"):
        with_model(scripted)
    (folder / "tokenizer.json").write_text(json.dumps({}))
    small = with_model(scripted).smaller
    assert (small.path, small.name) == (str(folder), "pearl-mini")
    same = structs.replace(scripted, smaller=Smaller(path=str(folder), name="pearl"))
    with pytest.raises(BadSettings, match=r"\[smaller\] name: 'pearl' is what \[model\] is called too"):
        with_model(same)


def test_a_state_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = folder_of(Settings(site=Site(state_dir=str(tmp_path / "state"))))
    folder.make()
    folder.root.chmod(0o777)
    with pytest.raises(BadSettings, match="chmod o-w"):
        folder.make()
    folder.root.chmod(0o775)
    folder.make()
