"""Folders in a bucket are read as those on this machine; a folder stands in for the bucket."""

import pathlib
import types

import pytest
from etils.epath import backend, gpath
from trees import draw_tree

import data
from data import normals, streaming
from draem_jax import images, storage
from draem_jax.errors import UserError

BUCKET = 'gs://bucket'


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that epath takes for gs://bucket, by whichever way it reaches buckets."""

    class Stand(backend._OsPathBackend):
        def __getattribute__(self, name):
            attribute = super().__getattribute__(name)
            if not callable(attribute):
                return attribute
            return lambda path, *rest, **options: attribute(str(path).replace(BUCKET, str(tmp_path)), *rest, **options)

    monkeypatch.setattr(backend, 'tf_backend', Stand())
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, 'gs', Stand())
    monkeypatch.setattr(gpath, '_is_zonal_gcs_bucket', lambda bucket: False)
    return tmp_path


def test_a_bucket_lists_as_its_folder(bucket):
    draw_tree(bucket / 'tree')
    (bucket / 'tree' / 'train' / '.hidden').mkdir()
    (bucket / 'tree' / 'train' / '.hidden' / 'a.png').write_bytes(b'')
    local = images.list_images(str(bucket / 'tree'))
    remote = images.list_images(f'{BUCKET}/tree')
    assert remote == [path.replace(str(bucket), BUCKET) for path in local]
    assert storage.is_folder(f'{BUCKET}/tree')
    assert not storage.is_folder(f'{BUCKET}/three')
    assert storage.names_in(f'{BUCKET}/tree') == ['ground_truth', 'test', 'train']


def test_a_data_set_in_a_bucket_reads_as_the_same_on_disk(bucket):
    draw_tree(bucket / 'sets' / 'screw')
    builders = [data.make_builder('mvtec_ad', 'screw', root) for root in (str(bucket / 'sets'), f'{BUCKET}/sets')]
    for split in ('train', 'test'):
        local, remote = (list(streaming.read_split(builder, split, (32, 32))) for builder in builders)
        assert [example['filename'] for example in remote] == [example['filename'] for example in local]
        for one, other in zip(local, remote, strict=True):
            assert (one['image'] == other['image']).all()
            assert (one['mask'] == other['mask']).all()
    keep = {'cache': 'disk', 'cache_folder': str(bucket / 'kept')}
    training, *_ = normals.load_normals(builders[1], (32, 32), **keep)
    assert [int(training[k][0, 0, 0]) for k in range(8)] == list(range(8))


def test_what_is_wrong_in_a_bucket_is_named_by_its_path(bucket):
    (bucket / 'tree').mkdir()
    with pytest.raises(UserError, match=r"No folder 'gs://bucket/tree/parts'\. Found in 'gs://bucket/tree': nothing"):
        data.make_builder('folder', 'parts', f'{BUCKET}/tree')
    with pytest.raises(UserError, match=r"Cannot read image 'gs://bucket/a\.png'"):
        images.read_image(f'{BUCKET}/a.png')


def test_a_stamp_changes_with_the_file(bucket):
    for path in (str(bucket / 'a'), f'{BUCKET}/a'):
        pathlib.Path(bucket / 'a').write_bytes(b'one')
        before = storage.stamp(path)
        pathlib.Path(bucket / 'a').write_bytes(b'three')
        assert storage.stamp(path) != before


@pytest.mark.parametrize('address', ['http://host/tree', 'https://host/tree', 'ftp://tree', 'file:///tree'])
def test_an_address_that_is_no_bucket_is_refused_by_all_that_read(address):
    readers = (storage.is_folder, storage.is_file, storage.names_in, storage.read_bytes, storage.stamp)
    for read in (*readers, images.list_images, images.read_image, lambda root: data.make_builder('folder', root=root)):
        with pytest.raises(UserError, match=f"Cannot read '{address}.*': expected a path on this machine"):
            read(address)


def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch):
    def fail():  # As TensorFlow does without its plug-in for s3://, in an error of its own.
        raise RuntimeError("File system scheme 's3' not implemented\n(more lines)")

    monkeypatch.setattr('etils.epath.Path', lambda path: types.SimpleNamespace(exists=fail))
    for read in (images.list_images, lambda root: data.make_builder('folder', root=root)):
        with pytest.raises(UserError, match=r"Cannot read 's3://b/tree': File system scheme .* copy the") as caught:
            read('s3://b/tree')
        assert '\n' not in str(caught.value)


def test_a_path_of_the_command_line_may_begin_at_home_and_be_no_address(monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    assert storage.local_path('~/runs/x', '--workdir') == '/home/somebody/runs/x'
    assert storage.local_path('runs/~x', '--workdir') == 'runs/~x'
    for address in ('gs://bucket/x', 's3://bucket/x', 'http://host/x'):
        with pytest.raises(UserError, match=f"--workdir='{address}': expected a path on this machine"):
            storage.local_path(address, '--workdir')
