"""What is decoded ahead is in its place when it is read, and nothing is overwritten that is still read.

Streams are played by lists of what they were given, run in any order that events allow, and memory by an
allocator that hands out at once again what is let go of, as torch does for what stays on one stream.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch

from cmpk.device import streams
from cmpk.device.streams import SideStream
from cmpk.dtypes import TensorSpec

CUDA = torch.device("cuda", 0)
DAMAGED = "being written"


class Stream:
    """Takes operations: functions that say whether they have been done."""

    def __init__(self, device: object = None) -> None:
        self.queue: list[Callable[[], bool]] = []

    def add(self, operation: Callable[[], None]) -> None:
        self.queue.append(lambda: operation() is None)

    def wait_event(self, event: Event) -> None:
        recorded = event.recorded
        self.queue.append(lambda: recorded[0])

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)


class Event:
    def __init__(self) -> None:
        self.recorded = [True]

    def record(self, stream: Stream) -> None:
        recorded = self.recorded = [False]
        stream.add(lambda: recorded.__setitem__(0, True))


class Device:
    """A device with one current stream, whose memory is a word for each tensor."""

    def __init__(self) -> None:
        self.current = Stream()
        self.streams = [self.current]
        self.memory: list[str] = []
        self.free: defaultdict[Stream, list[int]] = defaultdict(list)

    def new_stream(self, device: object = None) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def run(self, choose: random.Random) -> None:
        """Do everything, in some order."""
        while any(stream.queue for stream in self.streams):
            ready = choose.sample(self.streams, len(self.streams))
            # One stream may get far ahead of the others before these go on.
            done = [self.advance(stream, choose.choice([1, 3, 1000])) for stream in ready]
            assert any(done), "streams wait for each other"

    def advance(self, stream: Stream, most: int) -> bool:
        done = 0
        while stream.queue and done < most and stream.queue[0]():
            stream.queue.pop(0)
            done += 1
        return done > 0


class Memory:
    """A tensor; torch keeps what more than one stream has used until it knows that all are done."""

    is_cuda = True
    device = CUDA

    def __init__(self, place: Device) -> None:
        self.place, self.owner, self.others = place, place.current, False
        free = place.free[self.owner]
        self.at = free.pop() if free else len(place.memory)
        if self.at == len(place.memory):
            place.memory.append("")

    def record_stream(self, stream: Stream) -> None:
        self.others = self.others or stream is not self.owner

    def __del__(self) -> None:
        if not self.others:
            self.place.free[self.owner].append(self.at)


class Weight(NamedTuple):
    """In place of a resident weight: writes its name."""

    place: Device
    name: str
    nbytes: int = 0
    memory: tuple[Any, ...] = ()

    def decode_into(self, out: Memory) -> None:
        at = out.at
        for written in (DAMAGED, self.name):
            self.place.current.add(lambda value=written: self.place.memory.__setitem__(at, value))

    def check(self, name: str) -> None:
        assert name == self.name


@pytest.fixture
def place(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Device:
    from cmpk.nn import device_weights

    found = Device()
    monkeypatch.setattr(streams, "new_stream", found.new_stream)
    monkeypatch.setattr(streams, "new_event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: found.current)
    monkeypatch.setattr(torch.cuda, "stream", found.on)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(device_weights.torch, "empty", lambda *_, **__: Memory(found))
    monkeypatch.setattr(device_weights, "jobs_as_stored", lambda *_: ["a job"])
    monkeypatch.setattr(
        device_weights, "residents", lambda jobs, *_: {name: Weight(found, name) for name in jobs}
    )
    return found


class Stored(NamedTuple):
    root: None = None
    streams: None = None
    spec: TensorSpec = TensorSpec("U8", (1,))


def use(weights: Any, place: Device, name: str, read: list[tuple[str, str]]) -> None:
    """A layer: reads its weight while it runs, and lets go of it as soon as it has been launched."""
    at = weights.get(name).at
    for _ in range(2):
        place.current.add(lambda: read.append((name, place.memory[at])))


@pytest.mark.parametrize("seed", range(30))
def test_each_layer_reads_its_own_weight_in_whatever_order_streams_run(place: Device, seed: int) -> None:
    from cmpk.nn.device_weights import DeviceWeights

    choose = random.Random(seed)
    weights = DeviceWeights({name: Stored() for name in "abcd"}, CUDA, 1)  # type: ignore[misc]
    read: list[tuple[str, str]] = []
    # Often in the same order; now and then what was decoded ahead is not what is used.
    for order in ("abcd", "abcd", "adb", "abcd", "ca", "abcd", "aabbc"):
        for name in order:
            use(weights, place, name, read)
        if choose.random() < 0.3:
            place.run(choose)
    assert len(place.memory) <= 2
    weights.close()
    del weights
    for _ in range(3):  # others take the memory that is free now
        other = Memory(place)
        place.current.add(lambda at=other.at: place.memory.__setitem__(at, "another's"))
        place.current.add(lambda at=other.at: read.append(("another's", place.memory[at])))
        del other
    place.run(choose)
    assert len(read) == 2 * 26 + 3
    assert [found for found in read if found[0] != found[1]] == []


@pytest.mark.parametrize("seed", range(12))
def test_several_streams_may_use_the_weights(place: Device, seed: int) -> None:
    from cmpk.nn.device_weights import DeviceWeights

    choose = random.Random(seed)
    weights = DeviceWeights({name: Stored() for name in "abcd"}, CUDA, 1)  # type: ignore[misc]
    read: list[tuple[str, str]] = []
    own = [place.current, place.new_stream(), place.new_stream()]
    for name in 5 * "abcd":
        for stream in choose.sample(own, choose.choice([1, 2, 3])):
            with place.on(stream):
                use(weights, place, name, read)
    place.run(choose)
    assert len(read) >= 2 * 20
    assert [found for found in read if found[0] != found[1]] == []


def test_without_cuda_a_tensor_is_written_at_once() -> None:
    out = torch.zeros(3)
    pending = SideStream(torch.device("cpu")).write(out, lambda tensor: tensor.fill_(2))  # type: ignore[arg-type,return-value]
    assert pending.joined() is out
    assert out.tolist() == [2, 2, 2]
