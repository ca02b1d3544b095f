"""Opening a package and answering tells nobody and leaves nothing: onnxruntime would, where it is let.

Native code passes no audit hooks, so it is judged by what it leaves in an empty home folder at once, and by its
system calls, where strace is there to show them, over the time after which it would ask for its host.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.measuring import telemetry

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "golden" / "sentiment"
SECONDS = 20  # onnxruntime 1.31 asks about 9 seconds after a model was opened
# Before anything is imported; what Python itself opens is heard here.
HEARD = """
import sys, time
def hear(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(hear)
"""
ANSWER = f"""
from edge_demo import runtime
package = runtime.load({str(PACKAGE)!r})
print(package.predict("a fine film").label, package.predict("a dull film").label)
"""


def environment(home: Path) -> dict[str, str]:
    """Return an environment in which nobody has switched anything off."""
    home.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if name not in telemetry.OFF and not name.startswith("XDG_")
    }
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(ROOT)}


def run(command: list[str], home: Path) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "edge_demo", str(PACKAGE), "a fine film"],
        ["-c", HEARD + ANSWER],
        ["-m", "tenmeg", "measure", str(PACKAGE), "--runs", "3"],
        ["-c", f"{HEARD}import tenmeg; print(tenmeg.load({str(PACKAGE)!r}).predict('a fine film').label)"],
        ["-c", f"{HEARD}from exporters.measuring.machine import machine; print(machine())"],
    ],
    ids=["the command of the reader", "the reader", "the command line", "the door", "exporters"],
)
def test_the_home_folder_stays_empty(command, tmp_path):
    assert run([sys.executable, *command], tmp_path / "home")
    assert [str(path) for path in (tmp_path / "home").rglob("*")] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what native code opens")
def test_no_socket_is_opened(tmp_path):
    log = tmp_path / "calls"
    traced = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log)]
    code = f"{ANSWER}\nimport time; time.sleep({SECONDS})"
    assert run([*traced, sys.executable, "-c", code], tmp_path / "home").split() == ["positive", "negative"]
    assert [line for line in log.read_text(encoding="utf-8").splitlines() if "exited with" not in line] == []


def test_a_copy_of_the_reader_is_silent_too(tmp_path):
    shutil.copyfile(ROOT / "edge_demo" / "runtime.py", tmp_path / "reader.py")
    code = ANSWER.replace(
        "from edge_demo import runtime", f"sys.path.insert(0, {str(tmp_path)!r})\nimport reader as runtime"
    )
    run([sys.executable, "-c", HEARD + code], tmp_path / "home")
    assert list((tmp_path / "home").rglob("*")) == []


def test_commands_and_the_door_switch_off_what_hugging_face_counts(tmp_path):
    ask = "from huggingface_hub import constants; from datasets import config; import json\n"
    ask += "print(json.dumps([constants.HF_HUB_DISABLE_TELEMETRY, config.HF_UPDATE_DOWNLOAD_COUNTS]))"
    command = (
        "from click.testing import CliRunner; from compressor.cli import main\nCliRunner().invoke(main, ['methods'])\n"
    )
    door = f"import tenmeg; tenmeg.load({str(PACKAGE)!r})\n"
    for number, code in enumerate((command, door)):
        assert json.loads(run([sys.executable, "-c", code + ask], tmp_path / str(number))) == [True, False]


def test_what_the_user_says_stays(monkeypatch):
    for name in telemetry.OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    telemetry.switch_off()
    assert {name: os.environ[name] for name in telemetry.OFF} == {**telemetry.OFF, "ORT_DISABLE_TELEMETRY": "0"}
