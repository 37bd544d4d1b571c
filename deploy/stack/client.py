"""Drives stack.py from Python: starts it, sends commands, ends it."""
import json
import subprocess
import sys
from pathlib import Path

STACK = Path(__file__).with_name("stack.py")
EXIT_SECONDS = 60


class StackError(Exception):
    """stack.py said no, or went away."""


class StackClient:
    """A running stack; `ready` is its first line. Use as a context manager.

    `python` is an interpreter that has Django: the caller's own unless said otherwise.
    """

    def __init__(self, *arguments: str, env=None, new_session: bool = False, python: str = sys.executable):
        self.process = subprocess.Popen(
            [python, str(STACK), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=new_session,
        )
        try:
            self.ready = self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def postgres(self) -> dict:
        return self.ready["postgres"]

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise StackError("the stack went away")
        answer = json.loads(line)
        if answer["event"] in ("failed", "error"):
            raise StackError(answer["error"])
        return answer

    def send(self, cmd: str, **fields) -> dict:
        """Sends a command and returns its answer, or raises what it says."""
        self.process.stdin.write(json.dumps({"cmd": cmd, **fields}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self):
        """Ends the stack and returns when all it started is gone."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
