"""Classic BPF programs that the supervisor attaches to listening sockets, as lists of instructions.

Two programs. `steer` (SO_ATTACH_REUSEPORT_CBPF) picks the member of a SO_REUSEPORT group that gets a new connection, by
index. It draws a random number rather than the packet's hash: that one is 0 for cards which compute none. Only SYNs
are steered: later segments find their half-open connection without it, so nothing has to be remembered.
`DROP_SYN` (SO_ATTACH_FILTER) keeps new connections out of a listening socket, without an answer, so that the client
tries again a second later; handshakes in flight complete, and what waits in the queue stays. On a TCP socket the
filter's data begins at the TCP header; byte 13 holds the flags.
Source: man 7 socket; linux/filter.h; verified on Linux 6.18 by tests with real sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

LD_W_ABS: Final = 0x20
LD_B_ABS: Final = 0x30
ALU_AND_K: Final = 0x54
ALU_MOD_K: Final = 0x94
JMP_JEQ_K: Final = 0x15
RET_K: Final = 0x06
SKF_AD_RANDOM: Final = 0x1_0000_0000 - 0x1000 + 56
"""SKF_AD_OFF + SKF_AD_RANDOM as the kernel's unsigned number."""
PASS_ALL: Final = 0x40000


class Instruction(NamedTuple):
    """struct sock_filter: operation, jumps when true and false, operand."""

    code: int
    jump_true: int
    jump_false: int
    operand: int


def steer(indices: Sequence[int]) -> list[Instruction]:
    """Spread new connections evenly over these members.

    An index that does not exist makes the kernel fall back to its own choice among all members.
    """
    if not indices:
        raise ValueError("at least one member must stay")
    program = []
    if len(indices) > 1:
        program.append(Instruction(LD_W_ABS, 0, 0, SKF_AD_RANDOM))
        program.append(Instruction(ALU_MOD_K, 0, 0, len(indices)))
        for draw, index in enumerate(indices[:-1]):
            program.append(Instruction(JMP_JEQ_K, 0, 1, draw))
            program.append(Instruction(RET_K, 0, 0, index))
    program.append(Instruction(RET_K, 0, 0, indices[-1]))
    return program


DROP_SYN: Final = (
    Instruction(LD_B_ABS, 0, 0, 13),
    Instruction(ALU_AND_K, 0, 0, 0x12),  # SYN and ACK
    Instruction(JMP_JEQ_K, 0, 1, 0x02),  # SYN alone
    Instruction(RET_K, 0, 0, 0),
    Instruction(RET_K, 0, 0, PASS_ALL),
)
