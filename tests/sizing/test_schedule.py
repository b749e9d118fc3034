"""Times by hand: 32 FLOP/s, 10 bytes/s between chips, and memory that is too fast to matter."""

import pytest

from mira_jax.sizing import hlo, schedule

MESH = {"fsdp": 2, "tensor": 2}
PROGRAM = """HloModule by_hand, is_scheduled=true

%body (state: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %state = (s32[], f32[4,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %y = f32[4,4]{1,0} get-tuple-element(%state), index=1
  %sum = f32[4,4]{1,0} all-reduce(%y), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %next = (s32[], f32[4,4]{1,0}) tuple(%i, %sum)
}

%condition (state.1: (s32[], f32[4,4])) -> pred[] {
  %state.1 = (s32[], f32[4,4]{1,0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

%product (a: f32[4,4], b: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %b = f32[4,4]{1,0} parameter(1)
  ROOT %ab = f32[4,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: f32[4,4]) -> f32[8,4] {
  %x = f32[4,4]{1,0} parameter(0)
  %start = (f32[4,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%x), replica_groups={{0,2},{1,3}}, dimensions={0}
  %xx = f32[4,4]{1,0} fusion(%x, %x), kind=kCustom, calls=%product
  ROOT %whole = f32[8,4]{1,0} all-gather-done(%start)
  %zero = s32[] constant(0)
  %first = (s32[], f32[4,4]{1,0}) tuple(%zero, %xx)
  %loop = (s32[], f32[4,4]{1,0}) while(%first), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_a_collective_is_exposed_as_long_as_no_kernel_covers_it():
    found = schedule.follow(hlo.parse(PROGRAM), MESH, lambda axes: 10.0, 32.0, 1e12)
    # The all-gather sends 64 bytes in 6.4 s, of which a product of 128 FLOPs covers 4 s. Each of three all-reduces sends 64 bytes.
    assert found.waits == pytest.approx({"fsdp": 2.4, "tensor": 3 * 6.4})
    assert found.sent == pytest.approx({"fsdp": 24, "tensor": 3 * 64})
    assert found.seconds == pytest.approx(6.4 + 3 * 6.4)
    assert found.flops == 2 * 4 * 4 * 4


def test_a_kernel_that_waits_for_memory_covers_a_collective_too():
    # The product reads and writes 3 matrices of 64 bytes; each turn of the loop moves 128 bytes in its all-reduce.
    found = schedule.follow(hlo.parse(PROGRAM), MESH, lambda axes: 10.0, 1e12, 192 / 6.4)
    assert "fsdp" not in found.waits
    assert found.seconds == pytest.approx(6.4 + 3 * 6.4)


def test_a_kernel_of_attention_counts_by_its_name():
    """Two rows of 4 heads, 16 FLOPs a head in the layers with a window; a name that begins in the same way is another kernel."""
    text = """HloModule attention, is_scheduled=true

ENTRY %main (q: bf16[2,8,4,64]) -> bf16[2,8,4,64] {
  %q = bf16[2,8,4,64]{3,2,1,0} parameter(0)
  ROOT %out = bf16[2,8,4,64]{3,2,1,0} custom-call(%q, %q, %q), custom_call_target="triton", metadata={op_name="jit(f)/NAME/pallas_call"}
}
"""
    kernels = {"flash": 1.0, "flash_window_5": 16.0}
    found = {
        name: schedule.follow(hlo.parse(text.replace("NAME", name)), MESH, lambda axes: 10.0, 32.0, 1e12, kernels).flops
        for name in ("flash", "flash_window_5", "flash_window_50")
    }
    assert found == {"flash": 8, "flash_window_5": 128, "flash_window_50": 0}
