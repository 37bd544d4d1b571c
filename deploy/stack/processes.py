"""Child processes that cannot outlive the runner, and ports nobody else is likely to take.

PR_SET_PDEATHSIG is what makes `kill -9` of the runner safe: the kernel signals each child then.
It is bound to the *thread* that forked, so everything here is called from the main thread.
"""
import ctypes
import os
import random
import signal
import socket
import subprocess
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
# Below every usual ephemeral range, so that no outgoing connection sits on a port between the
# moment a replica is killed and the moment it is started again.
PORTS = range(20000, 32000)
LOG_TAIL_LINES = 30


def spawn(argv, *, log: Path, env=None, cwd=None, account=None, death_signal=signal.SIGKILL):
    """Starts a process in its own session, its output appended to `log`.

    `account` is a pwd entry to become (as root), or None to stay who we are.
    """
    parent = os.getpid()

    def last_steps_before_exec():
        # After the change of user: changing credentials clears the setting (prctl(2)).
        LIBC.prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            os._exit(1)

    identity = {}
    if account is not None:
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with open(log, "ab") as output:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=last_steps_before_exec,
            **identity,
        )


def tail(log: Path) -> str:
    """Returns the end of a log, for the text of an error."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-LOG_TAIL_LINES:])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tells whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """Returns a port that is free now. Whoever uses it must still be ready to lose the race."""
    for port in random.sample(PORTS, 200):
        if port_is_free(port):
            return port
    raise RuntimeError(f"no free port found in {PORTS.start}..{PORTS.stop}")
