"""The inner loops of the register tiles, read back from the compiled kernels: they keep everything in
registers. A compiler that misses an unroll, or a tile with one register too many, would still be right
and several times slower.

The scalar kernels are left out: they call fmaf for each element, and a call leaves no vector register
alone, so their loops must use the stack.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FMA = re.compile(r"vfn?m(add|sub)\w*(?P<type>[ps][sd])$")
VECTOR = re.compile(r"%([xyz]mm|k)\d")  # masks as well
# Address, prefixes, name, operands.
LINE = re.compile(r"\s*([0-9a-f]+):\t(?:(?:lock|rep|data16|\{\w+\}) )*(\S+)\s*(.*)")
ISAS = ["avx2", "avx512"]


@dataclass
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes."""
        found = re.match(r"([0-9a-f]+) <", self.operands) if self.name.startswith("j") else None
        return int(found[1], 16) if found else None


@dataclass
class Function:
    name: str
    body: list[Instruction] = field(default_factory=list)

    def loops(self) -> list[list[Instruction]]:
        """The innermost loops with fused multiply-adds: from the target of a jump back to the jump."""
        spans = []
        for jump in self.body:
            if jump.target is not None and self.body[0].address <= jump.target <= jump.address:
                loop = [i for i in self.body if jump.target <= i.address <= jump.address]
                if any(FMA.match(i.name) for i in loop):
                    spans.append(loop)

        def within(a: list[Instruction], b: list[Instruction]) -> bool:
            return a is not b and b[0].address <= a[0].address and a[-1].address <= b[-1].address

        return [loop for loop in spans if not any(within(other, loop) for other in spans)]

    def on_the_stack(self, loop: list[Instruction]) -> list[str]:
        """What a loop has no business to do: vectors in memory of the stack, calls."""
        # Where there is no frame pointer, %rbp is a register like any other.
        framed = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in self.body[:16])
        stack = re.compile(r"\(%r(sp|bp)\b" if framed else r"\(%rsp\b")
        return [
            f"{i.address:x}: {i.name} {i.operands}"
            for i in loop
            if i.name.startswith(("push", "pop", "call"))
            or (stack.search(i.operands) and VECTOR.search(i.operands))
        ]


def functions(listing: str) -> list[Function]:
    """The functions of what objdump prints."""
    found: list[Function] = []
    for line in listing.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            found.append(Function(header[1]))
        elif found and (parts := LINE.match(line)):
            found[-1].body.append(Instruction(int(parts[1], 16), parts[2], parts[3]))
    return found


@pytest.fixture(scope="module")
def objdump() -> str:
    if platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("knows the registers of x86-64 only")
    found = shutil.which("objdump")
    if found is None:
        pytest.skip("objdump (binutils) is not installed")
    return found


@pytest.mark.parametrize("isa", ISAS)
def test_inner_loops_of_tiles_stay_in_registers(
    isa: str, objdump: str, kernel_objects: dict[str, Path]
) -> None:
    command = [objdump, "-d", "-C", "--no-show-raw-insn", str(kernel_objects[isa])]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tiles = [f for f in functions(listing) if "gemm_tile" in f.name and "[clone .cold" not in f.name]
    without = [tile.name for tile in tiles if not tile.loops()]
    assert not without, f"no loop with fused multiply-adds in {without}"
    types = {match["type"] for t in tiles for loop in t.loops() for i in loop if (match := FMA.match(i.name))}
    assert {"ps", "pd"} <= types, f"found {len(tiles)} tiles, with {types}"
    spilled = {tile.name: bad for tile in tiles for loop in tile.loops() if (bad := tile.on_the_stack(loop))}
    assert not spilled


# ---- the reader of the listing ------------------------------------------------------------------


def listing(*body: str, name: str = "gemm_tile<float, 2, 1>(long)") -> str:
    lines = [f"  {16 + 4 * i:x}:\t{line}" for i, line in enumerate(body)]
    return "\n".join([f"0000000000000010 <{name}>:", *lines, ""])


FMA_LINE = "vfmadd231ps %ymm1,%ymm2,%ymm3"
BACK = "jne    18 <gemm_tile<float, 2, 1>(long)+0x8>"


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (True, "vmovaps %ymm3,0x40(%rsp)"),
        (True, "vmovaps 0x40(%rsp,%rax,8),%zmm20"),
        (True, "vfmadd231ps 0x4(%rsp){1to16},%zmm1,%zmm2"),
        (True, "vmovss -0x8(%rbp),%xmm1"),
        (True, "kmovw  %k1,0x8(%rsp)"),
        (True, "call   40 <fmaf>"),
        (True, "push   %rax"),
        (False, "mov    0x8(%rsp),%rax"),
        (False, "vbroadcastss (%rax,%r11,1),%ymm2"),
        (False, "nopw   0x0(%rax,%rax,1)"),
        (False, "prefetcht0 0x40(%rdi)"),
    ],
)
def test_what_is_found_in_a_loop(bad: bool, line: str) -> None:
    prologue = ["push   %rbp", "mov    %rsp,%rbp"]
    (tile,) = functions(listing(*prologue, "add    $0x1,%rax", line, FMA_LINE, BACK, "pop    %rbp", "ret"))
    (loop,) = tile.loops()
    assert [i.name for i in loop[-2:]] == ["vfmadd231ps", "jne"]
    assert (tile.on_the_stack(loop) != []) == bad


def test_rbp_is_a_register_without_a_frame() -> None:
    (tile,) = functions(listing("push   %rbp", "nop", "vmovups 0x0(%rbp),%ymm1", FMA_LINE, BACK, "ret"))
    (loop,) = tile.loops()
    assert tile.on_the_stack(loop) == []


def test_which_loops_are_found() -> None:
    """The innermost ones that multiply; neither a loop around them nor one that copies, nor a way forward."""
    around = "jne    10 <gemm_tile<float, 2, 1>(long)>"
    ahead = "je     24 <gemm_tile<float, 2, 1>(long)+0x14>"
    (tile,) = functions(listing("vmovaps %ymm3,(%rsp)", ahead, FMA_LINE, BACK, around, "ret"))
    assert [len(loop) for loop in tile.loops()] == [2]
    (copy,) = functions(listing("nop", "nop", "vmovups (%rax),%ymm1", BACK, "ret"))
    assert copy.loops() == []
    first, second = functions(listing("ret") + listing("ret", name="other"))
    assert (first.name, second.name) == ("gemm_tile<float, 2, 1>(long)", "other")
