"""The real Caffe2, in a process of its own that lives as long as this object."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from detc.backends.caffe2.proto import NetDef

WORKER = Path(__file__).with_name("worker.py")


class RealCaffe2Error(RuntimeError):
    """What the real Caffe2 said about a net that it would not run."""


class RealCaffe2:
    """Runs nets in the real Caffe2. To be used in a `with` statement."""

    def __init__(self, python: Path, threads: int = 2) -> None:
        self._command = [str(python), str(WORKER)]
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            # It must not find the packages of this process.
            "PYTHONPATH": "",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> RealCaffe2:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def run(
        self,
        predict: NetDef,
        feeds: Mapping[str, np.ndarray],
        *,
        init: NetDef | None = None,
        fetch: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """The blobs `fetch` (by default the net's outputs) after one run.

        Errors:
            RealCaffe2Error: Caffe2 refused the net or its inputs, or died of them.
        """
        reply = self._run(predict, feeds, init, list(predict.external_output) if fetch is None else fetch, 1)
        return {
            name.removeprefix("blob/"): array for name, array in reply.items() if name.startswith("blob/")
        }

    def seconds(
        self, predict: NetDef, feeds: Mapping[str, np.ndarray], *, init: NetDef | None = None, repeat: int = 1
    ) -> list[tuple[float, float]]:
        """How long each of `repeat` runs took: wall and CPU seconds."""
        times = self._run(predict, feeds, init, [], repeat)["seconds"]
        return [(float(wall), float(cpu)) for wall, cpu in times]

    def descriptor(self) -> bytes:
        """The FileDescriptorProto of Caffe2's own caffe2.proto."""
        return self._ask({})["descriptor"].tobytes()

    def _run(
        self,
        predict: NetDef,
        feeds: Mapping[str, np.ndarray],
        init: NetDef | None,
        fetch: Sequence[str],
        repeat: int,
    ) -> dict[str, np.ndarray]:
        request = {f"feed/{name}": array for name, array in feeds.items()}
        request["predict"] = _bytes(predict.SerializeToString())
        request["fetch"] = _bytes(json.dumps(list(fetch)).encode())
        request["repeat"] = np.array(repeat)
        if init is not None:
            request["init"] = _bytes(init.SerializeToString())
        return self._ask(request)

    def _ask(self, request: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        buffer = io.BytesIO()
        np.savez(buffer, **request)
        try:
            self._process.stdin.write(len(buffer.getvalue()).to_bytes(8, "big") + buffer.getvalue())
            self._process.stdin.flush()
            header = self._process.stdout.read(8)
        except BrokenPipeError:
            header = b""
        if len(header) < 8:
            self._process.wait()
            raise RealCaffe2Error(
                f"the real Caffe2 died, with exit status {self._process.returncode}{self._tail()}"
            )
        content = self._process.stdout.read(int.from_bytes(header, "big"))
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            reply = {name: archive[name] for name in archive.files}
        if "error" in reply:
            raise RealCaffe2Error(reply["error"].tobytes().decode())
        return reply

    def _tail(self) -> str:
        """The end of what the process wrote to its standard error."""
        self._log.seek(0)
        text = self._log.read().decode("utf-8", "replace").strip()
        return f":\n{text[-2000:]}" if text else ""


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)
