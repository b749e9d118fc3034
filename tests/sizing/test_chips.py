import pytest

from mira_jax.errors import UserError
from mira_jax.sizing.chips import parse_topology
from mira_jax.sizing.roofline import roofline


def test_topologies_have_as_many_chips_as_their_shape():
    assert [parse_topology(text).chips for text in ("v5p:2x2x4", "v5p:4x4x4", "v5e:4x4", "v6e:16x16", "h200:8")] == [16, 64, 16, 256, 8]
    assert [parse_topology(text).hosts for text in ("h200:1", "h100:8", "b200:4x8")] == [(1, 1), (1, 8), (4, 8)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one of v5p, v5e, v6e, a100, h100, h200, b200, l40s, a10g, rtx4090"),
        ("v9:4x4", "expected one of v5p, v5e, v6e, a100, h100, h200, b200, l40s, a10g, rtx4090"),
        ("v5p", "has no shape"),
        ("v5p:4x0x4", "has no shape"),
        ("v5p:128", "has 1 dimensions; TPU v5p has 3, for example v5p:2x2x4"),
        ("h200:16", "has 16 GPUs on a host; a host has up to 8; several hosts are full, for example h200:2x8"),
        ("h200:2x4", "has 4 GPUs on a host; a host has up to 8; several hosts are full, for example h200:2x8"),
        ("h200:2x2x2", "the shape of NVIDIA H200 is hosts and GPUs, for example h200:2x8"),
        ("l40s:2x8", "the shape of NVIDIA L40S is GPUs of one host, for example l40s:8"),
        ("l40s:9", "has 9 GPUs on a host; a host has up to 8$"),
    ],
)
def test_what_is_no_topology_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_topology(text)


def test_groups_send_over_the_dimensions_they_fill():
    cube, slab, pod = (parse_topology(text) for text in ("v5p:4x4x4", "v5p:2x2x4", "v6e:16x16"))
    # 600 GB/s a chip, a third of it for each dimension of a torus; half of that where the dimension is no ring.
    assert [cube.rate({"fsdp": size, "data": 64 // size}, ["fsdp"]) for size in (4, 16, 64)] == pytest.approx([200e9, 400e9, 600e9])
    assert slab.rate({"fsdp": 16}, ["fsdp"]) == pytest.approx(300e9)
    assert [pod.rate({"fsdp": size, "data": 256 // size}, ["fsdp"]) for size in (16, 256)] == pytest.approx([200e9, 400e9])


def test_groups_of_gpus_send_through_as_many_network_cards_as_they_have_gpus_on_a_host():
    two = parse_topology("h200:2x8")
    mesh = {"data": 2, "fsdp": 4, "tensor": 2}
    # 450 GB/s by NVLink, 50 GB/s for each of a host's GPUs in the group by network.
    rates = [two.rate(mesh, axes) for axes in (["tensor"], ["fsdp"], ["fsdp", "tensor"], ["data"], ["data", "fsdp"], list(mesh))]
    assert rates == pytest.approx([450e9, 450e9, 450e9, 50e9, 200e9, 400e9])
    assert parse_topology("h200:8").rate({"fsdp": 8}, ["fsdp"]) == 450e9


def test_a_step_takes_as_long_as_its_slowest_part():
    # 4 chips of 989 TFLOP/s, 4.8 TB/s and 450 GB/s: 1 s of products at half the peak, 2 s of memory, 3 s of links.
    line = roofline(
        parse_topology("h200:4"), {"fsdp": 2, "data": 2}, done=4 * 989e12 / 2, needed=4 * 989e12 * 0.375, tokens=600,
        hbm_bytes=9.6e12, sent={"fsdp": 450e9, "data+fsdp": 900e9}, efficiency=0.5,
    )  # fmt: skip
    assert (line.compute, line.memory, line.links) == pytest.approx((1, 2, 3))
    assert line.bound == "links"
    assert (line.seconds, line.tokens_per_second) == pytest.approx((3, 200))
    assert line.mfu == pytest.approx(0.125)
