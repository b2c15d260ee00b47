"""benchmarks/kernels.py and roofline.py: what a trace says, and what the networks' shapes say."""

import pytest
from jax.profiler import ProfileData

from benchmarks import kernels, roofline
from draem_jax.model import networks

GPU_TRACE = """
planes {
  name: "/device:GPU:0"
  lines { name: "Stream #13(Compute)" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 3000000 stats { metadata_id: 1 str_value: "jvp(Draem)/Conv_0" } }
    events { metadata_id: 2 offset_ps: 4000000 duration_ps: 1000000 } }
  lines { name: "XLA Ops" timestamp_ns: 1000 events { metadata_id: 2 offset_ps: 0 duration_ps: 9000000 } }
  event_metadata { key: 1 value { id: 1 name: "sm90_xmma_fprop_implicit_gemm_bf16" } }
  event_metadata { key: 2 value { id: 2 name: "input_reduce_fusion_3" } }
  stat_metadata { key: 1 value { id: 1 name: "name" } }
}
planes {
  name: "/host:CPU"
  lines { name: "tf_XLAEigen/1" events { metadata_id: 1 offset_ps: 0 duration_ps: 5000000 } }
  event_metadata { key: 1 value { id: 1 name: "dot.5" } }
}
"""


@pytest.mark.parametrize(
    ('name', 'path', 'expected'),
    [
        ('sm90_xmma_dgrad_implicit_gemm_indexed_bf16bf16_bf16f32', '', 'convolutions'),
        ('nvjet_tst_128x256_64x4', '', 'convolutions'),
        ('gemm_fusion_dot_12', '', 'convolutions'),
        ('loop_convert_fusion_7', '', 'elementwise'),
        ('wrapped_concatenate', '', 'elementwise'),
        ('input_reduce_fusion_12', '', 'sums'),
        ('multiply_reduce_fusion.67', '', 'sums'),
        ('input_transpose_fusion', '', 'copies'),
        ('void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>', '', 'copies'),
        ('MemcpyD2D', '', 'copies'),
        ('all-reduce.17', '', 'other'),
        ('ncclDevKernel_AllReduce_Sum_f32_RING_LL', '', 'other'),
        ('redzone_checker', '', 'other'),
        ('loop_select_fusion_9', 'jit(_where)/select_n', 'optimizer'),
        ('loop_select_fusion_9', 'transpose(jvp(Draem))/discriminative/select_n', 'elementwise'),
        ('loop_select_fusion_9', '', 'elementwise'),
    ],
)
def test_kernels_are_sorted_by_name_and_path(name, path, expected):
    assert kernels.kind(name, path) == expected


def test_only_the_streams_of_a_gpu_count(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'host.xplane.pb').write_bytes(ProfileData.text_proto_to_serialized_xspace(GPU_TRACE))
    assert list(kernels.events(tmp_path)) == [
        ('sm90_xmma_fprop_implicit_gemm_bf16', 'jvp(Draem)/Conv_0', 1000, 3000),
        ('input_reduce_fusion_3', '', 5000, 1000),
    ]


def test_a_folder_without_a_trace_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='No trace'):
        kernels.find_trace(tmp_path)


def test_milliseconds_and_counts_are_of_one_step_and_busy_time_counts_once():
    happened = [
        ('gemm', '', 0, 4e6),
        ('gemm', '', 10e6, 4e6),
        ('loop_add_fusion', '', 2e6, 4e6),  # beside the first
        ('MemcpyH2D', '', 11e6, 1e6),  # inside the second
    ]
    report = kernels.summarise(happened, steps=2)
    assert [(row['name'], row['ms'], row['count']) for row in report['kernels']] == [
        ('gemm', 4, 1),
        ('loop_add_fusion', 2, 0.5),
        ('MemcpyH2D', 0.5, 0.5),
    ]
    assert sum(row['share'] for row in report['kinds']) == pytest.approx(1)
    assert report['busy_ms'] == pytest.approx((6 + 4) / 2)


def test_a_paper_sized_step_of_eight_computes_9_5_tflop():
    model = networks.make_model(reconstructive_width=128, discriminative_width=64, dtype='bfloat16')
    found = roofline.shapes(model, (256, 256))
    assert {name: len(layers) for name, layers in found.items()} == {
        'convolutions': 51,
        'normalisations': 49,
        'poolings': 9,
        'enlargements': 9,
        'concatenations': 6,  # five skips, and the pair of reconstruction and image
    }
    step = {row['kind']: row for row in roofline.work(model, (256, 256), 8)}
    assert step['convolutions']['tflop'] == pytest.approx(9.5, abs=0.01)
    assert step['optimizer']['gigabytes'] == pytest.approx(8 * 4 * 97.4e6 / 1e9, rel=1e-3)


def test_sums_read_every_normalised_image_three_times():
    model = networks.ReconstructiveSubnetwork(width=4)
    # Channels at each size, of the ten convolutions of the encoder and the twelve of the decoder.
    channels = {64: 2 * 4 + 3 * 4, 32: 2 * 8 + (8 + 8 + 4), 16: 2 * 16 + (16 + 16 + 8), 8: 2 * 32 + (32 + 32 + 16)}
    channels[4] = 2 * 32
    elements = sum(size * size * count for size, count in channels.items())
    (read,) = (row['gigabytes'] for row in roofline.work(model, (64, 64), 2) if row['kind'] == 'sums')
    assert read == pytest.approx(3 * 2 * elements * 4 / 1e9)
