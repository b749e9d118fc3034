"""What is read of a compiled program's text. `fixtures/hlo/scan.txt` is what XLA made (jax 0.10.2, 8 simulated CPU devices, mesh
data 2, fsdp 2, tensor 2) of a scan over 5 matrices of 32 x 32 fp32, split over fsdp and tensor, that multiply 16 x 32 rows;
names of source lines are left out."""

from pathlib import Path

import numpy as np
import pytest

from mira_jax.sizing import hlo

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
SCAN = (Path(__file__).parents[1] / "fixtures" / "hlo" / "scan.txt").read_text()


def test_collectives_count_as_often_as_their_loop_turns_and_know_their_axes():
    found = {(c.kind, c.axes): (c.bytes, c.count, c.size) for c in hlo.collectives(hlo.parse(SCAN), MESH)}
    assert found == {
        # A 16 x 16 shard of fp32 to one other chip, 5 times; then the 32 x 16 half; then one fp32 number among four.
        ("all-gather", ("fsdp",)): (5 * 16 * 16 * 4, 5, 2),
        ("all-gather", ("tensor",)): (5 * 32 * 16 * 4, 5, 2),
        ("all-reduce", ("data", "fsdp")): (4 * 2 * 3 / 4, 1, 4),
    }


PROGRAM = """HloModule by_hand

%inner (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %add.1 = f32[2]{0} add(%p, %p)
}

%take (all: f32[100,8], at: s32[]) -> f32[1,8] {
  %all = f32[100,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,8]{1,0} dynamic-slice(%all, %at, %zero), dynamic_slice_sizes={1,8}
}

%body (state: (s32[], f32[100,8], f32[2])) -> (s32[], f32[100,8], f32[2]) {
  %state = (s32[], f32[100,8]{1,0}, f32[2]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %all.1 = f32[100,8]{1,0} get-tuple-element(%state), index=1
  %x = f32[2]{0} get-tuple-element(%state), index=2
  %row = f32[1,8]{1,0} fusion(%all.1, %i), kind=kLoop, calls=%take
  %y = f32[2]{0} fusion(%x), kind=kLoop, calls=%inner
  ROOT %next = (s32[], f32[100,8]{1,0}, /*index=2*/f32[2]{0}) tuple(%i, %all.1, %y)
}

%condition (state.1: (s32[], f32[100,8], f32[2])) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  %state.1 = (s32[], f32[100,8]{1,0}, f32[2]{0}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%forever (state.4: (s32[], f32[100,8], f32[2])) -> pred[] {
  %state.4 = (s32[], f32[100,8]{1,0}, f32[2]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

%outer (state.2: (s32[], f32[100,8], f32[2])) -> (s32[], f32[100,8], f32[2]) {
  %state.2 = (s32[], f32[100,8]{1,0}, f32[2]{0}) parameter(0)
  ROOT %loop = (s32[], f32[100,8]{1,0}, f32[2]{0}) while(%state.2), condition=%condition, body=%body
}

ENTRY %main (state.3: (s32[], f32[100,8], f32[2])) -> (s32[], f32[100,8], f32[2]) {
  %state.3 = (s32[], f32[100,8]{1,0}, f32[2]{0}) parameter(0)
  ROOT %loop.1 = (s32[], f32[100,8]{1,0}, f32[2]{0}) while(%state.3), condition=%forever, body=%outer, TRIPS
}
""".replace("TRIPS", 'backend_config={"known_trip_count":{"n":"3"}}')


def test_bodies_of_nested_loops_run_as_often_as_both_turn():
    program = hlo.parse(PROGRAM)
    assert program.runs["outer"] == 3
    assert program.runs["body"] == program.runs["take"] == 21
    assert program.fused == {"take", "inner", "condition", "forever"}


def test_a_slice_of_a_stacked_parameter_counts_as_the_slice():
    # Each of 21 turns reads a row of 8 and its place (4 bytes) and writes the row, and reads and writes 2 numbers.
    assert hlo.memory_traffic(hlo.parse(PROGRAM)) == 21 * (8 * 4 + 4 + 8 * 4 + 2 * 4 + 2 * 4)


def test_buffers_on_the_chip_are_not_in_memory():
    text = "(bf16[4,8]{1,0:T(8,128)(2,1)}, f32[3]{0:T(128)S(1)}, pred[5]{0}, token[])"
    assert hlo.type_bytes(text) == 64 + 12 + 5
    assert hlo.type_bytes(text, in_memory=True) == 64 + 5


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", ("data", "tensor")),
        ("replica_groups=[1,8]<=[8]", ("data", "fsdp", "tensor")),
        ("replica_groups={}", ("data", "fsdp", "tensor")),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}", ("tensor",)),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", ("fsdp",)),
        ("source_target_pairs={{0,2},{2,0},{1,3},{3,1},{4,6},{6,4},{5,7},{7,5}}", ("fsdp",)),
    ],
)
def test_groups_of_devices_are_the_axes_they_differ_in(written, axes):
    kind = "collective-permute" if "pairs" in written else "all-reduce"
    text = f"""HloModule one

ENTRY %main (x: f32[6]) -> f32[6] {{
  %x = f32[6]{{0}} parameter(0)
  ROOT %y = f32[6]{{0}} {kind}(%x), channel_id=1, {written}, use_global_device_ids=true
}}
"""
    (found,) = hlo.collectives(hlo.parse(text), MESH)
    assert found.axes == axes
    assert found.bytes == pytest.approx(24 if "pairs" in written else 24 * 2 * (found.size - 1) / found.size)


def test_named_groups_are_those_of_numpy():
    groups = hlo._named_groups("'a'=2,'b'=3,'c'=4", "'a','c':(2)2")
    numbers = np.arange(24).reshape(2, 3, 2, 2).transpose(1, 2, 0, 3).reshape(6, 4)
    assert sorted(map(sorted, groups.tolist())) == sorted(map(sorted, numbers.tolist()))


def test_an_all_reduce_that_is_sliced_in_one_kernel_is_a_reduce_scatter():
    text = """HloModule scatter

%all-reduce-scatter.1 (x: f32[16]) -> f32[2] {
  %x = f32[16]{0} parameter(0)
  %sum = f32[16]{0} all-reduce(%x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %mine = f32[2]{0} dynamic-slice(%sum, %zero), dynamic_slice_sizes={2}
}

ENTRY %main (y: f32[16]) -> f32[2] {
  %y = f32[16]{0} parameter(0)
  ROOT %z = f32[2]{0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    (found,) = hlo.collectives(hlo.parse(text), MESH)
    assert (found.kind, found.bytes) == ("reduce-scatter", 64 * 7 / 8)


def test_an_update_in_place_counts_as_the_update():
    text = """HloModule update

%put (all: f32[100,8], row: f32[1,8], at: s32[]) -> f32[100,8] {
  %all = f32[100,8]{1,0} parameter(0)
  %row = f32[1,8]{1,0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %new = f32[100,8]{1,0} dynamic-update-slice(%all, %row, %at, %at)
}

ENTRY %main (all.1: f32[100,8], row.1: f32[1,8], at.1: s32[]) -> f32[100,8] {
  %all.1 = f32[100,8]{1,0} parameter(0)
  %row.1 = f32[1,8]{1,0} parameter(1)
  %at.1 = s32[] parameter(2)
  ROOT %new.1 = f32[100,8]{1,0} fusion(%all.1, %row.1, %at.1), kind=kLoop, calls=%put
}
"""
    # The row is read and written, its place is read.
    assert hlo.memory_traffic(hlo.parse(text)) == 32 + 32 + 4


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("HloModule nothing\n")


def test_a_collective_in_pieces_within_several_kernels_counts_once_and_moves_nothing_in_those_between():
    """As the TPU compiler writes it: a start, a piece in each turn of a loop beside other work, an end."""
    gather = 'all-gather(%SHARD), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, frontend_attributes={chain_id="3"}'
    text = """HloModule chained

%start (shard: f32[2]) -> (f32[2], f32[16]) {
  %shard = f32[2]{0} parameter(0)
  %gather.1 = f32[16]{0} GATHER1
  ROOT %begun = (f32[2]{0}, f32[16]{0}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%piece (shard.1: f32[2], whole.1: f32[16], x.1: f32[100]) -> (f32[100], f32[2], f32[16], f32[16]) {
  %shard.1 = f32[2]{0} parameter(0)
  %whole.1 = f32[16]{0} parameter(1)
  %x.1 = f32[100]{0} parameter(2)
  %double = f32[100]{0} add(%x.1, %x.1)
  %gather.2 = f32[16]{0} GATHER2
  ROOT %on = (f32[100]{0}, f32[2]{0}, f32[16]{0}, f32[16]{0}) tuple(%double, %shard.1, %whole.1, %gather.2)
}

%end (shard.2: f32[2], whole.2: f32[16]) -> f32[16] {
  %shard.2 = f32[2]{0} parameter(0)
  %whole.2 = f32[16]{0} parameter(1)
  %gather.3 = f32[16]{0} GATHER3
  ROOT %ended = f32[16]{0} custom-call(%shard.2, %whole.2, %gather.3), custom_call_target="AsyncCollectiveDone"
}

%turn (state: (s32[], f32[2], f32[16], f32[100])) -> (s32[], f32[2], f32[16], f32[100]) {
  %state = (s32[], f32[2]{0}, f32[16]{0}, f32[100]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %s = f32[2]{0} get-tuple-element(%state), index=1
  %w = f32[16]{0} get-tuple-element(%state), index=2
  %x = f32[100]{0} get-tuple-element(%state), index=3
  %made = (f32[100]{0}, f32[2]{0}, f32[16]{0}, f32[16]{0}) fusion(%s, %w, %x), kind=kOutput, calls=%piece
  %y = f32[100]{0} get-tuple-element(%made), index=0
  ROOT %next = (s32[], f32[2]{0}, f32[16]{0}, f32[100]{0}) tuple(%i, %s, %w, %y)
}

%forever (state.1: (s32[], f32[2], f32[16], f32[100])) -> pred[] {
  %state.1 = (s32[], f32[2]{0}, f32[16]{0}, f32[100]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (a: f32[2], b: f32[100], c: s32[]) -> f32[16] {
  %a = f32[2]{0} parameter(0)
  %b = f32[100]{0} parameter(1)
  %c = s32[] parameter(2)
  %begin = (f32[2]{0}, f32[16]{0}) fusion(%a), kind=kCustom, calls=%start
  %a.1 = f32[2]{0} get-tuple-element(%begin), index=0
  %w.1 = f32[16]{0} get-tuple-element(%begin), index=1
  %first = (s32[], f32[2]{0}, f32[16]{0}, f32[100]{0}) tuple(%c, %a.1, %w.1, %b)
  %loop = (s32[], f32[2]{0}, f32[16]{0}, f32[100]{0}) while(%first), condition=%forever, body=%turn, TRIPS
  %w.2 = f32[16]{0} get-tuple-element(%loop), index=2
  ROOT %done = f32[16]{0} fusion(%a.1, %w.2), kind=kCustom, calls=%end
}
""".replace("TRIPS", 'backend_config={"known_trip_count":{"n":"31"}}')
    for number, shard in (("1", "shard"), ("2", "shard.1"), ("3", "shard.2")):
        text = text.replace("GATHER" + number, gather.replace("SHARD", shard))
    program = hlo.parse(text)
    (found,) = hlo.collectives(program, MESH)
    assert (found.kind, found.count, found.bytes) == ("all-gather", 1, 2 * 4 * 7)
    # The start reads the shard and writes the whole; each of 31 turns reads and writes 100 numbers beside it.
    assert hlo.memory_traffic(program) == (2 + 16) * 4 + 31 * 2 * 400


def test_a_slice_that_a_kernel_within_a_kernel_takes_counts_as_the_slice():
    text = PROGRAM.replace(
        "%row = f32[1,8]{1,0} fusion(%all.1, %i), kind=kLoop, calls=%take", "%row = f32[1,8]{1,0} fusion(%all.1, %i), calls=%wrapped"
    ).replace(
        "%body (state:",
        """%wrapped (all.2: f32[100,8], at.2: s32[]) -> f32[1,8] {
  %all.2 = f32[100,8]{1,0} parameter(0)
  %at.2 = s32[] parameter(1)
  ROOT %row.2 = f32[1,8]{1,0} fusion(%all.2, %at.2), kind=kLoop, calls=%take
}

%body (state:""",
    )
    assert hlo.memory_traffic(hlo.parse(text)) == hlo.memory_traffic(hlo.parse(PROGRAM))


def test_a_gather_and_a_scatter_move_only_what_they_touch():
    text = """HloModule cache

%look_up (all.1: f32[1000,8], rows.1: s32[3,1]) -> f32[3,8] {
  %all.1 = f32[1000,8]{1,0} parameter(0)
  %rows.1 = s32[3,1]{1,0} parameter(1)
  ROOT %found = f32[3,8]{1,0} gather(%all.1, %rows.1), offset_dims={1}, collapsed_slice_dims={0}, slice_sizes={1,8}
}

%put (all.2: f32[1000,8], rows.2: s32[3,1], new.2: f32[3,8]) -> f32[1000,8] {
  %all.2 = f32[1000,8]{1,0} parameter(0)
  %rows.2 = s32[3,1]{1,0} parameter(1)
  %new.2 = f32[3,8]{1,0} parameter(2)
  ROOT %changed = f32[1000,8]{1,0} scatter(%all.2, %rows.2, %new.2), to_apply=%add
}

ENTRY %main (all: f32[1000,8], rows: s32[3,1]) -> f32[1000,8] {
  %all = f32[1000,8]{1,0} parameter(0)
  %rows = s32[3,1]{1,0} parameter(1)
  %new = f32[3,8]{1,0} fusion(%all, %rows), kind=kLoop, calls=%look_up
  ROOT %next = f32[1000,8]{1,0} fusion(%all, %rows, %new), kind=kInput, calls=%put
}
"""
    # Gather: 3 rows of 8 fp32 read and written, and 3 indices. Scatter: the new rows read and written, and the indices.
    assert hlo.memory_traffic(hlo.parse(text)) == 2 * (2 * 3 * 8 * 4 + 3 * 4)


@pytest.mark.parametrize("written", ["branch_computations={%no, %yes}", "true_computation=%yes, false_computation=%no"])
def test_branches_run_as_often_as_their_conditional(written):
    text = f"""HloModule branches

%yes (x.1: f32[2]) -> f32[2] {{
  %x.1 = f32[2]{{0}} parameter(0)
  ROOT %twice = f32[2]{{0}} add(%x.1, %x.1)
}}

%no (x.2: f32[2]) -> f32[2] {{
  ROOT %x.2 = f32[2]{{0}} parameter(0)
}}

ENTRY %main (which: pred[], x: f32[2]) -> f32[2] {{
  %which = pred[] parameter(0)
  %x = f32[2]{{0}} parameter(1)
  ROOT %y = f32[2]{{0}} conditional(%which, %x, %x), {written}
}}
"""
    program = hlo.parse(text)
    assert program.runs == {"main": 1, "yes": 1, "no": 1} and not program.fused
    assert hlo.memory_traffic(program) == 3 * 2 * 4


def test_a_kernel_that_gathers_from_a_slice_reads_only_what_it_gathers():
    text = """HloModule layers

%look_up (stack.1: f32[6,1000,8], layer.1: s32[], zero.1: s32[], rows.1: s32[3,1]) -> f32[3,8] {
  %stack.1 = f32[6,1000,8]{2,1,0} parameter(0)
  %layer.1 = s32[] parameter(1)
  %zero.1 = s32[] parameter(2)
  %rows.1 = s32[3,1]{1,0} parameter(3)
  %one = f32[1,1000,8]{2,1,0} dynamic-slice(%stack.1, %layer.1, %zero.1, %zero.1), dynamic_slice_sizes={1,1000,8}
  %flat = f32[1000,8]{1,0} bitcast(%one)
  ROOT %found = f32[3,8]{1,0} gather(%flat, %rows.1), offset_dims={1}, collapsed_slice_dims={0}, slice_sizes={1,8}
}

ENTRY %main (stack: f32[6,1000,8], layer: s32[], zero: s32[], rows: s32[3,1]) -> f32[3,8] {
  %stack = f32[6,1000,8]{2,1,0} parameter(0)
  %layer = s32[] parameter(1)
  %zero = s32[] parameter(2)
  %rows = s32[3,1]{1,0} parameter(3)
  ROOT %new = f32[3,8]{1,0} fusion(%stack, %layer, %zero, %rows), kind=kLoop, calls=%look_up
}
"""
    # 3 rows of 8 fp32 read and written, the number of the layer, the zero and 3 indices.
    assert hlo.memory_traffic(hlo.parse(text)) == 2 * 3 * 8 * 4 + 4 + 4 + 3 * 4
