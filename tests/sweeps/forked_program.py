"""A program for tests of the fork server: it says what it finds, and then does what its first argument says."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

about = {
    "arguments": sys.argv[1:],
    "folder": str(Path.cwd()),
    "pid": os.getpid(),
    "parent": os.getppid(),
    "session": os.getsid(0),
    "input": sys.stdin.read(),
    "random": random.random(),
    "numpy": float(sys.modules["numpy.random"].random()) if "numpy.random" in sys.modules else None,
    "has torch": "torch" in sys.modules,
    "has pandas": "pandas" in sys.modules,
    "variable": os.environ.get("VARIABLE"),
}
if sys.argv[1] == "ignore":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps(about), flush=True)
match sys.argv[1]:
    case "exit":
        sys.exit(int(sys.argv[2]))
    case "import":
        __import__(sys.argv[2])
    case "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    case "wait" | "ignore":
        time.sleep(60)
