"""The data's device becomes a LUKS device, and what is on one that is not empty stays.

A container has no device-mapper: what is opened and mounted is not tried here.
"""

import json

import pytest
import testinfra
from technician import playbook
from testinfra.host import Host

KEY = "/root/volume.key"
PLAY = """
- hosts: edge
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: volume, tasks_from: encrypt}
"""


@pytest.fixture(scope="module")
def ward() -> Host:
    return testinfra.get_host("podman://healthsync-ward-1")


@pytest.fixture
def disk(ward: Host) -> str:
    """Return the path of an empty disk: 64 MiB of zeros."""
    ward.check_output("rm -f /root/disk /root/volume.key && truncate --size=64M /root/disk")
    return "/root/disk"


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("play") / "play.yml"
    path.write_text(PLAY)
    return str(path)


def encrypt(play: str, disk: str, *more: str) -> tuple[int, str]:
    given = {
        "hs_data_device": disk,
        "hs_data_key_file": KEY,
        "hs_data_mount": "/srv/data",
        "hs_offline": True,
    }
    done = playbook("-e", json.dumps(given), *more, play)
    return done.returncode, done.stdout + done.stderr


def test_an_empty_device_is_encrypted_once(ward: Host, disk: str, play: str) -> None:
    code, said = encrypt(play, disk)
    assert code == 0, said
    dump = ward.check_output(f"cryptsetup luksDump {disk}")
    assert "aes-xts-plain64" in dump
    assert "512 bits" in dump
    assert "argon2id" in dump
    key = ward.file(KEY)
    assert (key.user, key.mode, key.size) == ("root", 0o400, 64)
    number = ward.check_output(f"cryptsetup luksUUID {disk}")
    code, said = encrypt(play, disk)
    assert code == 0, said
    assert "changed=0" in said
    assert ward.check_output(f"cryptsetup luksUUID {disk}") == number


def test_a_device_that_holds_something_is_refused_and_stays(
    ward: Host, disk: str, play: str
) -> None:
    ward.check_output(f"mkfs.ext4 -q -F {disk}")
    before = ward.check_output(f"sha256sum {disk}")
    code, said = encrypt(play, disk)
    assert code != 0
    assert "holds ext4" in said
    assert ward.check_output(f"sha256sum {disk}") == before
    assert not ward.file(KEY).exists


def test_check_mode_writes_nothing(ward: Host, disk: str, play: str) -> None:
    before = ward.check_output(f"sha256sum {disk}")
    code, said = encrypt(play, disk, "--check")
    assert code == 0, said
    assert ward.check_output(f"sha256sum {disk}") == before
    assert not ward.file(KEY).exists


def test_another_host_s_device_is_not_taken_for_ours(ward: Host, disk: str, play: str) -> None:
    assert encrypt(play, disk)[0] == 0
    ward.check_output(f"rm {KEY}")
    code, said = encrypt(play, disk)
    assert code != 0
    assert "No key available" in said


def test_data_that_would_be_hidden_by_the_mount_is_refused(
    ward: Host, disk: str, play: str
) -> None:
    code, said = encrypt(play, disk, "-e", "hs_data_mount=/etc")
    assert code != 0
    assert "/etc is not empty; stop what writes there" in said
    assert ward.run(f"cryptsetup isLuks {disk}").rc != 0
